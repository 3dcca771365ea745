"""Kernels that turn documents into MinHash bands: shingle hashes, minima under many permutations, one hash a band.

A shingle's hash is a polynomial in its units (code points, or lower-cased words of the shared analysis), rolled along the
document and mixed to 32 bits. Permutation p of a hash x is (x ^ mask[p]) * factor[p] modulo 2**32 with an odd factor: a
bijection that AVX computes sixteen at a time. Nothing here allocates by the length of a document.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stages import characters as ch
from stages.compiled import inlined, kernel, making
from stages.splitting import SOLID, slot

BLOCK: Final = 2048
"""Shingle hashes that are collected before the permutations run over them: 8 KB, so that all of it stays in cache."""
_ONE, _SHIFT, _FINAL = np.uint64(1), np.uint64(32), np.uint64(29)
_BASE, _MIX, _BAND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93), np.uint64(0xC2B2AE3D27D4EB4F)
_TOP = np.uint32(0xFFFFFFFF)
_ALNUM, _COMBINING, _SIZE = ch.ALNUM, ch.COMBINING, ch.SIZE


def permutations(count: int, seed: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Masks and odd factors of `count` permutations, from a splitmix64 sequence: the same on every machine and release."""
    state, words = seed & (1 << 64) - 1, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & (1 << 64) - 1
        word = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & (1 << 64) - 1
        word = (word ^ word >> 27) * 0x94D049BB133111EB & (1 << 64) - 1
        words.append(word ^ word >> 31)
    drawn = np.array(words, np.uint64)
    return (drawn >> _SHIFT).astype(np.uint32), (drawn & np.uint64(0xFFFFFFFF)).astype(np.uint32) | np.uint32(1)


@inlined
def mixed(value: Any) -> Any:
    """64 bits in which every bit of the input has a say."""
    value = (value ^ value >> _SHIFT) * _MIX
    value = (value ^ value >> _SHIFT) * _MIX
    return value ^ value >> _SHIFT


@kernel
def absorb(values: Any, count: int, masks: Any, factors: Any, minima: Any) -> None:
    """Lower the minima by the first `count` values. Four values a round: one load and store of the minima for four."""
    whole = count - count % 4
    for i in range(0, whole, 4):
        a, b, c, d = values[i], values[i + 1], values[i + 2], values[i + 3]
        for p in range(minima.shape[0]):
            mask, factor = masks[p], factors[p]
            left = min(np.uint32((a ^ mask) * factor), np.uint32((b ^ mask) * factor))
            right = min(np.uint32((c ^ mask) * factor), np.uint32((d ^ mask) * factor))
            minima[p] = min(minima[p], left, right)
    for i in range(whole, count):
        for p in range(minima.shape[0]):
            minima[p] = min(minima[p], np.uint32((values[i] ^ masks[p]) * factors[p]))


@inlined
def power(size: int) -> Any:
    """The weight with which a unit leaves a shingle of `size` units."""
    weight: Any = _ONE
    for _ in range(size):
        weight *= _BASE
    return weight


@kernel
def put_bands(minima: Any, out: Any) -> None:
    """One 64-bit hash for each band of the minima; the band's number is part of it."""
    rows = minima.shape[0] // out.shape[0]
    for band in range(out.shape[0]):
        value = np.uint64(band + 1) * _BAND
        for r in range(band * rows, band * rows + rows):
            value = (value ^ np.uint64(minima[r])) * _MIX
            value ^= value >> _FINAL
        out[band] = mixed(value)


@inlined
def code_point(data: Any, at: Any) -> tuple[Any, Any]:
    """The code point that begins at this byte, and where the next one begins."""
    first = np.int64(data[at])
    if first < 0x80:
        return first, at + 1
    second = np.int64(data[at + 1]) & 0x3F
    if first < 0xE0:
        return (first & 0x1F) << 6 | second, at + 2
    third = np.int64(data[at + 2]) & 0x3F
    if first < 0xF0:
        return (first & 0x0F) << 12 | second << 6 | third, at + 3
    return (first & 0x07) << 18 | second << 12 | third << 6 | (np.int64(data[at + 3]) & 0x3F), at + 4


@kernel
def character_shingles(
    data: Any, stop: int, size: int, fold: Any, table: Any, folded: bool, ring: Any, sink: Any, state: Any
) -> int:
    """Fill `sink` with the next shingle hashes of data[..:stop]; returns how many, less than its length at the end.

    `state` carries on between calls: next byte, hash, units seen, whether a gap was passed. `ring` holds the last `size`
    code points. A text with fewer units than `size` but at least one is one shingle: what has been hashed so far.
    """
    at, value, seen, gap = np.int64(state[0]), state[1], np.int64(state[2]), state[3] != 0
    leaving, found = power(size), 0
    place: Any = seen % size
    while at < stop and found < sink.shape[0]:
        code, at = code_point(data, at)
        if folded:
            where = slot(code)
            if int(table[where]) & (_ALNUM | _COMBINING) == 0:
                gap = seen > 0
                continue
            code = np.int64(fold[where])
        rounds = 2 if folded and gap else 1
        if rounds == 2 and found + 2 > sink.shape[0]:
            # Both the space and the letter may finish a shingle: come back with an empty sink.
            at = _back(data, at)
            break
        for turn in range(rounds):
            unit: Any = 32 if turn + 1 < rounds else code
            value = value * _BASE + np.uint64(unit + 1)
            if seen >= size:
                value -= np.uint64(ring[place] + 1) * leaving
            ring[place] = unit
            place = place + 1 if place + 1 < size else 0
            seen += 1
            if seen >= size:
                sink[found] = np.uint32(mixed(value) >> _SHIFT)
                found += 1
        gap = False
    if at >= stop and 0 < seen < size:
        sink[0], found = np.uint32(mixed(value) >> _SHIFT), 1
    state[0], state[1], state[2], state[3] = np.uint64(at), value, np.uint64(seen), np.uint64(1 if gap else 0)
    return found


@inlined
def _back(data: Any, at: Any) -> Any:
    """The first byte of the character that ends before `at`."""
    at -= 1
    while data[at] & 0xC0 == 0x80:
        at -= 1
    return at


@making
def by_characters(
    data: Any, offsets: Any, size: int, folded: bool, table: Any, fold: Any, masks: Any, factors: Any, out: Any, units: Any
) -> None:
    """Bands (rows, bands) of texts under shingles of `size` code points; `units` takes their number, 0 for no shingle."""
    ring, sink = np.empty(size, np.int64), np.empty(BLOCK, np.uint32)
    minima, state = np.empty(masks.shape[0], np.uint32), np.empty(4, np.uint64)
    for row in range(offsets.shape[0] - 1):
        minima[:], state[:] = _TOP, np.uint64(0)
        state[0] = np.uint64(offsets[row])
        while np.int64(state[0]) < offsets[row + 1]:
            count = character_shingles(
                data, offsets[row + 1], size, fold, table, folded, ring, sink, state
            )  # fmt: skip
            absorb(sink, count, masks, factors, minima)
        units[row] = np.int64(state[2])
        put_bands(minima, out[row])


@making
def by_words(tokens: Any, firsts: Any, size: int, masks: Any, factors: Any, out: Any, units: Any) -> None:
    """Bands of documents under shingles of `size` words: lower-cased tokens of the analysis, bare punctuation left out."""
    ring, sink, minima = np.empty(size, np.uint64), np.empty(BLOCK, np.uint32), np.empty(masks.shape[0], np.uint32)
    leaving = power(size)
    for row in range(firsts.shape[0] - 1):
        minima[:] = _TOP
        value, seen, count, place = np.uint64(0), 0, 0, 0
        for token in range(firsts[row], firsts[row + 1]):
            if tokens[token, 1] >> _SHIFT & np.uint64(SOLID) == np.uint64(0):
                continue
            unit = tokens[token, 3]
            value = value * _BASE + unit
            if seen >= size:
                value -= ring[place] * leaving
            ring[place] = unit
            place = place + 1 if place + 1 < size else 0
            seen += 1
            if seen >= size:
                sink[count] = np.uint32(mixed(value) >> _SHIFT)
                count += 1
                if count == sink.shape[0]:
                    absorb(sink, count, masks, factors, minima)
                    count = 0
        if 0 < seen < size:
            sink[0], count = np.uint32(mixed(value) >> _SHIFT), 1
        absorb(sink, count, masks, factors, minima)
        units[row] = seen
        put_bands(minima, out[row])
