"""Text as an n-gram model reads it: normalised lines cut into tokens."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

TOKEN = re.compile(r"\w+|[^\w\s]")
PUNCTUATION = str.maketrans(
    {
        **dict.fromkeys("„”“«»″「」『』《》", '"'), **dict.fromkeys("‘’´′", "'"), **dict.fromkeys("–—―−", "-"),
        "，": ",", "、": ",", "。": ".", "．": ".", "…": ".", "！": "!", "？": "?", "：": ":", "；": ";", "（": "(", "）": ")",
        "【": "[", "】": "]", "％": "%",
    }
)  # fmt: skip


class _Table(dict[int, int | str | None]):
    """What becomes of a character; looked up once each."""

    def __missing__(self, code: int) -> int | str | None:
        character = chr(code)
        value: int | str | None = PUNCTUATION.get(code, code)
        if character.isspace():
            value = " "
        elif character.isdecimal():
            value = "0"
        elif unicodedata.category(character) in {"Mn", "Cc", "Cf"}:
            value = None
        self[code] = value
        return value


_TABLE = _Table()


def normalize(line: str) -> str:
    """CCNet's normalisation: lower case, no accents, every digit 0, plain punctuation, nothing unprintable.

    Wenzek et al., arXiv 1911.00359, section 3.4; the table of punctuation is ours.
    """
    line = line.lower()
    return (line if line.isascii() else unicodedata.normalize("NFD", line)).translate(_TABLE)


def tokens(line: str) -> list[str]:
    """Words and single marks of a normalised line, where no SentencePiece vocabulary is at hand."""
    return TOKEN.findall(line)


def sentences(text: str, cut: Callable[[str], list[str]] = tokens) -> list[list[str]]:
    """The lines of a text as tokens, without empty ones."""
    return [found for line in text.splitlines() if (found := cut(normalize(line)))]
