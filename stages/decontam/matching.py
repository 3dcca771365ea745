"""Kernels of decontamination: words, rolling n-grams, and their lookup.

A word is a run of letters, digits, marks and combining characters, lower-cased; characters of scripts without spaces are
words of their own. Everything between words is nothing: case, punctuation, white space, line breaks, bullets and HTML
entities (`&quot;`, `&#39;`) do not hide a test item.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from stages import characters as ch
from stages.compiled import inlined, kernel, making
from stages.dedup.shingles import code_point, mixed, power
from stages.splitting import slot

_BASE, _SEED, _LENGTH = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xCBF29CE484222325), np.uint64(0xC2B2AE3D27D4EB4F)
_WORD, _LONE, _COMBINING = ch.ALNUM | ch.COMBINING, ch.LONE, ch.COMBINING
_ZERO: Final = np.uint64(0)
ENTITY: Final = 10
"""Bytes of the longest entity that is passed over, `&` and `;` included."""


@inlined
def after_entity(data: Any, at: Any, stop: Any) -> Any:
    """The byte behind the HTML entity that begins here, or `at` where none does."""
    end = at + 1
    while end < stop and end - at < ENTITY - 1:
        byte = data[end]
        if byte == 59:
            return end + 1 if end > at + 2 else at
        alphanumeric = 48 <= byte <= 57 or 65 <= byte <= 90 or 97 <= byte <= 122
        if not alphanumeric and not (byte == 35 and end == at + 1):
            return at
        end += 1
    return at


@kernel
def next_word(data: Any, at: Any, stop: Any, table: Any, fold: Any) -> Any:
    """(start, end, hash) of the next word from `at`; start is -1 where there is none."""
    start, value = -1, _SEED
    while at < stop:
        if data[at] == 38:
            behind = after_entity(data, at, stop)
            if behind > at:
                if start >= 0:
                    return start, at, mixed(value)
                at = behind
                continue
        code, after = code_point(data, at)
        where = slot(code)
        bits = int(table[where])
        if bits & _WORD == 0 or (start >= 0 and bits & _LONE and not bits & _COMBINING):
            if start >= 0:
                return start, at, mixed(value)
            at = after
            continue
        start = at if start < 0 else start
        value = (value ^ np.uint64(fold[where])) * _BASE
        at = after
        if bits & _LONE:
            return start, at, mixed(value)
    return start, at, mixed(value)


@inlined
def gram_hash(value: Any, words: Any) -> Any:
    """The key of a gram; its length is part of it, and 0 means an empty slot."""
    key = mixed(value ^ np.uint64(words) * _LENGTH)
    return key if key != _ZERO else np.uint64(1)


@making
def item_grams(data: Any, size: int, least: int, table: Any, fold: Any, out: Any) -> Any:
    """(grams, words) of an item: all grams of `size` words, or all its words as one gram where it has `least` to `size`."""
    ring, leaving = np.empty(size, np.uint64), power(size)
    at, value, words, count = 0, _ZERO, 0, 0
    while True:
        start, at, word = next_word(data, at, data.shape[0], table, fold)
        if start < 0:
            break
        value = value * _BASE + word
        if words >= size:
            value -= ring[words % size] * leaving
        ring[words % size] = word
        words += 1
        if words >= size:
            out[count] = gram_hash(value, size)
            count += 1
    if least <= words < size:
        out[0], count = gram_hash(value, words), 1
    return count, words


@kernel
def put(grams: Any, keys: Any, first: Any) -> None:
    """Fill the table: linear probing from the hash's low bits."""
    mask = np.uint64(keys.shape[0] - 1)
    for gram in range(grams.shape[0]):
        place = grams[gram] & mask
        while keys[place] != _ZERO:
            place = (place + np.uint64(1)) & mask
        keys[place], first[place] = grams[gram], gram


@making
def scan(data: Any, offsets: Any, lengths: Any, table: Any, fold: Any, keys: Any, first: Any, hits: Any) -> int:
    """Every gram of the items in the texts: (row, gram, start, stop) into `hits`; -1 when there are more than it holds."""
    longest, mask, count = lengths[-1], np.uint64(keys.shape[0] - 1), 0
    ring, begins = np.empty(longest, np.uint64), np.empty(longest, np.int64)
    leaving = np.empty(lengths.shape[0], np.uint64)
    for k in range(lengths.shape[0]):
        leaving[k] = power(lengths[k])
    values = np.empty(lengths.shape[0], np.uint64)
    for row in range(offsets.shape[0] - 1):
        base, stop = offsets[row], offsets[row + 1]
        at, words = base, 0
        values[:] = _ZERO
        while True:
            start, at, word = next_word(data, at, stop, table, fold)
            if start < 0:
                break
            for k in range(lengths.shape[0]):
                values[k] = values[k] * _BASE + word
                if words >= lengths[k]:
                    values[k] -= ring[(words - lengths[k]) % longest] * leaving[k]
            ring[words % longest], begins[words % longest] = word, start - base
            words += 1
            for k in range(lengths.shape[0]):
                if words < lengths[k]:
                    break
                key = gram_hash(values[k], lengths[k])
                place = key & mask
                while keys[place] != _ZERO and keys[place] != key:
                    place = (place + np.uint64(1)) & mask
                if keys[place] == _ZERO:
                    continue
                if count >= hits.shape[0]:
                    return -1
                hits[count, 0], hits[count, 1] = row, first[place]
                hits[count, 2], hits[count, 3] = begins[(words - lengths[k]) % longest], at - base
                count += 1
    return count
