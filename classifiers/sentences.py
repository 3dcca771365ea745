"""Text as an n-gram model reads it: normalised lines cut into tokens."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

DIGIT = re.compile(r"\d")
TOKEN = re.compile(r"\w+|[^\w\s]")
PUNCTUATION = str.maketrans(
    {
        **dict.fromkeys("„”“«»″「」『』《》", '"'), **dict.fromkeys("‘’´′", "'"), **dict.fromkeys("–—―−", "-"),
        "，": ",", "、": ",", "。": ".", "．": ".", "…": ".", "！": "!", "？": "?", "：": ":", "；": ";", "（": "(", "）": ")",
        "【": "[", "】": "]", "％": "%",
    }
)  # fmt: skip


def normalize(line: str) -> str:
    """CCNet's normalisation: lower case, no accents, every digit 0, plain punctuation, nothing unprintable.

    Wenzek et al., arXiv 1911.00359, section 3.4; the table of punctuation is ours.
    """
    parts = unicodedata.normalize("NFD", line.lower())
    line = "".join(character for character in parts if unicodedata.category(character) not in {"Mn", "Cc", "Cf"})
    return DIGIT.sub("0", line.translate(PUNCTUATION))


def tokens(line: str) -> list[str]:
    """Words and single marks of a normalised line, where no SentencePiece vocabulary is at hand."""
    return TOKEN.findall(line)


def sentences(text: str, cut: Callable[[str], list[str]] = tokens) -> list[list[str]]:
    """The lines of a text as tokens, without empty ones."""
    return [found for line in text.splitlines() if (found := cut(normalize(line)))]
