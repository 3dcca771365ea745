"""Documents sorted by how many tokens they have, for phases that train on sequences of several lengths."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from stages.contract import Params, map_stage


class Lengths(Params):
    """Where a bucket ends and the next begins."""

    edges: tuple[int, ...] = Field(
        (4096, 32_768, 131_072, 524_288),
        description="Tokens at which buckets end: up to 4,096, up to 32,768, and so on; the last has no end.",
        min_length=1,
    )

    @field_validator("edges")
    @classmethod
    def _rise(cls, edges: tuple[int, ...]) -> tuple[int, ...]:
        if list(edges) != sorted(set(edges)) or edges[0] < 1:
            raise ValueError(f"edges are {list(edges)}: they have to rise, from 1 up")
        return edges


def _name(tokens: int) -> str:
    return f"{tokens // 1024}k" if tokens % 1024 == 0 else str(tokens)


@map_stage(version=1, reads={"tokens": pa.int64()}, writes={"length_bucket": pa.string()})
def by_tokens(batch: pa.Table, params: Lengths) -> pa.Table:
    """Name the bucket of a document by its `tokens`: `to_4k`, `to_32k`, ..., `over_512k`; null where tokens are unknown.

    With `split_by: [phase, step, length_bucket]` an export keeps each in files of its own, so that a trainer can mix
    sequences of 512k and of 4k tokens.
    """
    names = [*(f"to_{_name(edge)}" for edge in params.edges), f"over_{_name(params.edges[-1])}"]
    tokens = batch["tokens"].combine_chunks()
    places = np.searchsorted(np.array(params.edges), tokens.fill_null(0).to_numpy(), side="left")
    unknown = tokens.is_null().to_numpy(zero_copy_only=False)
    return pa.table({"length_bucket": pa.array(names, pa.string()).take(pa.array(places, mask=unknown))})
