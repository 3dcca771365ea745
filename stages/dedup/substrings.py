"""Exact substrings that repeat: every byte that lies in some span of at least `size` units which occurs twice.

No suffix array. A span of at least N bytes repeats if and only if each of its windows of N bytes does, so the windows decide,
and two steps find all of them without looking at most of the text twice:

    anchors  Reduce  winnowing chooses, in every N bytes, the gram of N/2 bytes with the smallest hash; equal windows choose
                     the same gram at the same place, so a window repeats only if its gram does. About 4/N rows a byte.
    gather   Reduce  the grams that repeat, per document (`stages.dedup.spans`, column `anchors`)
    repeats  Reduce  all windows that hold such a gram, by two 64-bit hashes: exactly the windows that occur twice come out.
                     36 bytes a byte of repeated text, nothing for the rest.
    gather   Reduce  their places as spans                    cut  Map  the text without them (`stages.dedup.spans`)

A unit is a byte, or a token (`unit: tokens`, with `stages.tokenize.places` before each of the two): then N counts tokens, a
span begins and ends with one, and what comes out is in bytes all the same.

Exact up to collisions of 128 bits. The set of bytes equals that of Lee et al., "Deduplicating training data makes language
models better" (2022), 4.1; winnowing: Schleimer, Wilkerson, Aiken, "Winnowing: local algorithms for document fingerprinting".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from stages.analysis import text_buffers
from stages.contract import TEXT, Params, reduce_stage
from stages.dedup.lines import Kept, marks, repeated
from stages.dedup.spans import PLACES, SPANS, places, span_pairs
from stages.tokenizers import TOKENS, token_places

DOCUMENT = 3000
"""Bytes of a text, for estimates alone; of these 3 % repeat in a crawl without exact and near duplicates."""
Unit = Literal["bytes", "tokens"]
CONTENT = {"bytes": {"text": TEXT}, "tokens": {"token_places": TOKENS}}
GRAMS = {"key": pa.uint64(), "row": pa.int64(), "start": pa.int32()}
WINDOWS = {"key": pa.uint64(), "check": pa.uint64(), "mark": pa.uint64(), "row": pa.int64(), "start": pa.int32()}


class Anchors(Params):
    """What is a repeated span."""

    size: int = Field(
        100, ge=8, le=2048, description="Units of the shortest span; Nemotron-CC has 100 bytes (50 tokens of two bytes)."
    )
    unit: Unit = Field("bytes", description="bytes, or tokens (column `token_places`, by stages.tokenize.places).")
    partitions: int = Field(64, ge=1, description="Parts of the exchange; one part must fit into memory (50 bytes a gram).")

    @property
    def gram(self) -> int:
        """Units of an anchor: half a window makes both the anchors few and their hits rarely in vain."""
        return self.size // 2


def _settle_anchors(batches: Iterator[pa.Table], params: Anchors) -> Iterator[pa.Table]:
    for batch in batches:
        key = batch["key"].to_numpy()
        same = np.zeros(len(key) + 1, bool)
        same[1:-1] = key[1:] == key[:-1]
        again = batch.filter(pa.array(same[1:] | same[:-1]))
        start = again["start"].to_numpy().astype(np.int64)
        yield places(again["row"], start, start + params.gram, np.zeros(len(start), bool))


@reduce_stage(
    version=1,
    reads=lambda params: {**CONTENT[params.unit], "row": pa.int64()},
    emits=GRAMS,
    writes=PLACES,
    settle=_settle_anchors,
    result="dataset",
    alone=False,
    fan_out=lambda params: 4 * DOCUMENT / params.size,
)
def anchors(batch: pa.Table, params: Anchors) -> pa.Table:
    """Places of winnowed grams that occur twice or more, in units: `text` in, places out. Texts below `size` have none."""
    from stages.dedup import repeats

    data, offsets, _ = _units(batch, params.unit)
    size = int(offsets[-1] - offsets[0])
    for room in (5 * size // params.size + 16, size + 16):
        keys, found, owner = np.empty(room, np.uint64), np.empty(room, np.int64), np.empty(room, np.int64)
        count = repeats.anchors(data, offsets, params.size, params.gram, keys, found, owner)
        if count >= 0:
            break
    rows = batch["row"].to_numpy()[owner[:count]]
    return pa.table([keys[:count], rows, found[:count].astype(np.int32)], schema=pa.schema(GRAMS))


def _units(batch: pa.Table, unit: str) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int32] | None]:
    """Bytes or token ids of all texts, where each text begins among them, and for tokens their places."""
    if unit == "bytes":
        return *text_buffers(batch["text"]), None
    tokens, firsts = token_places(batch["token_places"])
    return np.ascontiguousarray(tokens[:, 0]), firsts, tokens


class Repeats(Kept):
    """The same `size` as of the anchors."""

    size: int = Field(100, ge=8, le=2048, description="Units of the shortest span.")
    unit: Unit = Field("bytes", description="The unit of the anchors.")
    column: str = Field("anchors", pattern=r"^[a-z][a-z0-9_]*$", description="Column with the places of repeated grams.")


def _settle_repeats(batches: Iterator[pa.Table], params: Repeats) -> Iterator[pa.Table]:
    for batch in batches:
        if params.unit == "tokens":
            yield repeated(batch, 1, params.keep)
        else:
            stop = pc.add(batch["start"], params.size).cast(pa.int32())
            yield repeated(batch.append_column("stop", stop), 1, params.keep)


def _starts(spans: np.ndarray, length: int, params: Repeats) -> Iterator[tuple[int, int]]:
    """Ranges of the windows that hold an anchor, joined where they touch; `spans` are unions of anchors."""
    gram = params.size // 2
    low = high = -1
    for start, stop in spans.tolist():
        begin, end = max(start + gram - params.size, 0), min(stop - gram, length - params.size) + 1
        if begin > high:
            if high > low >= 0:
                yield low, high
            low, high = begin, end
        else:
            high = max(high, end)
    if high > low >= 0:
        yield low, high


@reduce_stage(
    version=1,
    reads=lambda params: {**CONTENT[params.unit], params.column: SPANS, **params.columns},
    emits=lambda params: WINDOWS | ({"stop": pa.int32()} if params.unit == "tokens" else {}),
    writes=PLACES,
    settle=_settle_repeats,
    result="dataset",
    alone=False,
    fan_out=lambda _params: 0.03 * DOCUMENT,
    libraries=("xxhash",),
)
def repeats(batch: pa.Table, params: Repeats) -> pa.Table:
    """Places of every window of `size` units that occurs twice: `text` and `anchors` in, places in bytes out.

    One copy of each window is `kept` (by source, then by a hash of the id, then the first in its document): no cut touches
    it. Windows lie inside documents, so no span crosses a border between two.
    """
    from stages.dedup.repeats import windows

    data, offsets, tokens = _units(batch, params.unit)
    spans, firsts = span_pairs(batch[params.column])
    mark, row = marks(batch, params), batch["row"].to_numpy()
    schema = pa.schema(list(repeats.emits_of(params).items()))
    made: list[pa.Table] = [schema.empty_table()]
    for i in np.flatnonzero(np.diff(firsts)):
        length = int(offsets[i + 1] - offsets[i])
        for low, high in _starts(spans[firsts[i] : firsts[i + 1]], length, params):
            keys, checks = np.empty(high - low, np.uint64), np.empty(high - low, np.uint64)
            windows(data, offsets[i], params.size, low, high, keys, checks)
            same = [np.full(high - low, mark[i], np.uint64), np.full(high - low, row[i], np.int64)]
            first = int(offsets[i]) + np.arange(low, high)
            if tokens is None:
                where = [np.arange(low, high, dtype=np.int32)]
            else:
                where = [tokens[first, 1], tokens[first + params.size - 1, 2]]
            made.append(pa.table([keys, checks, *same, *where], schema=schema))
    return pa.concat_tables(made).combine_chunks()
