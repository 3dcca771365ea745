"""The attributes of a start tag that tell what an element is for: class, id, role, itemprop, href, hidden, style."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.compiled import kernel
from stages.extract.markup import find, hash_of, lower, seek
from stages.extract.tags import (
    A_ARIA,
    A_CLASS,
    A_HIDDEN,
    A_HREF,
    A_ID,
    A_ITEMPROP,
    A_ITEMTYPE,
    A_ROLE,
    A_STYLE,
    ATTRIBUTE_TABLE,
    ROLE_TABLE,
    SKIP_TABLE,
)  # fmt: skip

S_MASK, S_SKIP, S_HREF, S_CLASS, S_TOKEN = range(5)
"""Slots of the state: meanings found, subtree to be skipped, link, hash of the class names, words written so far."""

_KEYS, _VALUES = ATTRIBUTE_TABLE
_ROLES, _BITS = ROLE_TABLE
_SKIPS, _SKIPPED = SKIP_TABLE
_FNV, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
MAX_WORDS = 24
"""Words kept of one element's attributes: atomic CSS classes run to hundreds and say nothing."""


@kernel
def _word(hashed: Any, salt: int, state: NDArray[np.int64], words: NDArray[np.uint32]) -> None:
    """One word of a class list."""
    state[S_MASK] |= find(_ROLES, _BITS, hashed)
    words[state[S_TOKEN]] = np.uint32((hashed ^ (hashed >> np.uint64(32))) & np.uint64(0xFFFFFFFF)) ^ np.uint32(salt)
    state[S_TOKEN] += 1


@kernel
def _words(
    page: NDArray[np.uint8], start: int, stop: int, salt: int, state: NDArray[np.int64], words: NDArray[np.uint32], limit: int
) -> None:
    """Split a class list into words at white space, `-`, `_`, digits and changes from lower to upper case."""
    value, length, whole, before = _FNV, 0, _FNV, 0
    for at in range(start, stop + 1):
        byte = page[at] if at < stop else 32
        letter = 97 <= (byte | 32) <= 122
        hump = 65 <= byte <= 90 and 97 <= before <= 122
        if length > 1 and (not letter or hump) and state[S_TOKEN] < limit:
            _word(value, salt, state, words)
        if not letter or hump:
            value, length = _FNV, 0
        if letter:
            value = (value ^ np.uint64(lower(byte))) * _PRIME
            length += 1
            state[S_CLASS] = (state[S_CLASS] * 31 + lower(byte)) & 0xFFFFFF
        if byte <= 32:
            state[S_SKIP] |= find(_SKIPS, _SKIPPED, whole)
            whole = _FNV
        else:
            whole = (whole ^ np.uint64(lower(byte))) * _PRIME
        before = byte


@kernel
def _undisplayed(page: NDArray[np.uint8], start: int, stop: int) -> bool:
    """Does a style say `display: none`?"""
    for start_of_name in range(start, stop - 11):
        at = start_of_name
        if lower(page[at]) == 100 and lower(page[at + 1]) == 105 and lower(page[at + 6]) == 121:
            at += 7
            while at < stop and (page[at] == 58 or page[at] == 32):
                at += 1
            return at + 3 < stop and lower(page[at]) == 110 and lower(page[at + 3]) == 101
    return False


@kernel
def _value(page: NDArray[np.uint8], at: int, stop: int) -> tuple[int, int, int]:
    """The value of the attribute whose name ended at `at`: from, to, and where to go on."""
    while at < stop and page[at] <= 32:
        at += 1
    if at >= stop or page[at] != 61:
        return at, at, at
    at += 1
    while at < stop and page[at] <= 32:
        at += 1
    start = at
    if at < stop and (page[at] == 34 or page[at] == 39):
        at = min(stop, seek(page, at + 1, page[start]))
        return start + 1, at, at + 1
    while at < stop and page[at] > 32:
        at += 1
    return start, at, at


@kernel
def _note(
    page: NDArray[np.uint8], name: int, start: int, stop: int, state: NDArray[np.int64], words: NDArray[np.uint32], limit: int
) -> None:
    if name in (A_CLASS, A_ID):
        _words(page, start, stop, 0, state, words, limit)
    elif name in (A_ROLE, A_ITEMPROP, A_ITEMTYPE):
        _words(page, start, stop, 0x5BD1E995 * name & 0xFFFFFFFF, state, words, limit)
    elif name == A_HREF:
        state[S_HREF] = 1
    elif name == A_HIDDEN or (name == A_STYLE and _undisplayed(page, start, stop)):
        state[S_MASK] |= 1
    elif name == A_ARIA and stop - start == 4:
        state[S_MASK] |= 1 << 16


@kernel
def read_attributes(page: NDArray[np.uint8], at: int, stop: int, state: NDArray[np.int64], words: NDArray[np.uint32]) -> None:
    """Read the attributes in page[at:stop] into `state`, their words into `words`."""
    state[S_MASK] = state[S_SKIP] = state[S_HREF] = state[S_CLASS] = 0
    limit = min(state[S_TOKEN] + MAX_WORDS, words.size)
    while at < stop:
        while at < stop and (page[at] <= 32 or page[at] == 47):
            at += 1
        start = at
        while at < stop and page[at] > 32 and page[at] != 61:
            at += 1
        name = find(_KEYS, _VALUES, hash_of(page, start, at)) if 2 <= at - start <= 11 else 0
        begin, end, at = _value(page, at, stop)
        if at == start:
            at += 1
        if name:
            _note(page, name, begin, end, state, words, limit)
