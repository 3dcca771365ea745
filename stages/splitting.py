"""Kernels that cut documents into tokens: the plain splitter, and what both splitters share.

A token is four uint64 words, 32 bytes: `start | end << 32` (bytes from the document's first byte), `chars | flags << 32`,
a hash of its code points, and a hash of its lower-cased code points. Imported only where it is about to run: numba takes
half a second to import and the kernels some seconds to compile once per machine.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar, cast

import numba
import numpy as np

from stages import characters as ch

F = TypeVar("F")

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


def kernel(function: F) -> F:
    """`numba.njit` with the cache on disk and the GIL released, typed as the function it wraps."""
    return cast("F", numba.njit(cache=True, nogil=True)(function))


def inlined(function: F) -> F:
    """A kernel that its callers swallow whole."""
    return cast("F", numba.njit(cache=True, nogil=True, inline="never", forceinline=True)(function))


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
def put(codes: Any, places: Any, a: int, b: int, gap: int, table: Any, fold: Any, out: Any, at: int) -> int:
    """Write characters a..b as the token number `at`; return the next number, or -1 when `out` is full."""
    if at < 0 or at >= out.shape[0]:
        return -1
    exact, lower = _SEED, _SEED
    any_bits, all_bits, solid = 0, _PUNCT, 0
    for i in range(a, b):
        where = slot(codes[i])
        bits = int(table[where])
        any_bits |= bits
        all_bits &= bits
        if bits & _MARKS == 0:
            solid = SOLID
        exact = (exact ^ np.uint64(codes[i])) * _PRIME
        lower = (lower ^ np.uint64(fold[where])) * _PRIME
    flags = gap | solid | (HAS_LETTER if any_bits & _LETTER else 0) | (HAS_DIGIT if any_bits & _DIGIT else 0)
    if all_bits & _PUNCT:
        flags |= ALL_PUNCT
    if b - a == 1 and any_bits & _TERMINAL:
        flags |= STOP
    out[at, 0] = np.uint64(places[a]) | np.uint64(places[b]) << _SHIFT
    out[at, 1] = np.uint64(b - a) | np.uint64(flags) << _SHIFT
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
    if code in (0x27, 0x2019):
        return before & _LETTER != 0 and after & _LETTER != 0
    if code in (0x2E, 0x2C):
        return before & _DIGIT != 0 and after & _DIGIT != 0
    return False


@inlined
def word_end(codes: Any, i: int, n: int, table: Any) -> int:
    """Where the word that begins at i ends: letters, digits, marks, underscores and joined punctuation."""
    bits = int(table[slot(codes[i])])
    lone = bits & _LONE
    i += 1
    while i < n:
        code = codes[i]
        now = int(table[slot(code)])
        if now & _COMBINING == 0:
            if lone or now & _LONE:
                break
            outside = now & _ALNUM == 0 and code != 0x5F
            if outside and (i + 1 >= n or not joins(bits, code, int(table[slot(codes[i + 1])]))):
                break
            bits = now
        i += 1
    return i


@kernel
def plain_document(codes: Any, places: Any, n: int, table: Any, fold: Any, out: Any, at: int) -> int:
    """Tokens of one document: words, and every run of one repeated symbol. -1 when `out` is full."""
    i, gap = 0, AFTER_SPACE | AFTER_LINE | AFTER_PARAGRAPH
    while i < n:
        code = codes[i]
        bits = int(table[slot(code)])
        if bits & _SPACE:
            gap = gap_after(code, gap)
            i += 1
            continue
        if bits & (_ALNUM | _COMBINING) or code == 0x5F:
            end = word_end(codes, i, n, table)
        else:
            end = i + 1
            while end < n and codes[end] == code:
                end += 1
        at = put(codes, places, i, end, gap, table, fold, out, at)
        gap = 0
        i = end
    return at


@kernel
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
