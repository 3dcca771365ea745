"""The counting kernel of the Gopher quality rules. Imported only where it runs (see `stages.splitting`)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from stages.compiled import inlined, kernel
from stages.filters.bytes_kernel import break_at, trimmed
from stages.splitting import HAS_LETTER, SOLID

COUNTS: Final = (
    "words", "solid_words", "solid_chars", "hashes", "ellipses", "lines", "bullet_lines", "ellipsis_lines", "letter_words",
    "stop_words",
)  # fmt: skip

_DULL = np.ones(256, np.bool_)
_DULL[[0x2E, 0x23, 0x0A, 0x0B, 0x0C, 0x0D, 0x1C, 0x1D, 0x1E, 0xC2, 0xE2]] = False
"""First bytes that neither end a line nor are counted: nearly all."""


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
def judge_line(data: Any, a: int, b: int, row: Any) -> None:
    """Count one line, and whether it begins with a bullet or ends in an ellipsis."""
    left, right = trimmed(data, a, b)
    row[5] += 1
    row[6] += is_bullet(data, left, right)
    row[7] += is_cut(data, left, right)


@kernel
def count_text(data: Any, start: int, stop: int, row: Any) -> None:
    """Lines as `str.splitlines` cuts them, number signs, and ellipses as `str.count` finds them."""
    a, done, hashes, ellipses = start, start, 0, 0
    for i in range(start, stop):
        byte = data[i]
        if _DULL[byte] or i < done:
            continue
        if byte == 0x2E:
            done = i + 1
            while done < stop and data[done] == 0x2E:
                done += 1
            ellipses += (done - i) // 3
            continue
        hashes += byte == 0x23
        if byte == 0xE2 and i + 2 < stop and data[i + 1] == 0x80 and data[i + 2] == 0xA6:
            ellipses += 1
        size = break_at(data, i, stop)
        if size:
            judge_line(data, a, i, row)
            a = done = i + size
    if a < stop:
        judge_line(data, a, stop, row)
    row[3], row[4] = hashes, ellipses


@inlined
def count_words(tokens: Any, first: int, last: int, stops: Any, low: int, high: int, row: Any) -> None:
    """Words of each kind, and how many different stop words there are among stops[low:high] (at most 63)."""
    bloom, seen = np.uint64(0), np.uint64(0)
    for k in range(low, high):
        bloom |= np.uint64(1) << (stops[k] & np.uint64(63))
    solid, chars, letters = 0, 0, 0
    for t in range(first, last):
        word = tokens[t, 1]
        flags = np.int64(word >> np.uint64(32))
        is_solid = (flags & SOLID) != 0
        solid += is_solid
        chars += np.int64(word & np.uint64(0xFFFFFFFF)) * is_solid
        letters += (flags & HAS_LETTER) != 0
        digest = tokens[t, 2]
        if bloom >> (digest & np.uint64(63)) & np.uint64(1):
            for k in range(low, high):
                if stops[k] == digest:
                    seen |= np.uint64(1) << np.uint64(k - low)
    row[0], row[1], row[2], row[8] = last - first, solid, chars, letters
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
        count_text(data, offsets[r], offsets[r + 1], out[r])
