"""The kernels of the line-based rules: FineWeb's counts, C4's line cleaning and C4's page counts (see `stages.splitting`)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from stages import characters as ch
from stages.compiled import inlined, kernel, making
from stages.filters.bytes_kernel import break_at, chars_in, count_byte, digest_bytes, mask_for, seen_before, space_at, trimmed
from stages.splitting import AFTER_LINE, ALL_PUNCT, STOP, slot

FINEWEB: Final = ("lines", "ended_lines", "short_lines", "dup_line_chars", "chars", "line_feeds")
CLEANING: Final = ("lines", "long_word", "no_end_mark", "few_words", "javascript", "policy", "kept")
_TERMINAL = ch.TERMINAL
_FLAGS = np.uint64(32)


@inlined
def last_code(data: Any, a: int, b: int) -> int:
    """The last code point of data[a:b], -1 if that is empty."""
    if b <= a:
        return -1
    i = b - 1
    if data[i] < 0x80:
        return int(data[i])
    value, shift = 0, 0
    while data[i] & 0xC0 == 0x80 and i > a:
        value |= (int(data[i]) & 0x3F) << shift
        shift += 6
        i -= 1
    return value | (int(data[i]) & (0x3F >> shift // 6)) << shift


@inlined
def ends_with(code: int, marks: Any, terminals: bool, table: Any) -> bool:
    """Whether a last code point is one of the marks or, if asked, ends sentences in any script."""
    if code < 0:
        return False
    for k in range(marks.shape[0]):
        if marks[k] == code:
            return True
    return terminals and (int(table[slot(code)]) & _TERMINAL) != 0


@inlined
def space_only(data: Any, a: int, b: int) -> bool:
    """Whether data[a:b] is empty or white space."""
    while a < b:
        size = space_at(data, a, b)
        if size == 0:
            return False
        a += size
    return True


@making
def fineweb_counts(data: Any, offsets: Any, short: int, marks: Any, terminals: bool, table: Any, out: Any) -> None:
    """Fill out[row] with FINEWEB; lines are cut at line feeds, those of white space alone do not count."""
    most = 1
    for r in range(offsets.shape[0] - 1):
        most = max(most, count_byte(data, offsets[r], offsets[r + 1], 10) + 1)
    size = int(mask_for(most)) + 1
    keys, stamps = np.empty(size, np.uint64), np.zeros(size, np.int64)
    for r in range(offsets.shape[0] - 1):
        start, stop = offsets[r], offsets[r + 1]
        feeds = count_byte(data, start, stop, 10)
        out[r, 4], out[r, 5] = chars_in(data, start, stop) - feeds, feeds
        mask = mask_for(feeds + 1)
        a, lines, ended, short_lines, repeated = start, 0, 0, 0, 0
        for b in range(start, stop + 1):
            if b < stop and data[b] != 10:
                continue
            if space_only(data, a, b):
                a = b + 1
                continue
            length = chars_in(data, a, b)
            lines += 1
            ended += ends_with(last_code(data, a, b), marks, terminals, table)
            short_lines += length <= short
            if seen_before(digest_bytes(data, a, b), keys, stamps, mask, r + 1):
                repeated += length
            a = b + 1
        out[r, 0], out[r, 1], out[r, 2], out[r, 3] = lines, ended, short_lines, repeated


@inlined
def is_lone(data: Any, i: int, table: Any) -> bool:
    """Whether a three-byte character is of a script written without spaces."""
    code = (int(data[i]) & 0x0F) << 12 | (int(data[i + 1]) & 0x3F) << 6 | (int(data[i + 2]) & 0x3F)
    return (int(table[code]) & ch.LONE) != 0


@inlined
def word_sizes(data: Any, a: int, b: int, lone: bool, table: Any) -> tuple[int, int]:
    """Words between white space, and characters of the longest; if `lone`, characters of scripts without spaces are words."""
    count, longest, now, done = 0, 0, 0, a
    for i in range(a, b):
        if i < done:
            continue
        byte = data[i]
        if byte <= 0x20 or byte >= 0xC2:
            size = space_at(data, i, b)
            if lone and size == 0 and 0xE0 <= byte < 0xF0 and is_lone(data, i, table):
                count += 1
                size = 3
            if size:
                now, done = 0, i + size
                continue
        count += now == 0
        now += (byte & 0xC0) != 0x80
        longest = max(longest, now)
    return count, longest


@inlined
def citation(data: Any, i: int, b: int) -> int:
    """Bytes of the citation mark [12], [], [edit] or [citation needed] that begins at i, 0 if none does."""
    k = i + 1
    while k < b and 0x30 <= data[k] <= 0x39:
        k += 1
    if k < b and data[k] == 0x5D:
        return k + 1 - i
    for mark in (b"[edit]", b"[citation needed]"):
        if i + len(mark) <= b:
            same = True
            for k in range(len(mark)):
                same = same and data[i + k] == mark[k]
            if same:
                return len(mark)
    return 0


@inlined
def copy_line(data: Any, a: int, b: int, citations: bool, out: Any, at: int) -> int:
    """Copy a line, without citation marks if asked; return where it ends in `out`."""
    i = a
    while i < b:
        size = citation(data, i, b) if citations and data[i] == 0x5B else 0
        if size:
            i += size
            continue
        out[at] = data[i]
        at += 1
        i += 1
    return at


@inlined
def phrases_in(text: Any, a: int, b: int, heads: Any, phrases: Any, ends: Any, groups: Any) -> int:
    """Bits of the groups that have a phrase in text[a:b], ASCII letters compared without case."""
    found = 0
    for i in range(a, b - 1):
        if not heads[text[i], text[i + 1]]:
            continue
        for p in range(groups.shape[0]):
            first, last = ends[p], ends[p + 1]
            if i + last - first > b:
                continue
            k = first
            while k < last:
                byte = text[i + k - first]
                if 0x41 <= byte <= 0x5A:
                    byte |= 0x20
                if byte != phrases[k]:
                    break
                k += 1
            if k == last:
                found |= groups[p]
    return found


@inlined
def fault(
    out: Any, a: int, b: int, words: int, longest: int, limits: Any, marks: Any, terminals: bool, table: Any, heads: Any,
    phrases: Any, ends: Any, groups: Any,
) -> int:  # fmt: skip
    """Which rule removes the line (its place in CLEANING), 0 if none does. Groups: 1 condemns the page, 2 script, 4 policy."""
    if limits[2]:
        dots = b - a >= 3 and out[b - 1] == 0x2E and out[b - 2] == 0x2E and out[b - 3] == 0x2E
        if dots or not ends_with(last_code(out, a, b), marks, terminals, table):
            return 2
    if limits[1] >= 0 and longest > limits[1]:
        return 1
    if words < limits[0]:
        return 3
    found = phrases_in(out, a, b, heads, phrases, ends, groups)
    if found & 1 == 0 and found & 2:
        return 4
    if found & 1 == 0 and found & 4 and count_byte(out, a, b, 0x7B) == 0:
        return 5
    return 0


@kernel
def clean_lines(
    data: Any, offsets: Any, limits: Any, marks: Any, terminals: bool, citations: bool, table: Any, heads: Any, phrases: Any,
    ends: Any, groups: Any, out: Any, places: Any, counts: Any,
) -> None:  # fmt: skip
    """Write every document without the lines that a rule removes; `places` takes the offsets, counts[row] CLEANING."""
    at = 0
    for r in range(offsets.shape[0] - 1):
        begin, stop = at, offsets[r + 1]
        a = i = offsets[r]
        while a < stop:
            size = 0
            while i < stop:
                if data[i] < 0x20 or data[i] == 0xC2 or data[i] == 0xE2:
                    size = break_at(data, i, stop)
                    if size:
                        break
                i += 1
            left, right = trimmed(data, a, i)
            # Most lines that go end wrong, and only a citation mark at the end could hide an end mark before it.
            hidden = right > left and data[right - 1] == 0x5D
            if limits[2] and not hidden and not ends_with(last_code(data, left, right), marks, terminals, table):
                counts[r, 0] += 1
                counts[r, 2] += 1
                a = i = i + max(size, 1)
                continue
            words, longest = word_sizes(data, left, right, terminals, table)
            b = copy_line(data, left, right, citations, out, at)
            wrong = fault(out, at, b, words, longest, limits, marks, terminals, table, heads, phrases, ends, groups)
            counts[r, 0] += 1
            counts[r, wrong or 6] += 1
            if wrong == 0:
                out[b] = 0x0A
                at = b + 1
            a = i = i + max(size, 1)
        left, right = trimmed(out, begin, at)
        for k in range(left, right):
            out[begin + k - left] = out[k]
        at = begin + right - left
        places[r + 1] = at


@kernel
def sentence_counts(tokens: Any, starts: Any, gap: int, out: Any) -> None:
    """Sentences of every document: a new line begins one, and so does a token that is no punctuation after an end mark.

    Where `gap` is AFTER_SPACE, the latter only after white space: the plain splitter cuts points out of `example.org`.
    """
    for r in range(starts.shape[0] - 1):
        count, ended = 0, True
        for t in range(starts[r], starts[r + 1]):
            flags = np.int64(tokens[t, 1] >> _FLAGS)
            if flags & AFTER_LINE or (ended and flags & gap == gap and flags & (ALL_PUNCT | STOP) == 0):
                count += 1
                ended = False
            if flags & STOP:
                ended = True
        out[r] = count


@kernel
def phrase_rows(data: Any, offsets: Any, heads: Any, phrases: Any, ends: Any, groups: Any, out: Any) -> None:
    """The phrase groups found in each document."""
    for r in range(offsets.shape[0] - 1):
        out[r] = phrases_in(data, offsets[r], offsets[r + 1], heads, phrases, ends, groups)


@kernel
def byte_rows(data: Any, offsets: Any, byte: int, out: Any) -> None:
    """How often a byte stands in each document."""
    for r in range(offsets.shape[0] - 1):
        out[r] = count_byte(data, offsets[r], offsets[r + 1], byte)
