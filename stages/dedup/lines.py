"""Lines and paragraphs that repeat across documents: found here, gathered and cut by `stages.dedup.spans`.

repeats  Reduce  text -> places of repeated pieces      gather  Reduce  places -> spans      cut  Map  text without them
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray
from pydantic import Field

from stages import characters
from stages.analysis import text_buffers
from stages.contract import TEXT, Params, reduce_stage
from stages.dedup.spans import PLACES, places


class Kept(Params):
    """Which copy of something repeated stays where it is."""

    keep: Literal["first", "none"] = Field(
        "first", description="first: one copy stays, by source and then by a hash of the id; none."
    )
    prefer: tuple[str, ...] = Field((), max_length=255, description="Sources in order of preference; those not named come last.")
    partitions: int = Field(64, ge=1, description="Parts of the exchange; one part must fit into memory (100 bytes a piece).")

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """Columns that decide which copy stays."""
        return {"id": pa.string(), "row": pa.int64()} | ({"source": pa.string()} if self.prefer else {})


PIECES = {"key": pa.uint64(), "check": pa.uint64(), "mark": pa.uint64(), "row": pa.int64(), "start": pa.int32(), "stop": pa.int32()}


def marks(batch: pa.Table, params: Kept) -> NDArray[np.uint64]:
    """The order of documents: rank of the source in the upper 8 bits, 56 bits of a hash of the id below."""
    hashed = np.array([xxhash.xxh3_64_intdigest(str(name)) for name in batch["id"].to_pylist()], np.uint64) >> np.uint64(8)
    if not params.prefer:
        return hashed
    rank = {source: place for place, source in enumerate(params.prefer)}
    ranks = [rank.get(str(s), len(rank)) for s in batch["source"].to_pylist()]
    return np.asarray(np.array(ranks, np.uint64) << np.uint64(56) | hashed)


def repeated(batch: pa.Table, least: int, keep: str) -> pa.Table:
    """Places of the pieces that stand in at least `least` documents (1: that occur twice anywhere); all but one copy goes."""
    key = batch["key"].to_numpy()
    same = np.zeros(len(key) + 1, bool)
    same[1:-1] = key[1:] == key[:-1]
    rows = batch.filter(pa.array(same[1:] | same[:-1]))
    columns = [rows[name].to_numpy() for name in ("start", "row", "mark", "check", "key")]
    order = np.lexsort(columns)
    start, row, _mark, check, key = (c[order] for c in columns)
    first = np.ones(len(key), bool)
    first[1:] = (key[1:] != key[:-1]) | (check[1:] != check[:-1])
    group = np.cumsum(first) - 1
    fresh = first.copy()
    fresh[1:] |= row[1:] != row[:-1]
    enough = np.bincount(group, fresh)[group] >= least if least > 1 else np.bincount(group)[group] > 1
    kept = first if keep == "first" else np.zeros(len(first), bool)
    return places(
        row[enough], start[enough].astype(np.int64), rows["stop"].to_numpy()[order][enough].astype(np.int64), kept[enough]
    )


class Repeats(Kept):
    """What counts as a repeated piece."""

    unit: Literal["lines", "paragraphs"] = Field(
        "lines", description="lines: cut at line feeds; paragraphs: at two or more of them."
    )
    min_bytes: int = Field(20, ge=1, description="Shorter pieces are never compared.")
    min_documents: int = Field(2, ge=2, description="Documents in which a piece must stand before its copies go.")
    normalize: Literal["none", "folded"] = Field(
        "none",
        description="none: bytes without white space at the ends; folded: lower case, digits as 0, marks and spaces as one space.",
    )


def _settle(batches: Iterator[pa.Table], params: Repeats) -> Iterator[pa.Table]:
    for batch in batches:
        yield repeated(batch, params.min_documents, params.keep)


def _room(batch: pa.Table, params: Repeats) -> tuple[Any, ...]:
    from stages.dedup.repeats import pieces

    data, offsets = text_buffers(batch["text"])
    size = int(offsets[-1] - offsets[0])
    breaks, folded = (1 if params.unit == "lines" else 2), params.normalize == "folded"
    for room in (size // 32 + 16, size + 1):
        hashes, spans, owner = np.empty((room, 2), np.uint64), np.empty((room, 2), np.int64), np.empty(room, np.int64)
        count = pieces(data, offsets, breaks, params.min_bytes, folded, *characters.tables(), hashes, spans, owner)
        if count >= 0:
            break
    return hashes[:count], spans[:count], owner[:count]


@reduce_stage(
    version=1,
    reads=lambda params: {"text": TEXT, **params.columns},
    emits=PIECES,
    writes=PLACES,
    settle=_settle,
    result="dataset",
    alone=False,
    fan_out=lambda _params: 20.0,
    libraries=("xxhash",),
)
def repeats(batch: pa.Table, params: Repeats) -> pa.Table:
    """Places of lines or paragraphs that stand in `min_documents` documents: `text` in, `row`, `start`, `stop`, `kept` out.

    Equality is a 128-bit hash. Of the copies one stays (`kept`), in the document that comes first by source and by a hash of
    its id: never by arrival, and a second run marks the same. With `keep: none` all go, as for boilerplate.
    """
    hashes, spans, owner = _room(batch, params)
    return pa.table(
        [
            hashes[:, 0], hashes[:, 1], marks(batch, params)[owner], batch["row"].to_numpy()[owner],
            spans[:, 0].astype(np.int32), spans[:, 1].astype(np.int32),
        ],
        schema=pa.schema(PIECES),
    )  # fmt: skip
