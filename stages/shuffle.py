"""A global shuffle: every row gets a random key, partitions are ranges of keys, rows stand in the order of their keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import xxhash
from pydantic import Field

from stages.columns import KNOWN, Carried
from stages.contract import reduce_stage

SALT = 0x6B1F_52A9_0C4D_E837
"""Keeps this hash apart from that of stages.sample, which may have kept only rows with small hashes under the same seed."""


class Shuffle(Carried):
    """Order and size of the shuffled frame."""

    shards: int = Field(description="Number of shards written; their sizes differ by chance.", ge=1)
    seed: int = Field(0, ge=0, lt=2**64, description="Another seed gives another order.")


def _carried(params: Shuffle) -> Mapping[str, pa.DataType]:
    return KNOWN | params.carried()


def _settle(batches: Iterator[pa.Table], _params: Shuffle) -> Iterator[pa.Table]:
    # Batches come sorted by key and cut between keys: sorting each by (key, id) sorts the whole partition.
    for batch in batches:
        yield batch.sort_by([("key", "ascending"), ("id", "ascending")]).drop_columns(["key"])


@reduce_stage(
    version=1,
    reads=_carried,
    emits=lambda params: {"key": pa.uint64(), **_carried(params)},
    writes=_carried,
    settle=_settle,
    result="dataset",
    union=True,
    partitions=lambda params: params.shards,
    libraries=("xxhash",),
)
def by_hash(batch: pa.Table, params: Shuffle) -> pa.Table:
    """Carry `text`, the core columns and `columns` to the place that hash(id, seed) gives each row."""
    ids = batch["id"].to_pylist()
    hashes = (xxhash.xxh3_64_intdigest(row, params.seed ^ SALT) for row in ids)
    carried = batch.select(list(_carried(params)))
    return carried.add_column(0, "key", pa.array(np.fromiter(hashes, np.uint64, len(ids))))
