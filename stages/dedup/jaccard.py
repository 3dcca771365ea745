"""True Jaccard similarity of candidate pairs, from sets of 32-bit shingle hashes."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stages import characters
from stages.analysis import text_buffers, token_view
from stages.compiled import kernel, making
from stages.dedup.components import find
from stages.dedup.shingles import BLOCK, character_shingles, mixed, power
from stages.splitting import SOLID

SKETCH: Final = 65_536
"""Hashes of a set that are kept, the smallest: exact below, and beyond that the bottom-k estimate, off by 0.2 % at most
times out of three (standard error (J(1-J)/k)**0.5)."""
LEADERS: Final = 8
"""Members of one bucket that others are compared with: bounds the work of a bucket by eight comparisons a member."""
_SHIFT, _BASE = np.uint64(32), np.uint64(0x9E3779B97F4A7C15)


def shingle_sets(batch: pa.Table, kind: Any) -> pa.Array:
    """For each row its distinct shingle hashes in ascending order, as bytes of uint32; `kind` is a `minhash.Shingles`."""
    made: list[NDArray[np.uint32]] = []
    if kind.unit == "characters":
        data, offsets = text_buffers(batch["text"])
        table, fold = characters.tables()
        for row in range(batch.num_rows):
            sink = np.empty(max(int(offsets[row + 1] - offsets[row]), 2), np.uint32)
            count = character_set(data, offsets[row], offsets[row + 1], kind.size, kind.normalize == "folded", table, fold, sink)
            made.append(np.unique(sink[:count])[:SKETCH])
    else:
        tokens, firsts = token_view(batch["analysis"])
        for row in range(batch.num_rows):
            sink = np.empty(max(int(firsts[row + 1] - firsts[row]), 1), np.uint32)
            made.append(np.unique(sink[: word_set(tokens, firsts[row], firsts[row + 1], kind.size, sink)])[:SKETCH])
    return pa.array([hashes.tobytes() for hashes in made], pa.large_binary())


@making
def character_set(data: Any, start: int, stop: int, size: int, folded: bool, table: Any, fold: Any, out: Any) -> int:
    """All shingle hashes of a text, with repetitions; `out` holds one a byte of the text."""
    ring, sink, state = np.empty(size, np.int64), np.empty(BLOCK, np.uint32), np.zeros(4, np.uint64)
    state[0] = np.uint64(start)
    total = 0
    while np.int64(state[0]) < stop:
        count = character_shingles(data, stop, size, fold, table, folded, ring, sink, state)
        out[total : total + count] = sink[:count]
        total += count
    return total


@making
def word_set(tokens: Any, first: int, last: int, size: int, out: Any) -> int:
    """All shingle hashes of a document's words, with repetitions."""
    ring, leaving = np.empty(size, np.uint64), power(size)
    value, seen, count = np.uint64(0), 0, 0
    for token in range(first, last):
        if tokens[token, 1] >> _SHIFT & np.uint64(SOLID) == np.uint64(0):
            continue
        value = value * _BASE + tokens[token, 3]
        if seen >= size:
            value -= ring[seen % size] * leaving
        ring[seen % size] = tokens[token, 3]
        seen += 1
        if seen >= size:
            out[count] = np.uint32(mixed(value) >> _SHIFT)
            count += 1
    if 0 < seen < size:
        out[0], count = np.uint32(mixed(value) >> _SHIFT), 1
    return count


@kernel
def similarity(hashes: Any, a: int, a_stop: int, b: int, b_stop: int, limit: int) -> float:
    """Jaccard similarity of two ascending runs, from the smallest `limit` hashes of their union."""
    both, union = 0, 0
    while (a < a_stop or b < b_stop) and union < limit:
        if b >= b_stop or (a < a_stop and hashes[a] < hashes[b]):
            a += 1
        elif a >= a_stop or hashes[b] < hashes[a]:
            b += 1
        else:
            both += 1
            a += 1
            b += 1
        union += 1
    return both / union if union else 0.0


@making
def verified(bands: Any, hashes: Any, offsets: Any, edges: Any, least: float) -> Any:
    """For each row the first row of its verified component; rows of a cluster lie together, best first.

    Within a bucket the members come in order, each compared with the bucket's leaders until one is similar enough; a member
    that resembles none becomes a leader. Pairs that are joined already are not compared again.
    """
    parent = np.arange(offsets.shape[0] - 1)
    leaders = np.empty(LEADERS, np.int64)
    for c in range(edges.shape[0] - 1):
        low, high = edges[c], edges[c + 1]
        for band in range(bands.shape[1] if high - low > 1 else 0):
            column = bands[low:high, band].copy()
            order = np.argsort(column, kind="mergesort")
            count = 0
            for i in range(order.shape[0]):
                if i == 0 or column[order[i]] != column[order[i - 1]]:
                    count = 0
                row = low + order[i]
                joined = False
                for k in range(count):
                    a, b = find(parent, leaders[k]), find(parent, row)
                    if a == b:
                        joined = True
                        break
                    one, two = leaders[k], row
                    like = similarity(hashes, offsets[one], offsets[one + 1], offsets[two], offsets[two + 1], SKETCH)
                    if like >= least:
                        parent[max(a, b)] = min(a, b)
                        joined = True
                        break
                if not joined and count < LEADERS:
                    leaders[count] = row
                    count += 1
    for row in range(parent.shape[0]):
        parent[row] = parent[parent[row]]
    return parent
