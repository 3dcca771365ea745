"""Gradient-boosted trees as flat arrays: read from the weights file, and one compiled loop that adds them up.

Trees are not walked. As in QuickScorer (Lucchese et al., SIGIR 2015) every inner node whose test is false strikes out the
leaves on its left, and the first leaf that is left over is the one that a walk would reach. Nodes come one by one and
each is tested for all rows, so that the innermost loop is a compare and an "and" of vectors.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.compiled import kernel, making

Floats = NDArray[np.float32]
LEAVES = 32
"""Most leaves of a tree: one bit each."""
_DE_BRUIJN = 0x077CB531
"""Times a power of two, its upper five bits differ for each of the 32 powers."""


class Forest(NamedTuple):
    """Trees of at most `depth` steps in shared arrays, as they are stored.

    `child` holds the node for "at most the threshold"; the other one follows it. A leaf has the threshold +inf and points at
    itself.
    """

    roots: NDArray[np.int32]
    depths: NDArray[np.int32]
    feature: NDArray[np.int16]
    threshold: Floats
    child: NDArray[np.int32]
    value: Floats


class Scorer(NamedTuple):
    """The same trees for adding up: inner nodes from starts[tree] to starts[tree + 1], and leaves by tree and hashed bit."""

    starts: NDArray[np.int32]
    feature: NDArray[np.int16]
    threshold: Floats
    others: NDArray[np.uint32]
    """The leaves that a row above the threshold can still reach."""
    value: Floats


class Model(NamedTuple):
    """Weights of the extractor: both looks, and what words and attribute words weigh."""

    first: Scorer
    second: Scorer
    words: Floats
    classes: Floats


def scorer(forest: Forest) -> Scorer:
    """Flatten a forest whose trees have at most `LEAVES` leaves."""
    child, value = forest.child.tolist(), forest.value.tolist()
    nodes: list[tuple[int, int]] = []
    starts, leaves = [0], np.zeros((len(forest.roots), LEAVES), np.float32)

    def below(node: int, tree: int, leaf: int) -> int:
        """The number of leaves after this subtree; inner nodes go to `nodes`."""
        if child[node] == node:
            leaves[tree, ((1 << leaf) * _DE_BRUIJN & 0xFFFFFFFF) >> 27] = value[node]
            return leaf + 1
        middle = below(child[node], tree, leaf)
        nodes.append((node, 0xFFFFFFFF ^ ((1 << middle) - (1 << leaf))))
        return below(child[node] + 1, tree, middle)

    for tree, root in enumerate(forest.roots.tolist()):
        below(root, tree, 0)
        starts.append(len(nodes))
    at = np.array([node for node, _ in nodes], np.int64)
    others = np.array([mask for _, mask in nodes], np.uint32)
    return Scorer(np.array(starts, np.int32), forest.feature[at], forest.threshold[at], others, leaves)


@kernel
def _strike(column: Floats, threshold: np.float32, others: np.uint32, left: NDArray[np.uint32]) -> None:
    """One node's test for all rows."""
    for row in range(left.size):
        left[row] &= others if column[row] > threshold else np.uint32(0xFFFFFFFF)


@kernel
def _leaves(left: NDArray[np.uint32], value: Floats, total: Floats) -> None:
    """Add the value of the first leaf that is left."""
    for row in range(left.size):
        lowest = np.uint32(left[row] & (~left[row] + np.uint32(1)))
        total[row] += value[np.uint32(lowest * np.uint32(_DE_BRUIJN)) >> np.uint32(27)]


@making
def chances_of(columns: Floats, forest: Scorer) -> Floats:
    """Chances (see `chances`) from features by column: features x rows."""
    total, left = np.zeros(columns.shape[1], np.float32), np.empty(columns.shape[1], np.uint32)
    for tree in range(len(forest.value)):
        left[:] = np.uint32(0xFFFFFFFF)
        for node in range(forest.starts[tree], forest.starts[tree + 1]):
            _strike(columns[forest.feature[node]], forest.threshold[node], forest.others[node], left)
        _leaves(left, forest.value[tree], total)
    for row in range(total.size):
        total[row] = np.round(65536 / (1 + np.exp(-np.float64(total[row])))) / 65536
    return total


@making
def chances(table: Floats, forest: Scorer) -> Floats:
    """The chance of each row of features: the logistic of the sum over all trees, rounded to 2^-16 for equal bytes anywhere."""
    return chances_of(np.ascontiguousarray(table.T), forest)


def load(path: Path) -> Model:
    """Read the weights that `benchmarks/train_extractor.py` wrote; lexicon weights are sixteenths in int8."""
    with np.load(path) as stored:
        forests = [
            Forest(*(np.ascontiguousarray(stored[f"{look}_{name}"]) for name in Forest._fields)) for look in ("first", "second")
        ]
        words, classes = (stored[name].astype(np.float32) / np.float32(16) for name in ("words", "classes"))
    return Model(scorer(forests[0]), scorer(forests[1]), words, classes)
