"""Spans of documents: gathered from the rows of another Reduce, and cut out of the text.

A span is a byte range [start, stop) of the UTF-8 text. A column of spans is binary: int64 pairs, little endian, ascending
and disjoint. Repeated lines, repeated substrings and contamination all come here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from stages.analysis import text_buffers
from stages.contract import TEXT, Memory, Params, map_stage, reduce_stage

SPANS = pa.binary()
PLACES = {"row": pa.int64(), "start": pa.int64(), "stop": pa.int64(), "kept": pa.bool_()}
"""Rows of a dataset of places; `kept` places are the copies that stay, whose bytes no cut may touch."""


def places(row: Any, start: Any, stop: Any, kept: Any) -> pa.Table:
    """A table of places."""
    return pa.table([row, start, stop, kept], schema=pa.schema(PLACES))


class Gather(Params):
    """Where the spans go."""

    column: str = Field("spans", pattern=r"^[a-z][a-z0-9_]*$", description="Column that takes the spans.")
    partitions: int = Field(64, ge=1, description="Parts of the exchange; one part must fit into memory (60 bytes a place).")


def _settle(batches: Iterator[pa.Table], params: Gather) -> Iterator[pa.Table]:
    from stages.dedup.repeats import remaining

    for batch in batches:
        rows = batch["row"].to_numpy()
        start, stop, kept = (batch[name].to_numpy(zero_copy_only=False) for name in ("start", "stop", "kept"))
        order = np.lexsort((start, rows))
        out = np.empty((2 * len(rows), 2), np.int64)
        owner = np.empty(2 * len(rows), np.int64)
        count = remaining(rows[order], start[order], stop[order], kept[order], out, owner)
        first = np.flatnonzero(np.diff(owner[:count], prepend=-1))
        offsets = np.append(first, count).astype(np.int32) * 16
        data = pa.py_buffer(np.ascontiguousarray(out[:count]))
        spans = pa.Array.from_buffers(SPANS, len(first), [None, pa.py_buffer(offsets), data])
        yield pa.table({"row": owner[first], params.column: spans})


@reduce_stage(
    version=1,
    reads=PLACES,
    emits={"key": pa.uint64(), **PLACES},
    writes=lambda params: {"row": pa.int64(), params.column: SPANS},
    settle=_settle,
    memory=lambda _params: Memory(per_row=72),
)
def gather(batch: pa.Table, params: Gather) -> pa.Table:  # noqa: ARG001 - the contract's signature
    """The places of each document as one value of `column`: joined where they touch, less what is kept; null without any."""
    rows = batch["row"].to_numpy().astype(np.uint64)
    key = rows * np.uint64(0x9E3779B97F4A7C15)
    key ^= key >> np.uint64(31)
    key *= np.uint64(0xD6E8FEB86659FD93)
    return pa.table({"key": key, **{n: batch[n] for n in PLACES}})


class Cut(Params):
    """What happens to a document with spans."""

    column: str = Field("spans", pattern=r"^[a-z][a-z0-9_]*$", description="Column that holds the spans.")
    policy: Literal["remove", "drop"] = Field("remove", description="remove: the text without them; drop: the document goes.")
    borders: Literal["characters", "words"] = Field(
        "characters", description="Spans shrink to whole characters, or to whole words (delimited by white space)."
    )
    max_share: float = Field(1.0, gt=0, le=1, description="A document that loses more than this share of its bytes is dropped.")
    min_bytes: int = Field(1, ge=0, description="A document of which fewer bytes are left is dropped.")
    reason: str = Field("repeated_spans", pattern=r"^[a-z][a-z0-9_]*$", description="Drop reason of such documents.")


def span_pairs(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All spans of a column, shape (n, 2), and for each row the number of its first one."""
    data, offsets = text_buffers(column)
    used = np.frombuffer(data[offsets[0] : offsets[-1]].tobytes(), "<i8").reshape(-1, 2)
    return used, (offsets - offsets[0]) // 16


@map_stage(
    version=1,
    reads=lambda params: {"text": TEXT, params.column: SPANS},
    writes={"text": TEXT, "cut_bytes": pa.int64(), "drop_reason": pa.string()},
)
def cut(batch: pa.Table, params: Cut) -> pa.Table:
    """`text` without its spans; `cut_bytes` counts what went, `drop_reason` is `reason` where too much of it did."""
    from stages.dedup.repeats import without

    data, offsets = text_buffers(batch["text"])
    spans, firsts = span_pairs(batch[params.column])
    made = np.empty(int(offsets[-1] - offsets[0]), np.uint8)
    ends = np.zeros(len(offsets), np.int64)
    without(data, offsets, spans, firsts, params.borders == "words", made, ends[1:])
    before, left = np.diff(offsets), np.diff(ends)
    gone = before - left
    fallen = gone > before * params.max_share
    fallen |= (gone > 0) & ((left < params.min_bytes) | (params.policy == "drop"))
    text = pa.Array.from_buffers(TEXT, batch.num_rows, [None, pa.py_buffer(ends), pa.py_buffer(made[: ends[-1]])])
    reasons = pa.array([params.reason if down else None for down in fallen], pa.string())
    return pa.table({"text": text, "cut_bytes": gone, "drop_reason": reasons})
