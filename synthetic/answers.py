"""What stands in an answer besides the answer: lead-ins, bold type, quotes, preambles, refusals, question-answer pairs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from stages.prompt import Message, Prompt

_BOLD = re.compile(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1", re.DOTALL)
_QUOTES = {'"': '"', "'": "'", "\u201c": "\u201d", "\u00ab": "\u00bb", "\u2018": "\u2019", "\u201e": "\u201c", "`": "`"}
_MARK = re.compile(r"[ \t]*(?:[-*#\d.)]+[ \t]*)?(question|answer)[ \t]*\d*[ \t]*:[ \t]*(.*)", re.IGNORECASE)
_REFUSAL = re.compile(
    r"\A\W*(i'?m sorry|i am sorry|sorry,|i apologi[sz]e|unfortunately, i|i can(no|')t|i can not|i'?m (not able|unable)|"
    r"i am (not able|unable)|i won'?t|i will not|as an? (ai|artificial|large|language)|i do not have (access|enough)|"
    r"i don'?t have (access|enough)|(the|your) (passage|text|document) (is|was|seems|appears) (missing|empty|incomplete)|"
    r"(please|could you) (provide|share|paste))",
    re.IGNORECASE,
)
_REWRITING = r"re(?:writ(?:e|es|ing|ten)|word(?:ed|ing)?|work(?:ed|ing)|phras(?:e|ed|ing))"
_COMMENTARY = (
    # what the answer says of the text or of the task, and what in a source would explain it
    (re.compile(r"\b(?:the|this|an?|your) (?:\w+ )?(?:text|passage)s?\b(?! of\b)", re.IGNORECASE),
     re.compile(r"\b(?:text|passage)", re.IGNORECASE)),
    (re.compile(rf"\b{_REWRITING}\b", re.IGNORECASE), re.compile(rf"\b{_REWRITING}\b", re.IGNORECASE)),
    (re.compile(r"\bI(?:['’](?:m|ll|ve|d)| (?:am|will|have|had|can|cannot|could|hope|made|think))\b"),
     re.compile(r"\b(?:i|my|me|we|our|us)\b", re.IGNORECASE)),
)  # fmt: skip
_WORD = re.compile(r"\w+")
_ECHO = 6
"""Words in a row of a prompt that no answer has by chance."""
_PREAMBLE = re.compile(
    r"\A\W*(sure|certainly|of course|absolutely|okay|ok|great|here( is| are|['’]s)|here you go|below is|below are|"
    r"the following is|this is (a|an|the) (re|sum|trans|short|dist))\b",
    re.IGNORECASE,
)


def without_bold(text: str) -> str:
    """Markdown bold marks taken off; what they mark stays."""
    return _BOLD.sub(r"\2", text)


def unquoted(text: str) -> str:
    """Without quotation marks around the whole answer."""
    text = text.strip()
    while len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and text[0] not in text[1:-1] and text[-1] not in text[1:-1]:
        text = text[1:-1].strip()
    return text


def after_lead_in(text: str, mark: str) -> str | None:
    """What follows the line that begins with `mark`; None when the answer does not begin with it."""
    stripped = without_bold(text).lstrip(" \t\n#*>")
    return stripped[len(mark) :].lstrip(" \t\n*:") if stripped[: len(mark)].upper() == mark.upper() else None


def is_refusal(text: str) -> bool:
    """Whether an answer begins with an apology, a word about itself, or asks for the text."""
    return _REFUSAL.match(text) is not None


def has_preamble(text: str) -> bool:
    """Whether an answer begins by talking to whoever asked ("Sure, here is ...")."""
    return _PREAMBLE.match(text) is not None


def is_commentary(text: str, source: str) -> bool:
    """Whether an English answer speaks of "the text", of rewriting or of itself, and its source gives no cause for that."""
    return any(said.search(text) is not None and cause.search(source) is None for said, cause in _COMMENTARY)


def echoes(text: str, source: str, prompt: Prompt) -> bool:
    """Whether six words in a row of the prompt stand in the answer, and not in the source.

    Small models recite their instructions; what they recite reads well and passes every check of form.
    """
    said = _grams(text) & _instructions(prompt.messages)
    return bool(said) and not said <= _grams(source)


@lru_cache(maxsize=64)
def _instructions(messages: tuple[Message, ...]) -> set[tuple[str, ...]]:
    return set().union(*(_grams(message.content) for message in messages))


def _grams(text: str) -> set[tuple[str, ...]]:
    words = _WORD.findall(text.lower())
    return set(zip(*(words[n:] for n in range(_ECHO)), strict=False))


def pairs(text: str) -> list[tuple[str, str]]:
    """(question, answer) pairs of an answer in the form of the diverse-QA prompts; a pair without both halves is left out.

    A line `Passage:` or `Text:` ends the pair before it: what follows is the prompt, said once more.
    """
    found: list[tuple[list[str], list[str]]] = []
    held: list[str] | None = None
    for line in without_bold(text).split("\n"):
        mark = _MARK.fullmatch(line)
        if mark and mark.group(1).lower() == "question":
            found.append(([mark.group(2)], []))
            held = found[-1][0]
        elif mark:
            held = found[-1][1] if found and not found[-1][1] else None
            if held is not None:
                held.append(mark.group(2))
        elif line.strip().lower() in ("passage:", "text:"):
            held = None
        elif held is not None:
            held.append(line)
    joined = [("\n".join(q).strip(), "\n".join(a).strip()) for q, a in found]
    return [(q, a) for q, a in joined if q and a]


def bullets(text: str) -> list[str]:
    """The items of a list, without their marks; lines before the first item are left out, wrapped lines join their item."""
    items: list[str] = []
    for line in without_bold(text).split("\n"):
        mark = re.match(r"[ \t]*(?:[-*\u2022]|\d+[.)])[ \t]+", line)
        if mark:
            items.append(line[mark.end() :].strip())
        elif items and line.strip():
            items[-1] += " " + line.strip()
    return [item for item in items if item]


def without_echo(text: str, labels: Sequence[str]) -> str:
    """Without lines that repeat a label of the prompt ("Text:"), and without one before the first line."""
    wanted = {label.lower() for label in labels}
    left = "\n".join(line for line in text.split("\n") if line.strip().strip("*#: ").lower() not in wanted).strip()
    before, colon, behind = left.partition(":")
    return behind.strip() if colon and before.strip("*# ").lower() in wanted else left
