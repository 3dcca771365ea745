"""A share of the rows, chosen by identity: the same rows however the input is cut, and more of the same for a larger share."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from pydantic import Field

from stages.contract import Params, map_stage


class Sample(Params):
    """How much to keep."""

    share: float = Field(description="Share of rows to keep, by expectation.", ge=0, le=1)
    seed: int = Field(0, ge=0, lt=2**64, description="Another seed chooses other rows.")


@map_stage(version=1, reads={"id": pa.string()}, writes={"drop_reason": pa.string()}, libraries=("xxhash",))
def by_hash(batch: pa.Table, params: Sample) -> pa.Table:
    """Keep a row if hash(id, seed) falls into the first `share` of all hashes; the others are `not_sampled`."""
    ids = batch["id"].to_pylist()
    hashes = np.fromiter((xxhash.xxh3_64_intdigest(row, params.seed) for row in ids), np.uint64, len(ids))
    limit = np.uint64(min(int(params.share * 2**64), 2**64 - 1))
    dropped = (hashes >= limit) & (params.share < 1)
    return pa.table({"drop_reason": pc.if_else(pa.array(dropped), "not_sampled", pa.scalar(None, pa.string()))})
