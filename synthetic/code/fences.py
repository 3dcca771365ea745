"""Code out of answers: fenced blocks, turns of a conversation."""

from __future__ import annotations

import re

FENCE = re.compile(r"^[ \t]*(```+|~~~+)[ \t]*([\w+#.-]*)[^\n]*\n(.*?)^[ \t]*\1[ \t]*$", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> list[tuple[str, str]]:
    """(language as written, lower case; code) of all complete fenced blocks, in order."""
    return [(match[2].lower(), match[3]) for match in FENCE.finditer(text)]


def first_block(text: str, names: tuple[str, ...]) -> str | None:
    """The first fenced block that names one of these languages or none; None where there is no such block."""
    return next((code for name, code in blocks(text) if not name or name in names), None)


def turns(text: str, speakers: tuple[str, ...]) -> list[tuple[str, str]]:
    """(speaker, words) of a conversation written as `Name: words`; what stands before the first name is left out.

    Names inside of fenced code do not count.
    """
    mark = re.compile(rf"^[*_#\s]*({'|'.join(speakers)})[*_]*\s*:[*_]*[ \t]*", re.IGNORECASE)
    found: list[tuple[str, list[str]]] = []
    inside = False
    for line in text.split("\n"):
        inside ^= line.lstrip().startswith(("```", "~~~"))
        match = None if inside else mark.match(line)
        if match:
            found.append((match[1].capitalize(), [line[match.end() :]]))
        elif found:
            found[-1][1].append(line)
    return [(name, "\n".join(lines).strip()) for name, lines in found]
