"""Text of a page: character references resolved, white space collapsed, invisible characters left out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.compiled import inlined, kernel
from stages.extract.markup import find
from stages.extract.tags import ENTITY_TABLE, LEGACY_TABLE, WINDOWS_1252

S_OUT, S_BEGIN, S_PENDING, S_PRE = range(8, 12)
"""Slots of the state: bytes written, where the open block begins, a space is due, white space is kept."""

_KEYS, _VALUES = ENTITY_TABLE
_FNV, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_OLD_KEYS, _OLD_VALUES = LEGACY_TABLE
_LONGEST_NAME, _LONGEST_LEGACY = 32, 6

_PLAIN: NDArray[np.bool_] = np.array([byte > 32 and byte not in (38, 127, 0xC2, 0xE2, 0xE3, 0xEF) for byte in range(256)])
"""Bytes that are copied as they are: all but white space, references, and the first bytes of blank characters (`_blank`)."""

Bytes = NDArray[np.uint8]
State = NDArray[np.int64]


@kernel
def _space(byte: int, out: Bytes, state: State) -> None:
    """White space: kept inside `<pre>`, else one space that is due before the next character."""
    if state[S_PRE] == 0:
        state[S_PENDING] = 1
    elif byte != 13:
        out[state[S_OUT]] = byte
        state[S_OUT] += 1


@inlined
def _settle(out: Bytes, state: State) -> None:
    """Write the space that is due."""
    if state[S_PENDING]:
        at = state[S_OUT]
        if at > state[S_BEGIN] and out[at - 1] > 32:
            out[at] = 32
            state[S_OUT] += 1
        state[S_PENDING] = 0


@kernel
def _blank(code: int) -> int:
    """1 for white space, 2 for characters that show nothing (controls, soft hyphen, zero width, marks of direction), else 0."""
    if code <= 32:
        return 1 if code == 32 or 9 <= code <= 13 else 2
    if code in (0xA0, 0x3000, 0x2028, 0x2029, 0x202F, 0x205F) or 0x2000 <= code <= 0x200A:
        return 1
    if code in (0xAD, 0x200B, 0x200E, 0x200F, 0xFEFF, 0x2060) or 0x7F <= code < 0xA0:
        return 2
    return 0


@kernel
def _put_code(code: int, out: Bytes, state: State) -> None:
    """Write one code point as UTF-8."""
    blank = _blank(code)
    if blank == 1:
        _space(min(32, code), out, state)
    if blank:
        return
    _settle(out, state)
    at = state[S_OUT]
    if code < 0x80:
        out[at] = code
        state[S_OUT] = at + 1
    elif code < 0x800:
        out[at], out[at + 1] = 0xC0 | code >> 6, 0x80 | code & 63
        state[S_OUT] = at + 2
    elif code < 0x10000:
        out[at], out[at + 1], out[at + 2] = 0xE0 | code >> 12, 0x80 | code >> 6 & 63, 0x80 | code & 63
        state[S_OUT] = at + 3
    else:
        out[at], out[at + 1] = 0xF0 | code >> 18, 0x80 | code >> 12 & 63
        out[at + 2], out[at + 3] = 0x80 | code >> 6 & 63, 0x80 | code & 63
        state[S_OUT] = at + 4


@kernel
def _number(page: Bytes, at: int, stop: int) -> tuple[int, int]:
    """`&#...`: code point (-1: none) and the position after it."""
    radix = 10
    if at < stop and (page[at] | 32) == 120:
        radix, at = 16, at + 1
    code, start = 0, at
    while at < stop and at - start < 9:
        byte = page[at]
        if 48 <= byte <= 57:
            digit = byte - 48
        elif radix == 16 and 97 <= (byte | 32) <= 102:
            digit = (byte | 32) - 87
        else:
            break
        code = code * radix + digit
        at += 1
    if at == start:
        return -1, at
    if at < stop and page[at] == 59:
        at += 1
    if 128 <= code < 160:
        code = WINDOWS_1252[code - 128]
    return (code if 0 < code < 0x110000 and not 0xD800 <= code < 0xE000 else 0xFFFD), at


@kernel
def _legacy(page: Bytes, at: int, stop: int) -> tuple[int, int]:
    """`&name` without a semicolon: the longest of the old names, or -1."""
    hashed, start, code, after = _FNV, at, -1, at
    while at < stop and at - start < _LONGEST_LEGACY and (97 <= (page[at] | 32) <= 122 or 48 <= page[at] <= 57):
        hashed = (hashed ^ np.uint64(page[at])) * _PRIME
        at += 1
        found = find(_OLD_KEYS, _OLD_VALUES, hashed)
        if found:
            code, after = found, at
    return code, after


@kernel
def _named(page: Bytes, at: int, stop: int) -> tuple[int, int]:
    """`&name`: code point (-1: none) and the position after it. Names are case-sensitive."""
    hashed, start = _FNV, at
    while at < stop and at - start < _LONGEST_NAME and (97 <= (page[at] | 32) <= 122 or 48 <= page[at] <= 57):
        hashed = (hashed ^ np.uint64(page[at])) * _PRIME
        at += 1
    if start < at < stop and page[at] == 59:
        code = find(_KEYS, _VALUES, hashed)
        if code:
            return code, at + 1
    return _legacy(page, start, stop)


@kernel
def _reference(page: Bytes, at: int, stop: int, out: Bytes, state: State) -> int:
    """A `&`: write what it stands for, return the position after it."""
    if at + 1 < stop and page[at + 1] == 35:
        code, after = _number(page, at + 2, stop)
    else:
        code, after = _named(page, at + 1, stop)
    if code < 0:
        code, after = 38, at + 1
    _put_code(code, out, state)
    return after


@kernel
def _wide(page: Bytes, at: int, stop: int) -> tuple[int, int]:
    """Code point and length of the UTF-8 sequence at `at`, for two and three bytes; 0 and its length otherwise."""
    byte = page[at]
    if byte < 0xE0 and at + 1 < stop:
        return (byte & 31) << 6 | (page[at + 1] & 63), 2
    if byte < 0xF0 and at + 2 < stop:
        return (byte & 15) << 12 | (page[at + 1] & 63) << 6 | (page[at + 2] & 63), 3
    return 0x10000, min(4, stop - at)


@kernel
def _wide_text(page: Bytes, at: int, stop: int, out: Bytes, state: State) -> int:
    """One character beyond ASCII; returns the position after it."""
    code, length = _wide(page, at, stop)
    blank = _blank(code)
    if blank == 1:
        _space(32, out, state)
    elif blank == 0:
        _settle(out, state)
        for offset in range(length):
            out[state[S_OUT] + offset] = page[at + offset]
        state[S_OUT] += length
    return at + length


@kernel
def put_text(page: Bytes, at: int, stop: int, out: Bytes, state: State) -> None:
    """Append the text in page[at:stop] (valid UTF-8) to `out`."""
    while at < stop:
        byte = page[at]
        if _PLAIN[byte]:
            _settle(out, state)
            to = state[S_OUT]
            while _PLAIN[byte]:
                out[to] = byte
                to += 1
                at += 1
                if at == stop:
                    break
                byte = page[at]
            state[S_OUT] = to
        elif byte <= 32:
            if _blank(byte) == 1:
                _space(byte, out, state)
            at += 1
        elif byte == 38:
            at = _reference(page, at, stop, out, state)
        elif byte == 127:
            at += 1
        else:
            at = _wide_text(page, at, stop, out, state)
