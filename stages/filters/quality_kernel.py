"""The counting kernel of the Gopher quality rules. Imported only where it runs (see `stages.splitting`)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from stages.splitting import HAS_LETTER, SOLID, inlined, kernel

COUNTS: Final = (
    "words", "solid_words", "solid_chars", "hashes", "ellipses", "lines", "bullet_lines", "ellipsis_lines", "letter_words",
    "stop_words",
)  # fmt: skip


@inlined
def space_at(data: Any, i: int, end: int) -> int:
    """Bytes of the white-space character that begins at i, 0 if none does."""
    byte = int(data[i])
    if byte < 0x80:
        return 1 if byte == 0x20 or 0x09 <= byte <= 0x0D or 0x1C <= byte <= 0x1F else 0
    if byte == 0xC2 and i + 1 < end:
        return 2 if data[i + 1] in (0x85, 0xA0) else 0
    if i + 2 >= end or byte not in (0xE1, 0xE2, 0xE3):
        return 0
    second, third = int(data[i + 1]), int(data[i + 2])
    if byte == 0xE2:
        thin = second == 0x80 and (third <= 0x8A or third in (0xA8, 0xA9, 0xAF))
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
def is_bullet(data: Any, a: int, b: int) -> bool:
    """Whether the trimmed line begins with a bullet or a hyphen."""
    if b > a and data[a] == 0x2D:
        return True
    return bool(b - a >= 3 and data[a] == 0xE2 and data[a + 1] == 0x80 and data[a + 2] == 0xA2)


@inlined
def is_cut(data: Any, a: int, b: int) -> bool:
    """Whether the trimmed line ends in an ellipsis, as one character or as three points."""
    if b - a < 3:
        return False
    one = data[b - 3] == 0xE2 and data[b - 2] == 0x80 and data[b - 1] == 0xA6
    return bool(one or (data[b - 3] == 0x2E and data[b - 2] == 0x2E and data[b - 1] == 0x2E))


@inlined
def count_lines(data: Any, start: int, stop: int, row: Any) -> None:
    """Lines, and how many begin with a bullet or end in an ellipsis."""
    a = start
    i = start
    while i < stop:
        size = 0
        if data[i] < 0x20 or data[i] >= 0xC2:
            size = break_at(data, i, stop)
        if size == 0 and i + 1 < stop:
            i += 1
            continue
        b = i if size else stop
        left, right = trimmed(data, a, b)
        row[5] += 1
        row[6] += is_bullet(data, left, right)
        row[7] += is_cut(data, left, right)
        i += max(size, 1)
        a = i


@inlined
def count_symbols(data: Any, start: int, stop: int, row: Any) -> None:
    """Number signs, and ellipses as `str.count` finds them."""
    points = 0
    for i in range(start, stop):
        byte = data[i]
        if byte == 0x2E:
            points += 1
            continue
        row[4] += points // 3
        points = 0
        if byte == 0x23:
            row[3] += 1
        elif byte == 0xE2 and i + 2 < stop and data[i + 1] == 0x80 and data[i + 2] == 0xA6:
            row[4] += 1
    row[4] += points // 3


@inlined
def count_words(tokens: Any, first: int, last: int, stops: Any, low: int, high: int, row: Any) -> None:
    """Words of each kind, and how many different stop words there are among stops[low:high] (at most 63)."""
    bloom, seen = np.uint64(0), np.uint64(0)
    for k in range(low, high):
        bloom |= np.uint64(1) << (stops[k] & np.uint64(63))
    row[0] = last - first
    for t in range(first, last):
        flags = int(tokens[t, 1] >> np.uint64(32))
        if flags & SOLID:
            row[1] += 1
            row[2] += int(tokens[t, 1] & np.uint64(0xFFFFFFFF))
        row[8] += (flags & HAS_LETTER) != 0
        if bloom >> (tokens[t, 2] & np.uint64(63)) & np.uint64(1):
            for k in range(low, high):
                if stops[k] == tokens[t, 2]:
                    seen |= np.uint64(1) << np.uint64(k - low)
    while seen:
        seen &= seen - np.uint64(1)
        row[9] += 1


@kernel
def quality_counts(data: Any, offsets: Any, tokens: Any, starts: Any, stops: Any, ranges: Any, lists: Any, out: Any) -> None:
    """Fill out[row] with COUNTS; lists[row] chooses ranges[.] of the stop-word hashes, -1 chooses none."""
    for r in range(offsets.shape[0] - 1):
        low, high = 0, 0
        if lists[r] >= 0:
            low, high = ranges[lists[r]], ranges[lists[r] + 1]
        count_words(tokens, starts[r], starts[r + 1], stops, low, high, out[r])
        count_symbols(data, offsets[r], offsets[r + 1], out[r])
        count_lines(data, offsets[r], offsets[r + 1], out[r])
