"""Unicode character classes as one table, for kernels that walk over code points.

Planes 0 and 1 are listed; supplementary ideographs (from U+20000) share the class of U+4E00, everything above
shares the class of a private-use character. Building the table takes about a tenth of a second, once per process.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

SIZE: Final = 0x20000

LETTER: Final = 1 << 0
"""Alphabetic by `str.isalpha`."""
SPACE: Final = 1 << 1
"""White space by `str.isspace`."""
MARKS: Final = 1 << 2
"""Counts as punctuation where a filter asks for words that are more than symbols (see PUNCTUATION)."""
PUNCT: Final = 1 << 3
"""Unicode category P."""
TERMINAL: Final = 1 << 4
"""Ends a sentence (Unicode property Sentence_Terminal)."""
DIGIT: Final = 1 << 5
"""Decimal digit (Nd)."""
LONE: Final = 1 << 6
"""Letter of a script written without spaces: every such character is a word of its own."""
COMBINING: Final = 1 << 7
"""Combining mark (category M): stays with the character before it."""
BREAK: Final = 1 << 8
"""A line boundary of `str.splitlines`."""
UPPER: Final = 1 << 9
LOWER: Final = 1 << 10
"""UPPER and LOWER both hold for letters without case."""
QUOTE: Final = 1 << 11
OPENS: Final = 1 << 12
"""Split off the front of a chunk in the spaCy-like mode."""
CLOSES: Final = 1 << 13
"""Split off the end of a chunk in the spaCy-like mode."""
ICON: Final = 1 << 14
"""Other symbol (So): split off anywhere in the spaCy-like mode."""
CURRENCY: Final = 1 << 15
ALNUM: Final = 1 << 16
"""Alphanumeric by `str.isalnum`."""
HYPHEN: Final = 1 << 17
APOSTROPHE: Final = 1 << 18
RELATION: Final = 1 << 19
"""One of : < > = / (cut between letters in the spaCy-like mode)."""
OPERATOR: Final = 1 << 20
"""One of + - * ^ (cut between digits)."""
POINTED: Final = 1 << 21
"""A point after this character is a token of its own."""
ASCII_DIGIT: Final = 1 << 22

ASCII_MARKS: Final = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
TYPOGRAPHIC_MARKS: Final = "«»‘’“”„´…–—―━∶►、。〈〉《》「」【】！％（），．：；？～・"
PUNCTUATION: Final = ASCII_MARKS + TYPOGRAPHIC_MARKS
"""Together with control characters and sentence terminals: what makes a token "only symbols" in the Gopher rules."""

SPLIT_QUOTES: Final = "'\"”“`‘´’‚,„»«「」『』（）〔〕【】《》〈〉⟦⟧"
SPLIT_PUNCT: Final = "…,:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪"
BREAKS: Final = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"

# Han, kana, Thai, Lao, Tibetan, Myanmar, Khmer and their extensions: no spaces between words.
LONE_RANGES: Final = (
    (0x0E00, 0x0EFF), (0x0F00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x1950, 0x19DF), (0x1A20, 0x1AAF),
    (0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3021, 0x3029), (0x3038, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF), (0xA9E0, 0xA9FF), (0xAA60, 0xAA7F), (0xF900, 0xFAFF), (0xFF66, 0xFF9F), (0x1B000, 0x1B16F),
)  # fmt: skip


def _category_bits(char: str) -> int:
    kind = unicodedata.category(char)
    if kind[0] == "P":
        return PUNCT
    if kind[0] == "M":
        return COMBINING
    return {"Nd": DIGIT, "So": ICON, "Sc": CURRENCY, "Cc": 0 if char.isspace() and char == " " else MARKS}.get(kind, 0)


def _letter_bits(char: str) -> int:
    if not char.isalpha():
        return ALNUM if char.isalnum() else 0
    cased = UPPER if char.isupper() else LOWER if char.islower() else UPPER | LOWER
    return LETTER | ALNUM | cased


def _mark(table: NDArray[np.int32], chars: str, bits: int) -> None:
    table[[ord(char) for char in chars]] |= np.int32(bits)


@cache
def classes() -> NDArray[np.int32]:
    """Bits of every code point below SIZE."""
    import regex

    table = np.zeros(SIZE, np.int32)
    terminal = regex.compile(r"\p{Sentence_Terminal}")
    for code in range(SIZE):
        char = chr(code)
        bits = _category_bits(char) | _letter_bits(char) | (SPACE if char.isspace() else 0)
        if bits & PUNCT and terminal.match(char):
            bits |= TERMINAL | MARKS
        table[code] = bits
    for low, high in LONE_RANGES:
        part = table[low : high + 1]
        part[(part & LETTER) > 0] |= np.int32(LONE)
    _mark(table, PUNCTUATION, MARKS)
    _mark(table, BREAKS, BREAK)
    _mark(table, SPLIT_QUOTES, QUOTE | OPENS | CLOSES)
    _mark(table, SPLIT_PUNCT, OPENS | CLOSES)
    _mark(table, "—–", OPENS | CLOSES)
    _mark(table, "§%=", OPENS)
    table[(table & CURRENCY) > 0] |= np.int32(OPENS)
    table[(table & ICON) > 0] |= np.int32(OPENS | CLOSES)
    table[(table & (LOWER | CLOSES) > 0) & (table & ICON == 0)] |= np.int32(POINTED)
    table[[0x2014, 0x2013]] &= ~np.int32(POINTED)
    for chars, bits in (("-–—~", HYPHEN), ("'’", APOSTROPHE), (":<>=/", RELATION), ("+-*^", OPERATOR), ("%²-+|", POINTED)):
        _mark(table, chars, bits)
    table[48:58] |= np.int32(ASCII_DIGIT | POINTED)
    return table


@cache
def folded() -> NDArray[np.int32]:
    """The lower-case code point of every code point below SIZE, where that is one code point."""
    lower = [chr(code).lower() for code in range(SIZE)]
    return np.array([ord(low) if len(low) == 1 else code for code, low in enumerate(lower)], np.int32)


def class_of(code: int) -> int:
    """The twin of the kernels' lookup, for tests and for building word lists."""
    return int(classes()[slot(code)])


def slot(code: int) -> int:
    """Where a code point is found in the tables."""
    return code if code < SIZE else 0x4E00 if code < 0x32400 else 0xE000


def tables() -> tuple[NDArray[Any], NDArray[Any]]:
    """Both tables in the order in which the kernels take them."""
    return classes(), folded()
