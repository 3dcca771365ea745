"""Gradient-boosted trees as flat arrays: read from the weights file, and one compiled loop that adds them up."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.extract.compiled import kernel

Floats = NDArray[np.float32]


class Forest(NamedTuple):
    """Trees of at most `depth` steps in shared arrays.

    `child` holds the node for "at most the threshold"; the other one follows it. A leaf has the threshold +inf and points at
    itself, so that every walk takes the same number of steps and has no branch to mispredict.
    """

    roots: NDArray[np.int32]
    depths: NDArray[np.int32]
    feature: NDArray[np.int16]
    threshold: Floats
    child: NDArray[np.int32]
    value: Floats


class Model(NamedTuple):
    """Weights of the extractor: both looks, and what words and attribute words weigh."""

    first: Forest
    second: Forest
    words: Floats
    classes: Floats


@kernel
def _add(columns: Floats, forest: Forest, total: Floats) -> None:
    rows = total.size
    at = np.empty(rows, np.int32)
    feature, threshold, child = forest.feature, forest.threshold, forest.child
    for tree in range(forest.roots.size):
        at[:] = forest.roots[tree]
        for _ in range(forest.depths[tree]):
            for row in range(rows):
                node = at[row]
                at[row] = child[node] + (columns[feature[node], row] > threshold[node])
        for row in range(rows):
            total[row] += forest.value[at[row]]


@kernel
def chances(table: Floats, forest: Forest) -> Floats:
    """The chance of each row of features: the logistic of the sum over all trees, rounded to 2^-16 for equal bytes anywhere."""
    total = np.zeros(len(table), np.float32)
    _add(np.ascontiguousarray(table.T), forest, total)  # rows of a page mostly sit at one node: their values lie together
    for row in range(total.size):
        total[row] = np.round(65536 / (1 + np.exp(-np.float64(total[row])))) / 65536
    return total


def load(path: Path) -> Model:
    """Read the weights that `benchmarks/train_extractor.py` wrote; lexicon weights are sixteenths in int8."""
    with np.load(path) as stored:
        forests = [
            Forest(*(np.ascontiguousarray(stored[f"{look}_{name}"]) for name in Forest._fields)) for look in ("first", "second")
        ]
        words, classes = (stored[name].astype(np.float32) / np.float32(16) for name in ("words", "classes"))
    return Model(forests[0], forests[1], words, classes)
