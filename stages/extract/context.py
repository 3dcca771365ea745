"""What a second look sees: the first opinion on a block's neighbours, its elements, its kin and the whole page."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.compiled import kernel, making
from stages.extract.blocks import B_NODE, N_BLOCK0, N_BLOCK1, N_PARENT, N_PATH
from stages.extract.wording import W_WORDS

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]

FLOOR = 0.02
"""Blocks with a lower first chance are not looked at again: they are more than half of all, and almost never main text."""
STEPS = 3
LEVELS = 5
KIN = 3
REACHES = (3, 8, 25)
COLUMNS = 1 + 2 * STEPS + LEVELS + 2 * len(REACHES) + KIN + 6


@making
def threshold(chance: Floats, words: Floats) -> float:
    """The chance above which blocks are kept so that expected word F1 is highest.

    With all blocks from the best down to some chance kept, expected F1 is about 2 E[kept words] / (kept + E[main words]).
    """
    order = np.argsort(-chance)
    hoped, kept, right, best, cut = 0.0, 0.0, 0.0, -1.0, 1.0
    for i in range(chance.size):
        hoped += chance[i] * words[i]
    for i in order:
        kept += words[i]
        right += chance[i] * words[i]
        value = 2 * right / (kept + hoped + 1e-9)
        if value > best:
            best, cut = value, chance[i]
    return cut


@making
def _kin(chance: Floats, blocks: Ints, nodes: Ints, words: Floats, level: int) -> Any:
    """Mean chance, by words, of the blocks whose element (`level` up) has the same path."""
    size = 1
    while size < 2 * len(blocks) + 2:
        size *= 2
    keys, sums, slots = np.full(size, -1, np.int64), np.zeros((size, 2), np.float32), np.empty(len(blocks), np.int32)
    for i in range(len(blocks)):
        node = blocks[i, B_NODE]
        for _ in range(level):
            node = nodes[node, N_PARENT]
        key = nodes[node, N_PATH]
        slot = (key * 2654435761 >> 7) & (size - 1)
        while keys[slot] >= 0 and keys[slot] != key:
            slot = (slot + 1) & (size - 1)
        keys[slot], slots[i] = key, slot
        sums[slot, 0] += chance[i] * words[i]
        sums[slot, 1] += words[i]
    return sums[slots, 0] / sums[slots, 1]


@kernel
def _mean(sums: NDArray[np.float64], low: int, high: int) -> Any:
    """Mean chance by words of the blocks from `low` to `high`; -1 when there are none."""
    if high <= low:
        return -1.0
    return (sums[high, 1] - sums[low, 1]) / (sums[high, 0] - sums[low, 0])


@making
def surround(chance: Floats, blocks: Ints, nodes: Ints, counts: Floats) -> Floats:
    """Features of the second look (blocks x `COLUMNS`) from the chances of the first."""
    n = len(blocks)
    table, sums, words = np.full((n, COLUMNS), -1, np.float32), np.zeros((n + 1, 2), np.float64), np.empty(n, np.float32)
    for i in range(n):
        words[i] = max(counts[i, W_WORDS], 0.5)
        sums[i + 1, 0], sums[i + 1, 1] = sums[i, 0] + words[i], sums[i, 1] + words[i] * chance[i]
    cut, top = threshold(chance, words), chance.max() if n else 0.0
    kin = np.empty((KIN, n), np.float32)
    for level in range(KIN):
        kin[level] = _kin(chance, blocks, nodes, words, level)
    for i in range(n):
        row, node, at = table[i], blocks[i, B_NODE], 1
        row[0] = chance[i]
        for step in range(1, STEPS + 1):
            row[at] = chance[i - step] if i >= step else -1
            row[at + 1] = chance[i + step] if i + step < n else -1
            at += 2
        for _ in range(LEVELS):
            row[at] = _mean(sums, nodes[node, N_BLOCK0], nodes[node, N_BLOCK1])
            node, at = nodes[node, N_PARENT], at + 1
        for reach in REACHES:
            row[at], row[at + 1] = _mean(sums, max(0, i - reach), i), _mean(sums, i + 1, min(n, i + 1 + reach))
            at += 2
        row[at], row[at + 1], row[at + 2] = kin[0, i], kin[1, i], kin[2, i]
        row[at + 3] = sums[i, 1] / sums[n, 1]
        row[at + 4], row[at + 5], row[at + 6] = cut, chance[i] - cut, top
        row[at + 7], row[at + 8] = sums[n, 1], _mean(sums, 0, n)
    return table


@making
def beside(table: Floats, around: Floats, rows: NDArray[np.int64]) -> Floats:
    """Features of both looks for some blocks, by column: features x rows."""
    wide = table.shape[1]
    found = np.empty((wide + around.shape[1], rows.size), np.float32)
    for column in range(wide):
        for n in range(rows.size):
            found[column, n] = table[rows[n], column]
    for column in range(around.shape[1]):
        for n in range(rows.size):
            found[wide + column, n] = around[rows[n], column]
    return found
