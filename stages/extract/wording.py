"""Counts over the text of each block: words, sentences, symbols, and what its words weigh in a learned lexicon."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.compiled import kernel, making
from stages.extract.blocks import B_TEXT0, B_TEXT1
from stages.extract.markup import lower

(
    W_WORDS, W_BYTES, W_ENDS, W_COMMAS, W_DIGITS, W_CAPITALS, W_SYMBOLS, W_LAST, W_FIRST, W_LEX, W_LEX_MIN, W_LEX_MAX, W_HASH,
    W_LONGEST, W_WIDE, W_TITLE,
) = range(16)  # fmt: skip
W_COLUMNS = 16
LEXICON_BITS = 16
"""Words and pairs of CJK characters are hashed into 65,536 weights."""
MAX_WORD = 64
"""Bytes of a word that are hashed; a longer run of letters is still one word."""

_FNV, _PRIME = np.uint32(2166136261), np.uint32(16777619)
Bytes = NDArray[np.uint8]


@kernel
def kind_of(text: Bytes, at: int, stop: int) -> tuple[int, int]:
    """What stands at `at` and how many bytes it takes.

    0 space, 1 letter, 2 digit, 3 a CJK character (a word of its own), 4 sentence end, 5 comma, 6 other symbol,
    7 colon, 8 capital letter.
    """
    byte = text[at]
    if byte < 128:
        if 97 <= byte <= 122 or byte == 95:
            return 1, 1
        if byte <= 32:
            return 0, 1
        if 65 <= byte <= 90:
            return 8, 1
        if 48 <= byte <= 57:
            return 2, 1
        if byte in (46, 33, 63):
            return 4, 1
        return (5 if byte in (44, 59) else 7 if byte == 58 else 6), 1
    if byte < 0xE0 or at + 2 >= stop:
        return (6 if byte == 0xC2 else 1), min(2, stop - at)
    if byte >= 0xF0:
        return 6, min(4, stop - at)
    return _three((byte & 15) << 12 | (text[at + 1] & 63) << 6 | (text[at + 2] & 63)), 3


@kernel
def _three(code: int) -> int:
    """The kind of a character of three bytes in UTF-8."""
    if 0x3040 <= code < 0x3100 or 0x3400 <= code < 0xA000 or 0xAC00 <= code < 0xD7B0 or 0xF900 <= code < 0xFB00:
        return 3
    if code in (0x3002, 0xFF01, 0xFF1F, 0xFF0E, 0x0964):
        return 4
    if code in (0xFF0C, 0x3001, 0xFF1B):
        return 5
    if code == 0xFF1A:
        return 7
    return 6 if 0x2000 <= code < 0x2C00 or 0x3000 <= code < 0x3040 or code >= 0xFE00 else 1


@kernel
def _word(row: NDArray[np.float32], hashed: Any, lexicon: NDArray[np.float32], title: NDArray[np.bool_]) -> None:
    """Add a word's weight to its block."""
    slot = (hashed ^ (hashed >> np.uint32(LEXICON_BITS))) & np.uint32((1 << LEXICON_BITS) - 1)
    weight = lexicon[slot]
    row[W_LEX] += weight
    row[W_LEX_MIN] = min(row[W_LEX_MIN], weight)
    row[W_LEX_MAX] = max(row[W_LEX_MAX], weight)
    row[W_TITLE] += title[slot & np.uint32(1023)]


@kernel
def _note(kind: int, row: NDArray[np.float32]) -> None:
    """Count one character."""
    if kind == 4:
        row[W_ENDS] += 1
    elif kind == 5:
        row[W_COMMAS] += 1
    elif kind == 6 or kind == 7:
        row[W_SYMBOLS] += 1
    elif kind == 2:
        row[W_DIGITS] += 1
    if kind:
        if row[W_FIRST] < 0:
            row[W_FIRST] = kind
        row[W_LAST] = kind


@kernel
def measure(
    text: Bytes, start: int, stop: int, lexicon: NDArray[np.float32], title: NDArray[np.bool_], row: NDArray[np.float32]
) -> Any:
    """Fill one row of counts for text[start:stop]; returns a 31-bit hash of its words."""
    row[:] = 0
    row[W_FIRST] = -1
    row[W_BYTES] = stop - start
    hashed, length, wide, whole, at = _FNV, 0, np.uint32(0), _FNV, start
    while at <= stop:
        kind, size = kind_of(text, at, stop) if at < stop else (0, 1)
        letter = kind == 1 or kind == 2 or kind == 8
        if length and not letter:
            _word(row, hashed, lexicon, title)
            row[W_LONGEST] = max(row[W_LONGEST], length)
            whole = (whole ^ hashed) * _PRIME
            hashed, length = _FNV, 0
        if letter:
            if length == 0:
                row[W_WORDS] += 1
                row[W_CAPITALS] += kind == 8
            for offset in range(size if length < MAX_WORD else 0):
                hashed = (hashed ^ np.uint32(lower(text[at + offset]))) * _PRIME
            length += size
        elif kind == 3:
            code = np.uint32(text[at]) << np.uint32(16) | np.uint32(text[at + 1]) << np.uint32(8) | np.uint32(text[at + 2])
            row[W_WORDS] += 1
            row[W_WIDE] += 1
            if wide:
                _word(row, ((_FNV ^ wide) * _PRIME ^ code) * _PRIME, lexicon, title)
            whole = (whole ^ code) * _PRIME
        wide = code if kind == 3 else np.uint32(0)
        _note(kind, row)
        at += size
    return whole & np.uint32(0x7FFFFFFF)


@kernel
def word_slots(text: Bytes, start: int, stop: int, slots: NDArray[np.int32]) -> int:
    """The lexicon slots of the words of text[start:stop], in order; returns their number (training and the title need them)."""
    hashed, length, wide, at, count = _FNV, 0, np.uint32(0), start, 0
    while at <= stop:
        kind, size = kind_of(text, at, stop) if at < stop else (0, 1)
        letter = kind == 1 or kind == 2 or kind == 8
        found = np.uint32(0)
        if length and not letter:
            found, hashed, length = hashed, _FNV, 0
            slots[count] = (found ^ (found >> np.uint32(LEXICON_BITS))) & np.uint32((1 << LEXICON_BITS) - 1)
            count += 1
        if letter:
            for offset in range(size if length < MAX_WORD else 0):
                hashed = (hashed ^ np.uint32(lower(text[at + offset]))) * _PRIME
            length += size
        code = np.uint32(0)
        if kind == 3:
            code = np.uint32(text[at]) << np.uint32(16) | np.uint32(text[at + 1]) << np.uint32(8) | np.uint32(text[at + 2])
            if wide:
                found = ((_FNV ^ wide) * _PRIME ^ code) * _PRIME
                slots[count] = (found ^ (found >> np.uint32(LEXICON_BITS))) & np.uint32((1 << LEXICON_BITS) - 1)
                count += 1
        wide = code
        at += size
    return count


@making
def measure_all(
    text: Bytes, blocks: NDArray[np.int32], lexicon: NDArray[np.float32], title: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Counts (blocks x `W_COLUMNS`) and text hashes of all blocks."""
    counts, hashes = np.empty((len(blocks), W_COLUMNS), np.float32), np.empty(len(blocks), np.int32)
    for number in range(len(blocks)):
        hashes[number] = measure(text, blocks[number, B_TEXT0], blocks[number, B_TEXT1], lexicon, title, counts[number])
    return counts, hashes


@making
def title_set(text: Bytes) -> NDArray[np.bool_]:
    """The words of a title as 1,024 flags over their slots."""
    flags, slots = np.zeros(1024, np.bool_), np.empty(text.size + 1, np.int32)
    for number in range(word_slots(text, 0, text.size, slots)):
        flags[slots[number] & 1023] = True
    return flags
