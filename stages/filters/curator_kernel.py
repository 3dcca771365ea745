"""The kernels that only the Curator cascade needs. Imported only where they run (see `stages.splitting`)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from stages import characters as ch
from stages.compiled import inlined, making
from stages.filters.bytes_kernel import space_at, trimmed
from stages.filters.line_kernels import ends_with, last_code, phrases_in
from stages.splitting import AFTER_SPACE, HAS_LETTER, decode, slot

COUNTS: Final = (
    "chars", "other_chars", "digits", "spaces", "brackets", "url_chars", "words", "letter_words", "word_chars", "longest_word",
    "lines", "open_lines", "paragraphs", "boilerplate", "boilerplate_at_edge",
)  # fmt: skip
_ALNUM, _SPACE, _DIGIT = ch.ALNUM, ch.SPACE, ch.DIGIT


@inlined
def count_chars(codes: Any, n: int, table: Any, row: Any) -> None:
    """Characters by class; those of addresses run from `http://`, `https://` or `www.` to the next white space."""
    other, digits, spaces, brackets, urls, inside = 0, 0, 0, 0, 0, False
    for i in range(n):
        code = codes[i]
        bits = int(table[slot(code)])
        spaces += (bits & _SPACE) != 0
        digits += (bits & _DIGIT) != 0
        other += (bits & (_ALNUM | _SPACE)) == 0
        brackets += code == 0x28 or code == 0x29
        if inside:
            inside = bits & _SPACE == 0
        elif code == 0x3A and i >= 4 and i + 2 < n and codes[i + 1] == 0x2F and codes[i + 2] == 0x2F:
            size = 4 if codes[i - 1] == 0x70 else 5
            inside = i >= size and codes[i - size] == 0x68 and codes[i - size + 1] == 0x74 and codes[i - size + 3] == 0x70
            urls += size * inside
        elif code == 0x2E and i >= 3 and codes[i - 1] == 0x77 and codes[i - 2] == 0x77 and codes[i - 3] == 0x77:
            inside = True
            urls += 3
        urls += inside
    row[0], row[1], row[2], row[3], row[4], row[5] = n, other, digits, spaces, brackets, urls


@inlined
def count_words(tokens: Any, first: int, last: int, row: Any) -> None:
    """Words between white space, put together from tokens: how many, with a letter, characters, the longest."""
    words, letters, chars, longest, size, letter = 0, 0, 0, 0, 0, 0
    for t in range(first, last):
        flags: Any = np.int64(tokens[t, 1] >> np.uint64(32))
        length: Any = np.int64(tokens[t, 1] & np.uint64(0xFFFFFFFF))
        if flags & AFTER_SPACE:
            words += 1
            letters += letter
            size, letter = 0, 0
        size += length
        chars += length
        letter |= flags & HAS_LETTER
        longest = max(longest, size)
    row[6], row[7], row[8], row[9] = words, letters + letter, chars, longest


@inlined
def count_lines(data: Any, start: int, stop: int, marks: Any, table: Any, row: Any) -> None:
    """Lines that are not blank, and how many of them end in no end mark."""
    a = start
    while a < stop:
        b = a
        while b < stop and data[b] != 10:
            b += 1
        left, right = trimmed(data, a, b)
        if left < right:
            row[10] += 1
            row[11] += not ends_with(last_code(data, left, right), marks, False, table)
        a = b + 1


@inlined
def count_boilerplate(data: Any, start: int, stop: int, phrases: Any, row: Any) -> None:
    """Paragraphs between blank lines, how many hold a boilerplate phrase, and whether the first or the last one does."""
    heads, texts, ends, groups = phrases
    a, found = start, 0
    while a < stop:
        b = a
        while b < stop and not (data[b] == 10 and b + 1 < stop and data[b + 1] == 10):
            b += 1
        found = phrases_in(data, a, b, heads, texts, ends, groups)
        row[13] += found != 0
        if row[12] == 0:
            row[14] += found != 0
        row[12] += 1
        a = b
        while a < stop and (data[a] == 10 or space_at(data, a, stop) > 0):
            a += max(space_at(data, a, stop), 1)
    row[14] += found != 0


@making
def counts(
    data: Any, offsets: Any, tokens: Any, starts: Any, marks: Any, table: Any, heads: Any, texts: Any, ends: Any, groups: Any,
    out: Any,
) -> None:  # fmt: skip
    """Fill out[row] with COUNTS."""
    longest = 0
    for r in range(offsets.shape[0] - 1):
        longest = max(longest, offsets[r + 1] - offsets[r])
    codes, places = np.empty(longest + 1, np.int32), np.empty(longest + 1, np.int32)
    for r in range(offsets.shape[0] - 1):
        start, stop = offsets[r], offsets[r + 1]
        count_chars(codes, decode(data, start, stop, codes, places), table, out[r])
        count_words(tokens, starts[r], starts[r + 1], out[r])
        count_lines(data, start, stop, marks, table, out[r])
        left, right = trimmed(data, start, stop)
        count_boilerplate(data, left, right, (heads, texts, ends, groups), out[r])
