"""The order in which a seed puts documents: 64-bit hashes of their ids, and the histogram by which cuts are found in it.

A document's place in the order of a source depends on its id and the seed alone, so another source, another batch or
another number of workers moves nobody. Epoch k of a source has an order of its own: its 4,096 buckets are dealt anew and
the places within each are turned by a mask. One histogram of buckets therefore serves every epoch.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

BUCKETS = 4096
"""Equal ranges of hashes for which tokens are summed. A source of ten million documents has about 2,400 in each."""
SHIFT = np.uint64(64 - 12)


def hashes(ids: Iterable[str], seed: int) -> Hashes:
    """The place of each id in the order of a seed, uniform over 64 bits."""
    return np.fromiter((xxhash.xxh3_64_intdigest(one, seed) for one in ids), np.uint64)


def bucket_of(keys: Hashes) -> NDArray[np.int32]:
    """The bucket of each place, 0 to 4,095."""
    return (keys >> SHIFT).astype(np.int32)


@lru_cache(maxsize=64)
def dealt(seed: int, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.uint64], int]:
    """An epoch's order of the buckets, the rank of each bucket in it, and the mask for places within a bucket."""
    if not epoch:
        same = np.arange(BUCKETS)
        return same, same.astype(np.uint64), 0
    drawn = hashes((f"{epoch} {bucket}" for bucket in range(BUCKETS)), seed)
    order = np.argsort(drawn, kind="stable")
    ranks = np.empty(BUCKETS, np.uint64)
    ranks[order] = np.arange(BUCKETS, dtype=np.uint64)
    return order, ranks, xxhash.xxh3_64_intdigest(f"epoch {epoch}", seed) & (2 ** int(SHIFT) - 1)


def turned(keys: Hashes, seed: int, epoch: int) -> Hashes:
    """Places in the order of a seed, as places in the order of one of its epochs."""
    if not epoch:
        return keys
    _, ranks, mask = dealt(seed, epoch)
    within = (keys & np.uint64(2 ** int(SHIFT) - 1)) ^ np.uint64(mask)
    return np.asarray((ranks[bucket_of(keys)] << SHIFT) | within)


class Histogram:
    """Rows and tokens by group and bucket, added up batch by batch."""

    def __init__(self) -> None:
        self.rows: dict[str, NDArray[np.int64]] = {}
        self.tokens: dict[str, NDArray[np.int64]] = {}

    def add(self, groups: NDArray[Any], names: list[str], buckets: NDArray[Any], tokens: NDArray[Any]) -> None:
        """Add rows; `groups` holds indices into `names`."""
        for index in np.unique(groups):
            mine, name = groups == index, names[index]
            self.rows.setdefault(name, np.zeros(BUCKETS, np.int64))
            self.tokens.setdefault(name, np.zeros(BUCKETS, np.int64))
            self.rows[name] += np.bincount(buckets[mine], minlength=BUCKETS)
            np.add.at(self.tokens[name], buckets[mine], tokens[mine])
