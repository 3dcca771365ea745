"""Weighted quantiles of float32 scores, exact and mergeable: counts per distinct value, in integers.

Sums of integers do not depend on their order, so a summary is the same for any number of workers and any order of shards.
Scores are written with a declared precision (6 decimals), therefore a column has at most some hundred thousand distinct
values and the summary stops growing, however many documents there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
SIGN = np.uint32(0x8000_0000)


def ordered(scores: Floats) -> NDArray[np.uint64]:
    """Float32 values as integers of the same order (all bits flipped below zero, the sign bit alone above)."""
    bits = (scores + np.float32(0)).view(np.uint32)
    return np.where(bits & SIGN, ~bits, bits | SIGN).astype(np.uint64)


def values_of(places: NDArray[np.uint64]) -> Floats:
    """The inverse of `ordered`."""
    bits = (places & np.uint64(0xFFFF_FFFF)).astype(np.uint32)
    return np.where(bits & SIGN, bits ^ SIGN, ~bits).astype(np.uint32).view(np.float32)


@dataclass(frozen=True, slots=True)
class Counts:
    """Distinct scores in ascending order, the documents at each and their summed weight."""

    scores: Floats
    documents: Ints
    weight: Ints


def cuts_of(counts: Counts, buckets: int) -> Floats:
    """The scores at 1/buckets, 2/buckets ... of the weight by the inverted CDF: the smallest score that reaches the share.

    Nemotron-CC's recipe takes the same quantiles (weighted by UTF-8 bytes). Compared in integers.
    """
    total = int(counts.weight.sum())
    reached = np.cumsum(counts.weight)
    # Python integers: tokens of a large crawl times buckets would not fit into 64 bits.
    wanted = [-(-k * total // buckets) for k in range(1, buckets)]
    return counts.scores[np.searchsorted(reached, np.array(wanted, np.int64), side="left")]


def bucket_of(scores: Floats, cuts: Floats) -> NDArray[np.int32]:
    """How many cuts lie strictly below each score: a document at a cut falls to the lower side.

    Ties therefore go to the lowest bucket that their ranks touch: a large tie at the top, or a constant score, never fills
    the best bucket beyond its share.
    """
    return np.searchsorted(cuts, scores, side="left").astype(np.int32)


def held(counts: Counts, cuts: Floats) -> tuple[Ints, Ints]:
    """Documents and weight that each bucket really holds, ties included."""
    which = bucket_of(counts.scores, cuts)
    size = len(cuts) + 1
    documents, weight = np.zeros(size, np.int64), np.zeros(size, np.int64)
    np.add.at(documents, which, counts.documents)
    np.add.at(weight, which, counts.weight)
    return documents, weight
