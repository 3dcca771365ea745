"""Kernels for repeated pieces of text: hashes of lines and windows, winnowed anchors, span arithmetic, cutting."""

from __future__ import annotations

from typing import Any

import numpy as np

from stages import characters as ch
from stages.compiled import inlined, kernel, making
from stages.dedup.shingles import code_point, mixed, power
from stages.splitting import slot

_BASE, _OTHER = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
_ALNUM, _COMBINING, _DIGIT = ch.ALNUM, ch.COMBINING, ch.DIGIT


@kernel
def remaining(rows: Any, start: Any, stop: Any, kept: Any, out: Any, owner: Any) -> int:
    """Places sorted by row and start: for each row the union of what is not kept, less all that is; returns their number."""
    count, i = 0, 0
    while i < rows.shape[0]:
        end = i
        while end < rows.shape[0] and rows[end] == rows[i]:
            end += 1
        keep, low = i, -1
        covered, cleared = -1, -1
        at = i
        while at < end:
            # The next stretch to cut: [low, covered) joins all places that touch.
            if kept[at]:
                at += 1
                continue
            low, covered = start[at], stop[at]
            at += 1
            while at < end and (kept[at] or start[at] <= covered):
                if not kept[at] and stop[at] > covered:
                    covered = stop[at]
                at += 1
            # Kept places are sorted by start too: walk over those that reach into the stretch.
            while keep < end and start[keep] < covered:
                if kept[keep] and stop[keep] > cleared:
                    if start[keep] > max(low, cleared):
                        out[count, 0], out[count, 1] = max(low, cleared), start[keep]
                        owner[count] = rows[i]
                        count += 1
                    cleared = stop[keep]
                keep += 1
            if max(low, cleared) < covered:
                out[count, 0], out[count, 1] = max(low, cleared), covered
                owner[count] = rows[i]
                count += 1
        i = end
    return count


@inlined
def is_blank(byte: Any) -> Any:
    """ASCII white space."""
    return byte == 32 or 9 <= byte <= 13


@kernel
def without(data: Any, offsets: Any, spans: Any, firsts: Any, to_words: bool, out: Any, ends: Any) -> None:
    """Copy every text without its spans, each shrunk to whole characters (or words); `ends` takes the running length."""
    at = 0
    for row in range(offsets.shape[0] - 1):
        base, size = offsets[row], offsets[row + 1] - offsets[row]
        read = 0
        for s in range(firsts[row], firsts[row + 1]):
            low, high = max(spans[s, 0], 0), min(spans[s, 1], size)
            while low < high and data[base + low] & 0xC0 == 0x80:
                low += 1
            while high < size and high > low and data[base + high] & 0xC0 == 0x80:
                high -= 1
            if to_words:
                while 0 < low < high and not is_blank(data[base + low - 1]):
                    low += 1
                while low < high < size and not (is_blank(data[base + high]) or is_blank(data[base + high - 1])):
                    high -= 1
            if low >= high:
                continue
            for i in range(read, low):
                out[at] = data[base + i]
                at += 1
            read = high
        for i in range(read, size):
            out[at] = data[base + i]
            at += 1
        ends[row] = at


@inlined
def _hash_plain(data: Any, low: Any, high: Any) -> Any:
    one, two = np.uint64(high - low), np.uint64(high - low)
    for i in range(low, high):
        one = (one ^ np.uint64(data[i])) * _BASE
        two = (two ^ np.uint64(data[i])) * _OTHER
        one ^= one >> np.uint64(31)
    return mixed(one), mixed(two)


@inlined
def _hash_folded(data: Any, low: Any, high: Any, table: Any, fold: Any) -> Any:
    """Lower case, digits as 0, one space for all between; the third value says whether there was anything."""
    one, two, some, gap = np.uint64(0), np.uint64(0), False, False
    at = low
    while at < high:
        code, at = code_point(data, at)
        where = slot(code)
        bits = int(table[where])
        if bits & (_ALNUM | _COMBINING) == 0:
            gap = some
            continue
        unit = np.uint64(48) if bits & _DIGIT else np.uint64(fold[where])
        if gap:
            one, two = (one ^ np.uint64(32)) * _BASE, (two ^ np.uint64(32)) * _OTHER
        one, two = (one ^ unit) * _BASE, (two ^ unit) * _OTHER
        one ^= one >> np.uint64(31)
        some, gap = True, False
    return mixed(one), mixed(two), some


@inlined
def piece_end(data: Any, at: Any, stop: Any, breaks: int) -> Any:
    """Where the piece that begins at `at` ends: at the first run of `breaks` or more line feeds."""
    end = at
    while end < stop:
        if data[end] != 10:
            end += 1
            continue
        feeds, after = 0, end
        while after < stop and (data[after] == 10 or data[after] == 13):
            feeds += 1 if data[after] == 10 else 0
            after += 1
        if feeds >= breaks:
            return end
        end = after
    return end


@kernel
def pieces(
    data: Any, offsets: Any, breaks: int, least: int, folded: bool, table: Any, fold: Any, hashes: Any, spans: Any, owner: Any
) -> int:
    """Hashes (n, 2) and spans (n, 2) of the pieces between `breaks` or more line feeds; -1 when `hashes` is too short.

    A piece is compared without white space at its ends; its span takes in the line feeds that follow it, so that cutting
    it leaves no empty line. Pieces of fewer than `least` bytes are passed over.
    """
    count = 0
    for row in range(offsets.shape[0] - 1):
        start, stop = offsets[row], offsets[row + 1]
        at = start
        while at < stop:
            end = piece_end(data, at, stop, breaks)
            after = end
            while after < stop and (data[after] == 10 or data[after] == 13):
                after += 1
            low, high = at, end
            while low < high and is_blank(data[low]):
                low += 1
            while high > low and is_blank(data[high - 1]):
                high -= 1
            if high - low >= least and high > low:
                if count >= hashes.shape[0]:
                    return -1
                some = True
                if folded:
                    one, two, some = _hash_folded(data, low, high, table, fold)
                else:
                    one, two = _hash_plain(data, low, high)
                if some:
                    hashes[count, 0], hashes[count, 1] = one, two
                    spans[count, 0], spans[count, 1] = at - start, after - start
                    owner[count] = row
                    count += 1
            at = max(after, at + 1)
    return count


@making
def anchors(data: Any, offsets: Any, size: int, gram: int, keys: Any, places: Any, owner: Any) -> int:
    """Winnowed anchors: in every `size` bytes the `gram` bytes of smallest hash, the last of equal ones; -1 when out of room.

    Two equal windows of `size` bytes choose the same gram at the same place in them, for the choice sees nothing else.
    """
    window = size - gram + 1
    ring, where = np.empty(window + 1, np.uint64), np.empty(window + 1, np.int64)
    leaving, count = power(gram), 0
    for row in range(offsets.shape[0] - 1):
        start, length = offsets[row], offsets[row + 1] - offsets[row]
        if length < size:
            continue
        value, head, tail, last = np.uint64(0), 0, 0, -1
        for i in range(length):
            value = value * _BASE + np.uint64(data[start + i]) + np.uint64(1)
            if i >= gram:
                value -= (np.uint64(data[start + i - gram]) + np.uint64(1)) * leaving
            if i < gram - 1:
                continue
            place, rank = i - gram + 1, mixed(value)
            # A queue of candidates with ascending hashes; the front is the minimum of the window.
            while tail > head and ring[(tail - 1) % (window + 1)] >= rank:
                tail -= 1
            ring[tail % (window + 1)], where[tail % (window + 1)] = rank, place
            tail += 1
            while where[head % (window + 1)] <= place - window:
                head += 1
            if place >= window - 1 and where[head % (window + 1)] != last:
                if count >= keys.shape[0]:
                    return -1
                last = where[head % (window + 1)]
                # Minima are small by choice: mixed once more they spread over all partitions.
                keys[count], places[count], owner[count] = mixed(ring[head % (window + 1)] ^ _OTHER), last, row
                count += 1
    return count


@kernel
def windows(data: Any, start: int, size: int, low: int, high: int, keys: Any, checks: Any) -> None:
    """Two hashes of every window of `size` bytes that begins in [low, high)."""
    one, two, leave_one, leave_two = np.uint64(0), np.uint64(0), power(size), np.uint64(1)
    for _ in range(size):
        leave_two *= _OTHER
    for i in range(low, high + size - 1):
        unit = np.uint64(data[start + i]) + np.uint64(1)
        one, two = one * _BASE + unit, two * _OTHER + unit
        if i >= low + size:
            old = np.uint64(data[start + i - size]) + np.uint64(1)
            one -= old * leave_one
            two -= old * leave_two
        if i >= low + size - 1:
            keys[i - low - size + 1], checks[i - low - size + 1] = mixed(one), mixed(two)
