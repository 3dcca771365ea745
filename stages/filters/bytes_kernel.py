"""Kernels on UTF-8 bytes that several filters share: white space, line boundaries, hashes of ranges, tables of seen hashes."""

from __future__ import annotations

from typing import Any

import numpy as np

from stages.compiled import inlined, kernel

_FNV, _MIX, _HALF = np.uint64(0xCBF29CE484222325), np.uint64(0x9E3779B97F4A7C15), np.uint64(29)


@inlined
def space_at(data: Any, i: int, end: int) -> int:
    """Bytes of the white-space character that begins at i, 0 if none does."""
    byte = int(data[i])
    if byte < 0x80:
        return 1 if byte == 0x20 or 0x09 <= byte <= 0x0D or 0x1C <= byte <= 0x1F else 0
    if byte == 0xC2 and i + 1 < end:
        return 2 if data[i + 1] == 0x85 or data[i + 1] == 0xA0 else 0
    if i + 2 >= end or byte < 0xE1 or byte > 0xE3:
        return 0
    second, third = int(data[i + 1]), int(data[i + 2])
    if byte == 0xE2:
        thin = second == 0x80 and (third <= 0x8A or third == 0xA8 or third == 0xA9 or third == 0xAF)
        return 3 if thin or (second == 0x81 and third == 0x9F) else 0
    ogham = byte == 0xE1 and second == 0x9A and third == 0x80
    return 3 if ogham or (byte == 0xE3 and second == 0x80 and third == 0x80) else 0


@inlined
def break_at(data: Any, i: int, end: int) -> int:
    """Bytes of the line boundary (that of `str.splitlines`) that begins at i, 0 if none does."""
    byte = int(data[i])
    if byte == 0x0A or byte == 0x0B or byte == 0x0C or 0x1C <= byte <= 0x1E:
        return 1
    if byte == 0x0D:
        return 2 if i + 1 < end and data[i + 1] == 0x0A else 1
    if byte == 0xC2:
        return 2 if i + 1 < end and data[i + 1] == 0x85 else 0
    if byte == 0xE2 and i + 2 < end and data[i + 1] == 0x80 and 0xA8 <= data[i + 2] <= 0xA9:
        return 3
    return 0


@inlined
def trimmed(data: Any, a: int, b: int) -> tuple[int, int]:
    """The line a..b without white space at its ends."""
    while a < b:
        size = space_at(data, a, b)
        if size == 0:
            break
        a += size
    while a < b:
        at = b - 1
        while at > a and int(data[at]) & 0xC0 == 0x80:
            at -= 1
        if space_at(data, at, b) != b - at:
            break
        b = at
    return a, b


@inlined
def chars_in(data: Any, a: int, b: int) -> int:
    """Characters in data[a:b]."""
    count = 0
    for i in range(a, b):
        count += (data[i] & 0xC0) != 0x80
    return count


@inlined
def eight(data: Any, i: int) -> Any:
    """Eight bytes as a number; the compiler makes one load of it."""
    low = np.uint64(data[i]) | np.uint64(data[i + 1]) << np.uint64(8) | np.uint64(data[i + 2]) << np.uint64(16)
    low |= np.uint64(data[i + 3]) << np.uint64(24) | np.uint64(data[i + 4]) << np.uint64(32)
    return (
        low
        | np.uint64(data[i + 5]) << np.uint64(40)
        | np.uint64(data[i + 6]) << np.uint64(48)
        | np.uint64(data[i + 7]) << np.uint64(56)
    )


@kernel
def digest_bytes(data: Any, a: int, b: int) -> Any:
    """A 64-bit hash of data[a:b], eight bytes at a time; the last eight may overlap those before."""
    value = _FNV ^ np.uint64(b - a)
    if b - a < 8:
        for i in range(a, b):
            value = (value ^ np.uint64(data[i])) * _MIX
        return value ^ value >> _HALF
    i = a
    while i + 8 <= b:
        value = (value ^ eight(data, i)) * _MIX
        value ^= value >> _HALF
        i += 8
    value = (value ^ eight(data, b - 8)) * _MIX
    return value ^ value >> _HALF


@inlined
def seen_before(key: Any, keys: Any, stamps: Any, mask: Any, stamp: int) -> bool:
    """Whether the table of this stamp holds the key; it does afterwards."""
    at = key & mask
    while stamps[at] == stamp:
        if keys[at] == key:
            return True
        at = (at + np.uint64(1)) & mask
    stamps[at] = stamp
    keys[at] = key
    return False


@inlined
def mask_for(count: int) -> Any:
    """The mask of the smallest table that is at most half full with this many entries."""
    size = 16
    while size < 2 * count:
        size *= 2
    return np.uint64(size - 1)


@inlined
def count_byte(data: Any, a: int, b: int, byte: int) -> int:
    """How often a byte stands in data[a:b]."""
    count = 0
    for i in range(a, b):
        count += data[i] == byte
    return count
