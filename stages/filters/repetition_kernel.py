"""The kernels of the Gopher repetition rules. Imported only where they run (see `stages.splitting`)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from stages.compiled import inlined, making
from stages.filters.bytes_kernel import chars_in, count_byte, digest_bytes, mask_for, seen_before, trimmed

PARTS: Final = ("chars", "paragraphs", "dup_paragraphs", "dup_paragraph_chars", "lines", "dup_lines", "dup_line_chars")
_LOW, _MIX, _HALF = np.uint64(0xFFFFFFFF), np.uint64(0xD6E8FEB86659FD93), np.uint64(32)
_ONE = np.uint64(1)


@inlined
def duplicate_parts(data: Any, start: int, stop: int, least: int, keys: Any, stamps: Any, stamp: int, row: Any, at: int) -> None:
    """Parts of the text between runs of at least `least` line feeds: row[at:at+3] gets all, repeated, and characters of these."""
    mask = mask_for(count_byte(data, start, stop, 10) + 1)
    a, run, parts, repeated, chars = start, 0, 0, 0, 0
    for i in range(start, stop + 1):
        if i < stop and data[i] == 10:
            run += 1
            continue
        if run >= least or i == stop:
            # The part ends where the run began; a short run at the very end belongs to the part.
            end = i - run if run >= least else i
            parts += 1
            if seen_before(digest_bytes(data, a, end), keys, stamps, mask, stamp):
                repeated += 1
                chars += chars_in(data, a, end)
            a = i
            if i == stop and run >= least:
                parts += 1
                repeated += seen_before(digest_bytes(data, stop, stop), keys, stamps, mask, stamp)
        run = 0
    row[at], row[at + 1], row[at + 2] = parts, repeated, chars


@making
def part_counts(data: Any, offsets: Any, out: Any) -> None:
    """Fill out[row] with PARTS: paragraphs of the stripped text (cut at blank lines), lines of the text (cut at line feeds).

    Paragraphs are left at zero where none can repeat.
    """
    most = 1
    for r in range(offsets.shape[0] - 1):
        most = max(most, count_byte(data, offsets[r], offsets[r + 1], 10) + 1)
    size = int(mask_for(most)) + 1
    keys, stamps = np.empty(size, np.uint64), np.zeros(size, np.int64)
    for r in range(offsets.shape[0] - 1):
        start, stop = offsets[r], offsets[r + 1]
        left, right = trimmed(data, start, stop)
        out[r, 0] = chars_in(data, start, stop)
        duplicate_parts(data, start, stop, 1, keys, stamps, 2 * r + 1, out[r], 4)
        # Without a repeated line there is no repeated paragraph, unless stripping the text made two parts equal.
        if out[r, 5] or left > start or right < stop:
            duplicate_parts(data, left, right, 2, keys, stamps, 2 * r + 2, out[r], 1)


@inlined
def count_grams(
    words: Any, n: int, live: Any, alive: int, grams: Any, slots: Any, keys: Any, stamps: Any, counts: Any, mask: Any, stamp: int
) -> None:  # fmt: skip
    """Roll the hashes of live positions on to n words and count them."""
    for c in range(alive):
        i = live[c]
        gram = grams[i] * _MIX + words[i + n - 1]
        grams[i] = gram
        gram ^= gram >> _HALF
        at = gram & mask
        while stamps[at] == stamp and keys[at] != gram:
            at = (at + _ONE) & mask
        if stamps[at] != stamp:
            stamps[at] = stamp
            keys[at] = gram
            counts[at] = 0
        counts[at] += 1
        slots[i] = at


@inlined
def repeated_chars(n: int, live: Any, alive: int, slots: Any, counts: Any, seen: Any, stamp: int, ends: Any) -> int:
    """Characters in n-grams that stood earlier in the text, read from left to right and never counted twice."""
    total, free = 0, 0
    for c in range(alive):
        i = live[c]
        at = slots[i]
        if i < free or counts[at] < 2:
            continue
        if seen[at] == stamp:
            total += ends[i + n] - ends[i]
            free = i + n
        else:
            seen[at] = stamp
    return total


@making
def gram_chars(tokens: Any, starts: Any, longest: int, top: Any, dup: Any) -> None:
    """For n from 2 to `longest`: top[row, n] and dup[row, n], characters in the most frequent and in repeated n-grams.

    An n-gram can only repeat where the (n-1)-gram does: from one n to the next only such positions stay live, which
    makes all n together little dearer than the first.
    """
    most = 1
    for r in range(starts.shape[0] - 1):
        most = max(most, starts[r + 1] - starts[r])
    size = int(mask_for(most)) + 1
    keys, stamps, seen = np.empty(size, np.uint64), np.zeros(size, np.int32), np.zeros(size, np.int32)
    counts, grams, slots = np.empty(size, np.int32), np.empty(most, np.uint64), np.empty(most, np.uint64)
    live, ends, words = np.empty(most, np.int64), np.zeros(most + 1, np.int64), np.empty(most, np.uint64)
    stamp = 0
    for r in range(starts.shape[0] - 1):
        first, total = starts[r], starts[r + 1] - starts[r]
        mask = mask_for(total)
        for i in range(total):
            ends[i + 1] = ends[i] + np.int64(tokens[first + i, 1] & _LOW)
            grams[i] = words[i] = tokens[first + i, 2]
            live[i] = i
        alive = total
        for n in range(2, min(longest, total) + 1):
            while alive and live[alive - 1] > total - n:
                alive -= 1
            stamp += 1
            count_grams(words, n, live, alive, grams, slots, keys, stamps, counts, mask, stamp)
            best, where, kept = 1, 0, 0
            dup[r, n] = repeated_chars(n, live, alive, slots, counts, seen, stamp, ends)
            for c in range(alive):
                i = live[c]
                count = counts[slots[i]]
                if count > best:
                    best, where = count, i
                if count > 1:
                    live[kept] = i
                    kept += 1
            alive = kept
            top[r, n] = best * (ends[where + n] - ends[where] + n - 1)
