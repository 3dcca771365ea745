"""Bytes of a page to a list of tags and text runs: a tokenizer of HTML in one linear pass.

It follows the tokenizer of the HTML standard where pages of the crawl need it (raw text elements, comments, quoted and
bare attributes, a `<` that begins no tag) and builds no tree. No recursion and no backing up: time is linear in bytes.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from stages.compiled import inlined, kernel
from stages.extract.tags import ID, KIND, RAW, TAG_TABLE

TEXT, START, END, RAWTEXT = 0, 1, 2, 3
"""Kinds of a token; its row is (kind, tag, from, to): text bytes, the attributes of a start tag, the content of raw text."""

_KEYS, _VALUES = TAG_TABLE
_FNV, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)


@inlined
def lower(byte: int) -> int:
    """ASCII lower case."""
    return byte + 32 if 65 <= byte <= 90 else byte


_memchr = numba.types.ExternalFunction("memchr", numba.types.intp(numba.types.intp, numba.types.int32, numba.types.uintp))
"""The C library's, by name and not by address, so that kernels that call it can be cached on disk."""


@kernel
def seek(page: NDArray[np.uint8], at: int, byte: int) -> int:
    """The next position of a byte from `at` on; the page's size when there is none. The first few are looked at here."""
    size = page.size
    near = min(size, at + 8)
    while at < near:
        if page[at] == byte:
            return at
        at += 1
    if at >= size:
        return size
    base = page.ctypes.data
    found = _memchr(base + at, byte, size - at)
    return found - base if found else size


@kernel
def find(keys: NDArray[np.uint64], values: NDArray[np.int32], hashed: Any) -> Any:
    """The value of a hash in an open addressing table, or 0."""
    mask = np.uint64(keys.size - 1)
    slot = hashed & mask
    while keys[slot] != 0:
        if keys[slot] == hashed:
            return values[slot]
        slot = (slot + np.uint64(1)) & mask
    return 0


@kernel
def hash_of(page: NDArray[np.uint8], start: int, stop: int) -> Any:
    """FNV-1a of the lower-cased bytes."""
    value = _FNV
    for at in range(start, stop):
        value = (value ^ np.uint64(lower(page[at]))) * _PRIME
    return value


@kernel
def name_end(page: NDArray[np.uint8], at: int) -> int:
    """End of a tag name: white space, `/` or `>`."""
    while at < page.size and page[at] > 32 and page[at] != 47 and page[at] != 62:
        at += 1
    return at


@kernel
def tag_end(page: NDArray[np.uint8], at: int) -> int:
    """Position of the `>` that ends a tag, quotes respected; the page's size when there is none."""
    size = page.size
    after_equals = False
    while at < size:
        byte = page[at]
        if byte == 62:
            return at
        if after_equals and (byte == 34 or byte == 39):
            at = seek(page, at + 1, byte)
            after_equals = False
        elif byte == 61:
            after_equals = True
        elif byte > 32:
            after_equals = False
        at += 1
    return size


@kernel
def _comment_end(page: NDArray[np.uint8], at: int) -> int:
    """First byte after the comment or declaration that begins at `at` (its `<`)."""
    size = page.size
    if at + 3 < size and page[at + 1] == 33 and page[at + 2] == 45 and page[at + 3] == 45:
        at = seek(page, at + 2, 62)
        while at < size and not (page[at - 1] == 45 and page[at - 2] == 45):
            at = seek(page, at + 1, 62)
        return min(at + 1, size)
    return min(seek(page, at, 62) + 1, size)


@kernel
def _raw_end(page: NDArray[np.uint8], at: int, start: int, stop: int) -> int:
    """Position of `</name` after `at`, where the name is page[start:stop]; the page's size when there is none."""
    size, width = page.size, stop - start
    while at < size:
        at = seek(page, at, 60)
        if at + 1 + width < size and page[at + 1] == 47:
            same = 0
            while same < width and lower(page[at + 2 + same]) == lower(page[start + same]):
                same += 1
            if same == width:
                return at
        at += 1
    return size


@kernel
def _put(tokens: NDArray[np.int32], count: int, kind: int, tag: int, start: int, stop: int) -> int:
    tokens[count, 0] = kind
    tokens[count, 1] = tag
    tokens[count, 2] = start
    tokens[count, 3] = stop
    return count + 1


@kernel
def _tag(page: NDArray[np.uint8], at: int, tokens: NDArray[np.int32], count: int) -> tuple[int, int]:
    """Read the tag at `at` (its `<`): the position after it and the number of tokens."""
    closing = page[at + 1] == 47
    start = at + 2 if closing else at + 1
    stop = name_end(page, start)
    tag = find(_KEYS, _VALUES, hash_of(page, start, stop)) if stop - start <= 14 else 0
    end = tag_end(page, stop)
    if closing:
        return min(end + 1, page.size), (_put(tokens, count, END, tag, stop, end) if tag else count)
    if tag == 0:
        return min(end + 1, page.size), _put(tokens, count, START, 0, stop, end)
    if KIND[tag] & RAW and end < page.size:
        close = _raw_end(page, end + 1, start, stop)
        count = _put(tokens, count, START, tag, stop, end)
        return close, _put(tokens, count, RAWTEXT, tag, end + 1, close)
    return min(end + 1, page.size), _put(tokens, count, START, tag, stop, end)


@kernel
def _letter(byte: int) -> bool:
    return 97 <= (byte | 32) <= 122


@kernel
def tokenize(page: NDArray[np.uint8], tokens: NDArray[np.int32]) -> int:
    """Fill `tokens` (rows of kind, tag, from, to) and return their number.

    `tokens` needs three rows for each `<` in the page and one more.
    """
    size, at, count, text = page.size, 0, 0, 0
    while at < size:
        at = seek(page, at, 60)
        if at + 1 >= size:
            break
        mark = page[at + 1]
        closing = mark == 47 and at + 2 < size and _letter(page[at + 2])
        odd = mark == 33 or mark == 63 or (mark == 47 and not closing)
        if not (odd or closing or _letter(mark)):
            at += 1
            continue
        if at > text:
            count = _put(tokens, count, TEXT, 0, text, at)
        if odd:
            at = _comment_end(page, at)
        else:
            at, count = _tag(page, at, tokens, count)
        text = at
    return _put(tokens, count, TEXT, 0, text, size) if size > text else count


_FORMULAS = np.isin(np.arange(KIND.size), [ID[name] for name in ("math", "d-math", "m:math", "mml:math")])
_SCRIPT, _IMG = ID["script"], ID["img"]
_MATH, _LATEX, _MIMETEX, _CHART = (int.from_bytes(part, "big") for part in (b"math", b"atex", b"etex", b"=tx&"))


@kernel
def has_formulas(page: NDArray[np.uint8], tokens: NDArray[np.int32]) -> bool:
    """Whether `formulas.write_formulas` may find something: formula elements, scripts or images that say math or (la|mime)tex."""
    for n in range(len(tokens)):
        tag = tokens[n, 1]
        if tokens[n, 0] != START or not (_FORMULAS[tag] or tag in (_SCRIPT, _IMG)):
            continue
        if _FORMULAS[tag]:
            return True
        for at in range(tokens[n, 2], tokens[n, 3] - 3):
            here = page[at] << 24 | page[at + 1] << 16 | page[at + 2] << 8 | page[at + 3]
            if here == _MATH or (tag == _IMG and here in (_LATEX, _MIMETEX, _CHART)):
                return True
    return False
