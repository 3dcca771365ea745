"""Kernels that cut documents into tokens: the plain splitter, and what both splitters share.

A token is four uint64 words, 32 bytes: `start | end << 32` (bytes from the document's first byte), `chars | flags << 32`,
a hash of its code points, and a hash of its lower-cased code points. Imported only where it is about to run: numba takes
half a second to import and the kernels some seconds to compile once per machine.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from stages import characters as ch
from stages.compiled import inlined, kernel, making

HAS_LETTER: Final = 1
SOLID: Final = 2
"""At least one character that is no punctuation mark."""
ALL_PUNCT: Final = 4
STOP: Final = 8
"""One character, and that ends a sentence."""
AFTER_SPACE: Final = 16
AFTER_LINE: Final = 32
"""A line feed lies before this token; so does the begin of the document."""
AFTER_PARAGRAPH: Final = 64
"""Two or more line feeds lie before this token."""
HAS_DIGIT: Final = 128

SEED: Final = 0xCBF29CE484222325
PRIME: Final = 0x9E3779B97F4A7C15
_SEED, _PRIME = np.uint64(SEED), np.uint64(PRIME)
_SHIFT, _HALF = np.uint64(32), np.uint64(29)

_LETTER, _SPACE, _MARKS, _PUNCT, _TERMINAL = ch.LETTER, ch.SPACE, ch.MARKS, ch.PUNCT, ch.TERMINAL
_DIGIT, _LONE, _COMBINING, _ALNUM = ch.DIGIT, ch.LONE, ch.COMBINING, ch.ALNUM
_SIZE = ch.SIZE


@kernel
def decode(data: Any, start: int, stop: int, codes: Any, places: Any) -> int:
    """Fill `codes` with the code points of data[start:stop] and `places` with their byte offsets; return their number."""
    i, n = start, 0
    while i < stop:
        byte = np.int32(data[i])
        places[n] = i - start
        if byte < 0x80:
            codes[n] = byte
            i += 1
        elif byte < 0xE0:
            codes[n] = (byte & 0x1F) << 6 | (np.int32(data[i + 1]) & 0x3F)
            i += 2
        elif byte < 0xF0:
            codes[n] = (byte & 0x0F) << 12 | (np.int32(data[i + 1]) & 0x3F) << 6 | (np.int32(data[i + 2]) & 0x3F)
            i += 3
        else:
            high = (byte & 0x07) << 18 | (np.int32(data[i + 1]) & 0x3F) << 12
            codes[n] = high | (np.int32(data[i + 2]) & 0x3F) << 6 | (np.int32(data[i + 3]) & 0x3F)
            i += 4
        n += 1
    places[n] = stop - start
    return n


@inlined
def slot(code: int) -> int:
    """Where a code point stands in the class tables."""
    if code < _SIZE:
        return code
    return 0x4E00 if code < 0x32400 else 0xE000


@inlined
def flags_of(some: int, every: int, size: int) -> int:
    """Flags of a token whose characters' classes are `some` joined by or, `every` joined by and."""
    flags = SOLID if every & _MARKS == 0 else 0
    if some & _LETTER:
        flags |= HAS_LETTER
    if some & _DIGIT:
        flags |= HAS_DIGIT
    if every & _PUNCT:
        flags |= ALL_PUNCT
    if size == 1 and some & _TERMINAL:
        flags |= STOP
    return flags


@kernel
def put(codes: Any, places: Any, a: int, b: int, gap: int, table: Any, fold: Any, out: Any, at: int) -> int:
    """Write characters a..b as the token number `at`; return the next number, or -1 when `out` is full."""
    if at < 0 or at >= out.shape[0]:
        return -1
    exact, lower = _SEED, _SEED
    some, every = 0, -1
    for i in range(a, b):
        where = slot(codes[i])
        bits = int(table[where])
        some |= bits
        every &= bits
        exact = (exact ^ np.uint64(codes[i])) * _PRIME
        lower = (lower ^ np.uint64(fold[where])) * _PRIME
    out[at, 0] = np.uint64(places[a]) | np.uint64(places[b]) << _SHIFT
    out[at, 1] = np.uint64(b - a) | np.uint64(gap | flags_of(some, every, b - a)) << _SHIFT
    out[at, 2] = exact ^ exact >> _HALF
    out[at, 3] = lower ^ lower >> _HALF
    return at + 1


@inlined
def gap_after(code: int, gap: int) -> int:
    """The gap flags when one more white-space character was passed."""
    if code == 10 and gap & AFTER_LINE:
        return gap | AFTER_PARAGRAPH
    if code == 10:
        return gap | AFTER_SPACE | AFTER_LINE
    return gap | AFTER_SPACE


@inlined
def joins(before: int, code: int, after: int) -> bool:
    """Whether a character between these classes stays inside a word: don't, l’été, 3.14, 1,000."""
    if code == 0x27 or code == 0x2019:
        return before & after & _LETTER != 0
    return (code == 0x2E or code == 0x2C) and before & after & _DIGIT != 0


@kernel
def plain_document(codes: Any, places: Any, n: int, table: Any, fold: Any, out: Any, at: int) -> int:
    """Tokens of one document: words, and every run of one repeated symbol. -1 when `out` is full.

    One loop finds a token's end, its flags and its hashes: two loops, as in `put`, cost half as much again.
    """
    i, gap = 0, AFTER_SPACE | AFTER_LINE | AFTER_PARAGRAPH
    while i < n:
        code = codes[i]
        where = slot(code)
        bits = int(table[where])
        if bits & _SPACE:
            gap = gap_after(code, gap)
            i += 1
            continue
        if at >= out.shape[0]:
            return -1
        first, before, is_word = i, bits, bits & (_ALNUM | _COMBINING) != 0 or code == 0x5F
        exact, lower = (_SEED ^ np.uint64(code)) * _PRIME, (_SEED ^ np.uint64(fold[where])) * _PRIME
        some, every = bits, bits
        i += 1
        while i < n:
            now = codes[i]
            where = slot(now)
            bits = int(table[where])
            if not is_word:
                if now != code:
                    break
            elif bits & _COMBINING == 0:
                if (before | bits) & _LONE:
                    break
                outside = bits & _ALNUM == 0 and now != 0x5F
                if outside and (i + 1 >= n or not joins(before, now, int(table[slot(codes[i + 1])]))):
                    break
                before = bits
            some |= bits
            every &= bits
            exact, lower = (exact ^ np.uint64(now)) * _PRIME, (lower ^ np.uint64(fold[where])) * _PRIME
            i += 1
        flags = gap | flags_of(some, every, i - first)
        out[at, 0] = np.uint64(places[first]) | np.uint64(places[i]) << _SHIFT
        out[at, 1] = np.uint64(i - first) | np.uint64(flags) << _SHIFT
        out[at, 2] = exact ^ exact >> _HALF
        out[at, 3] = lower ^ lower >> _HALF
        at += 1
        gap = 0
    return at


@making
def plain(data: Any, offsets: Any, table: Any, fold: Any, out: Any, ends: Any) -> int:
    """Cut every document; `ends` takes the running number of tokens. -1 when `out` is too short."""
    longest = 0
    for row in range(offsets.shape[0] - 1):
        longest = max(longest, offsets[row + 1] - offsets[row])
    codes, places = np.empty(longest + 1, np.int32), np.empty(longest + 1, np.int32)
    at = 0
    for row in range(offsets.shape[0] - 1):
        n = decode(data, offsets[row], offsets[row + 1], codes, places)
        at = plain_document(codes, places, n, table, fold, out, at)
        if at < 0:
            return -1
        ends[row] = at
    return at
