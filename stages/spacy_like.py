"""A splitter that follows spaCy's English tokenizer: for thresholds that were tuned on its words (FineWeb's, datatrove's).

White space cuts chunks; from a chunk's ends, prefixes and suffixes come off one at a time; what is left is an exception
(`english_exceptions`), a URL, or is cut at infixes. Written from spaCy 3.8's documented order of decisions; left out are
literal IP addresses and some emoticons; its second pass over exceptions is made within a chunk only. Token records are
those of the plain splitter. On 1,266 real documents 1,264 get exactly spaCy's tokens.
"""

# ruff: noqa: SIM109 - `in (a, b)` builds a tuple in numba: slower to compile and to run
from __future__ import annotations

from typing import Any, Final

import numpy as np

from stages import characters as ch
from stages.compiled import inlined, kernel, making
from stages.english_exceptions import LONGEST as _LONGEST_EXCEPTION
from stages.english_exceptions import SLOTS
from stages.splitting import AFTER_LINE, AFTER_PARAGRAPH, AFTER_SPACE, decode, gap_after, put, slot

_LETTER, _SPACE, _UPPER, _LOWER, _QUOTE = ch.LETTER, ch.SPACE, ch.UPPER, ch.LOWER, ch.QUOTE
_ALNUM = ch.ALNUM
_OPENS, _CLOSES, _ICON, _CURRENCY, _DIGIT = ch.OPENS, ch.CLOSES, ch.ICON, ch.CURRENCY, ch.ASCII_DIGIT
_HYPHEN, _APOSTROPHE, _RELATION, _OPERATOR, _POINTED = ch.HYPHEN, ch.APOSTROPHE, ch.RELATION, ch.OPERATOR, ch.POINTED
_LONGEST_UNIT: Final = 5
_SEED, _PRIME, _HALF = np.uint64(0xCBF29CE484222325), np.uint64(0x9E3779B97F4A7C15), np.uint64(29)


@inlined
def digest(codes: Any, a: int, b: int) -> Any:
    """The token hash of characters a..b."""
    value = _SEED
    for i in range(a, b):
        value = (value ^ np.uint64(codes[i])) * _PRIME
    return value ^ value >> _HALF


@inlined
def shape(first: int, last: int, size: int) -> int:
    """What can be told without hashing: most strings have the shape of no exception."""
    return (first * 31 + last) * 31 + size & (SLOTS - 1)


@kernel
def exception(codes: Any, a: int, b: int, keys: Any, cuts: Any, shapes: Any) -> int:
    """Packed token lengths when a..b is an exception, else 0."""
    if b - a > _LONGEST_EXCEPTION or b <= a or shapes[shape(codes[a], codes[b - 1], b - a)] == 0:
        return 0
    value = digest(codes, a, b)
    at: Any = np.int64(value & np.uint64(SLOTS - 1))
    while keys[at] != np.uint64(0):
        if keys[at] == value:
            return int(cuts[at])
        at = (at + 1) & (SLOTS - 1)
    return 0


@inlined
def is_digit(code: int) -> bool:
    """ASCII digits, the only ones that spaCy's patterns mean."""
    return 48 <= code <= 57


@inlined
def prefix(codes: Any, a: int, b: int, table: Any) -> int:
    """Length of the prefix that comes off a..b, 0 if none does."""
    code = codes[a]
    if code == 46:
        end = a + 1
        while end < b and codes[end] == 46:
            end += 1
        return end - a if end - a > 1 else 0
    if code == 43:
        return 0 if a + 1 < b and is_digit(codes[a + 1]) else 1
    if int(table[slot(code)]) & _OPENS:
        return 1
    dollar = (code == 85 or code == 67 or code == 65) and b - a > 1
    if dollar and codes[a + 1] == 36:
        return 2 if code != 85 else 0
    return 3 if dollar and b - a > 2 and code == 85 and codes[a + 1] == 83 and codes[a + 2] == 36 else 0


@inlined
def is_scale(code: int) -> bool:
    """The letter of a temperature scale: °C. is three tokens."""
    return code == 67 or code == 70 or code == 75 or code == 99 or code == 102 or code == 107


@inlined
def point(codes: Any, a: int, b: int, table: Any) -> int:
    """Length of the suffix of points that ends a..b: a run of them, or one after the right kind of character."""
    at = b - 1
    while at > a and codes[at - 1] == 46:
        at -= 1
    if b - at > 1:
        return b - at
    if at == a:
        return 0
    bits = int(table[slot(codes[at - 1])])
    if bits & _POINTED or (at - a > 1 and codes[at - 2] == 0xB0 and is_scale(codes[at - 1])):
        return 1
    return 1 if at - a > 1 and bits & _UPPER and int(table[slot(codes[at - 2])]) & _UPPER else 0


@inlined
def unit(codes: Any, a: int, b: int, units: Any) -> int:
    """Length of a unit or currency that ends a..b right after a digit."""
    at = b
    while at > a and b - at <= _LONGEST_UNIT and not is_digit(codes[at - 1]):
        at -= 1
    if at == a or at == b or b - at > _LONGEST_UNIT:
        return 0
    value = digest(codes, at, b)
    where = np.searchsorted(units, value)
    return b - at if where < units.shape[0] and units[where] == value else 0


@kernel
def suffix(codes: Any, a: int, b: int, table: Any, units: Any) -> int:
    """Length of the suffix that comes off a..b: the longest of all that fit, 0 if none does."""
    last = codes[b - 1]
    if last == 46:
        return point(codes, a, b, table)
    if (last == 115 or last == 83) and b - a > 1 and int(table[slot(codes[b - 2])]) & _APOSTROPHE:
        return 2
    bits = int(table[slot(last)])
    if bits & _CLOSES:
        return 2 if last == 0x2026 and b - a > 1 and codes[b - 2] == 0x2026 else 1
    if b - a > 1 and (last == 43 or bits & _CURRENCY) and is_digit(codes[b - 2]):
        return 1
    return unit(codes, a, b, units)


@inlined
def ellipsis_or_icon(codes: Any, i: int, b: int, bits: int) -> int:
    """Length of what is cut out wherever it stands."""
    if codes[i] == 46 and i + 1 < b and codes[i + 1] == 46:
        end = i + 2
        while end < b and codes[end] == 46:
            end += 1
        return end - i
    return 1 if codes[i] == 0x2026 or bits & _ICON else 0


@inlined
def hyphens(codes: Any, i: int, b: int, table: Any) -> int:
    """Length of the hyphen at i (-, –, —, --, ---, ——, ~) that a letter follows, 0 if there is none."""
    code = codes[i]
    for size in range(1, 4):
        if i + size >= b:
            return 0
        if int(table[slot(codes[i + size])]) & _LETTER:
            return size
        more = (code == 0x2D) or (code == 0x2014 and size == 1)
        if not more or codes[i + size] != code:
            return 0
    return 0


@kernel
def infix(codes: Any, i: int, a: int, b: int, table: Any) -> int:
    """Length of the infix that begins at i, 0 if none does."""
    code = codes[i]
    bits = int(table[slot(code)])
    if bits & (_LETTER | _DIGIT):
        return 0
    size = ellipsis_or_icon(codes, i, b, bits)
    if size or i == a or i + 1 >= b:
        return size
    left, right = int(table[slot(codes[i - 1])]), int(table[slot(codes[i + 1])])
    if bits & _OPERATOR and left & _DIGIT and (right & _DIGIT or codes[i + 1] == 0x2D):
        return 1
    if code == 46 and left & (_LOWER | _QUOTE) and right & (_UPPER | _QUOTE):
        return 1
    if code == 44 and left & right & _LETTER:
        return 1
    if left & (_LETTER | _DIGIT) == 0:
        return 0
    if bits & _RELATION and right & _LETTER:
        return 1
    return hyphens(codes, i, b, table) if bits & _HYPHEN else 0


@inlined
def is_label(code: int) -> bool:
    """A character that may begin or end a part of a host name."""
    return is_digit(code) or 65 <= code <= 90 or 97 <= code <= 122 or 0xA1 <= code <= 0xFFFF


@kernel
def host_end(codes: Any, a: int, b: int, table: Any) -> int:
    """Where the host name that begins at a ends (labels, points, a lower-case last label), -1 if there is none."""
    i, label, points = a, a, 0
    while i < b:
        code = codes[i]
        if code == 46:
            if i == label or not is_label(codes[label]) or not is_label(codes[i - 1]):
                return -1
            points += 1
            label = i + 1
        elif not is_label(code) and code not in (0x5F, 0x2D):
            break
        i += 1
    if points == 0 or i - label < 2 or i - label > 63:
        return -1
    for k in range(label, i):
        if int(table[slot(codes[k])]) & _LOWER == 0:
            return -1
    return i


@kernel
def is_host(codes: Any, a: int, b: int, table: Any) -> bool:
    """Whether a..b is a host name with an optional port and path."""
    i = host_end(codes, a, b, table)
    if i < 0:
        return False
    if i < b and codes[i] == 58:
        port = i + 1
        i = port
        while i < b and is_digit(codes[i]):
            i += 1
        if not 2 <= i - port <= 5:
            return False
    return i == b or codes[i] == 0x2F or codes[i] == 0x3F or codes[i] == 0x23


@kernel
def is_url(codes: Any, a: int, b: int, table: Any) -> bool:
    """Whether a..b is an address: an optional scheme, an optional user, a host, an optional port and path."""
    points = 0
    for i in range(a, b):
        points += codes[i] == 46
    if points == 0 or b - a < 4:
        return False
    if is_host(codes, a, b, table):
        return True
    scheme = True
    for i in range(a, b - 3):
        code = codes[i]
        if code == 64 and i > a and is_host(codes, i + 1, b, table):
            return True
        if scheme and i - a >= 2 and code == 58 and codes[i + 1] == 47 and codes[i + 2] == 47 and is_host(codes, i + 3, b, table):
            return True
        scheme = scheme and (int(table[slot(code)]) & _ALNUM != 0 or code == 43 or code == 45 or code == 46 or code == 95)
    return False


@kernel
def peel(
    codes: Any, a: int, b: int, table: Any, units: Any, keys: Any, cuts: Any, shapes: Any, front: Any, back: Any
) -> tuple[int, int, int, int]:
    """Take affixes off a..b; front and back get their lengths. Returns what is left and how many there were."""
    opened, closed, size = 0, 0, -1
    while a < b and b - a != size and exception(codes, a, b, keys, cuts, shapes) == 0:
        size = b - a
        pre = prefix(codes, a, b, table)
        if pre and exception(codes, a + pre, b, keys, cuts, shapes):
            front[opened] = pre
            return a + pre, b, opened + 1, closed
        suf = suffix(codes, a + pre, b, table, units) if a + pre < b else 0
        if suf and exception(codes, a, b - suf, keys, cuts, shapes):
            back[closed] = suf
            return a, b - suf, opened, closed + 1
        if pre:
            front[opened] = pre
            opened += 1
        if suf:
            back[closed] = suf
            closed += 1
        a, b = a + pre, b - suf
    return a, b, opened, closed


@inlined
def at_infixes(codes: Any, left: int, right: int, table: Any, marks: Any, n: int) -> int:
    """Append the lengths of left..right, cut at infixes, to the n lengths in `marks`."""
    done, i = left, left
    while i < right:
        size = infix(codes, i, left, right, table)
        if size and i > left:
            if i > done:
                marks[n] = i - done
                n += 1
            marks[n] = size
            n += 1
            done = i + size
        i += max(size, 1)
    if done < right:
        marks[n] = right - done
        n += 1
    return n


@inlined
def rejoined(codes: Any, a: int, k: int, marks: Any, n: int, keys: Any, cuts: Any, shapes: Any) -> tuple[int, int]:
    """How many tokens from number k on are one exception after all, as `)` `:` is, and its packed lengths; else 1 and its own."""
    best, packed, b = 1, 0, a
    for width in range(1, min(n - k, 5) + 1):
        b += marks[k + width - 1]
        if width > 1 and b - a <= _LONGEST_EXCEPTION:
            found = exception(codes, a, b, keys, cuts, shapes)
            if found:
                best, packed = width, found
    return best, packed


@kernel
def chunk(
    codes: Any, places: Any, a: int, b: int, gap: int, table: Any, fold: Any, units: Any, keys: Any, cuts: Any, shapes: Any,
    front: Any, back: Any, out: Any, at: int,
) -> int:  # fmt: skip
    """Tokens of one chunk between white space."""
    left, right, opened, closed = peel(codes, a, b, table, units, keys, cuts, shapes, front, back)
    # One list of cuts, so that `put` is compiled into this kernel once.
    marks = back[closed:]
    n = 0
    for k in range(opened):
        marks[n] = front[k]
        n += 1
    packed = exception(codes, left, right, keys, cuts, shapes)
    if packed:
        while packed:
            marks[n] = packed & 0xFF
            packed >>= 8
            n += 1
    elif left < right and is_url(codes, left, right, table):
        marks[n] = right - left
        n += 1
    else:
        n = at_infixes(codes, left, right, table, marks, n)
    for k in range(closed - 1, -1, -1):
        marks[n] = back[k]
        n += 1
    k = 0
    while k < n:
        width, whole = rejoined(codes, a, k, marks, n, keys, cuts, shapes)
        if whole == 0:
            at = put(codes, places, a, a + marks[k], gap, table, fold, out, at)
            gap, a = 0, a + marks[k]
        k += width
        while whole:
            size = whole & 0xFF
            at = put(codes, places, a, a + size, gap, table, fold, out, at)
            gap, a, whole = 0, a + size, whole >> 8
    return at


@making
def spacy_like(
    data: Any, offsets: Any, table: Any, fold: Any, units: Any, keys: Any, cuts: Any, shapes: Any, out: Any, ends: Any
) -> int:
    """Cut every document; `ends` takes the running number of tokens. -1 when `out` is too short."""
    longest = 0
    for row in range(offsets.shape[0] - 1):
        longest = max(longest, offsets[row + 1] - offsets[row])
    codes, places = np.empty(longest + 1, np.int32), np.empty(longest + 1, np.int32)
    front, back = np.empty(longest + 1, np.int32), np.empty(2 * longest + 2, np.int32)
    at = 0
    for row in range(offsets.shape[0] - 1):
        n = decode(data, offsets[row], offsets[row + 1], codes, places)
        i, gap = 0, AFTER_SPACE | AFTER_LINE | AFTER_PARAGRAPH
        while i < n and at >= 0:
            if int(table[slot(codes[i])]) & _SPACE:
                gap = gap_after(codes[i], gap)
                i += 1
                continue
            end, every = i, _LETTER
            while end < n:
                bits = int(table[slot(codes[end])])
                if bits & _SPACE:
                    break
                every &= bits
                end += 1
            if every and exception(codes, i, end, keys, cuts, shapes) == 0:
                at = put(codes, places, i, end, gap, table, fold, out, at)
            else:
                at = chunk(codes, places, i, end, gap, table, fold, units, keys, cuts, shapes, front, back, out, at)
            gap, i = 0, end
        if at < 0:
            return -1
        ends[row] = at
    return at
