"""Cut a document into passages that fit a model: whole lines, packed greedily (Nemotron-CC, section 2.4 and footnote 11)."""

from __future__ import annotations

import re

from synthetic.tokens import Count


def passages(text: str, count: Count, limit: int, *, floor: int = 0) -> list[str]:
    """Whole lines joined to passages of at most `limit` tokens; a longer line and a passage under `floor` tokens is left out.

    The line break counts with the line before it, so that the parts are never longer together than apart. Order stays.
    """
    found: list[str] = []
    held: list[str] = []
    size = 0
    for line in text.split("\n"):
        tokens = count(line + "\n") if line.strip() else 1
        if tokens > limit:
            continue
        if size + tokens > limit:
            found.append("\n".join(held))
            held, size = [], 0
        held.append(line)
        size += tokens
    found.append("\n".join(held))
    kept = [p.strip("\n") for p in found if p.strip()]
    return [p for p in kept if count(p) >= floor] if floor else kept


_BORDERS = (r"(?<=\n\n)(?!\n)", r"(?<=\n)(?!\n)", r"(?<=[.!?。！？])(?=\s|[。！？\u4e00-\u9fff])", r"(?<=\s)(?!\s)", r"(?<=.)")
"""Where a text may be cut, best first: paragraphs, lines, sentences, words, characters."""


_FENCE = re.compile(r"^ {0,3}(?:```|~~~)", re.MULTILINE)


def _pieces(text: str, level: int) -> list[str]:
    """The text cut at all borders of a level; a fenced block with blank lines in it is one piece."""
    found: list[str] = []
    inside: list[str] = []
    for piece in re.split(_BORDERS[level], text):
        odd = level == 0 and len(_FENCE.findall(piece)) % 2 == 1
        if inside or odd:
            inside.append(piece)
        else:
            found.append(piece)
        if odd and len(inside) > 1:
            found.append("".join(inside))
            inside = []
    return found + inside


def parts(text: str, count: Count, limit: int, level: int = 0) -> list[str]:
    """Cut a text into parts of at most `limit` tokens; nothing is left out: the parts joined are the text again."""
    found: list[str] = []
    held, size = "", 0
    for piece in _pieces(text, level):
        tokens = count(piece) + 1
        if held and size + tokens > limit:
            found.append(held)
            held, size = "", 0
        if tokens > limit and level + 1 < len(_BORDERS):
            found += parts(piece, count, limit, level + 1)
            continue
        held, size = held + piece, size + tokens
    return [*found, held] if held else found
