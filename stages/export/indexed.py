"""Megatron's indexed dataset (megatron/core/datasets/indexed_dataset.py), written as documents come: one sequence a document."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stages.contract import FileGroup
from stages.engines import Flat

Ends = tuple[NDArray[np.int32], NDArray[np.int32]]
"""Tokens put before and after every document."""
MAGIC = b"MMIDIDX\x00\x00"
DTYPE_CODES = {"uint16": 8, "int32": 4}
SMALL_VOCABULARY = 65_500
"""Megatron's own limit for 16-bit tokens (indexed_dataset.py, DType.optimal_dtype)."""


class IndexedFiles:
    """`.bin` holds the tokens, `.idx` lengths and offsets, `.docs.parquet` the way back from token ranges to document ids."""

    def __init__(self, files: FileGroup, stem: str, dtype: np.dtype[Any]) -> None:
        self._files, self._stem, self._dtype = files, stem, dtype
        self._out = files.open(f"{stem}.bin")
        self._lengths: list[NDArray[np.int64]] = []
        self._ids: list[str] = []
        self.weight = 0
        """Tokens, each document as often as its copies say."""

    def add(self, documents: Sequence[str], tokens: Flat, copies: NDArray[np.int64], ends: Ends) -> None:
        """Write documents, each between the two ends; one write for all of them."""
        stream, lengths = framed(tokens, ends)
        self._out.write(np.ascontiguousarray(stream, self._dtype).data)
        self._lengths.append(lengths)
        self._ids += documents
        self.weight += int(np.dot(copies, lengths))

    def close(self) -> dict[str, Any]:
        """Write index and way back; the facts of the summary."""
        lengths = np.concatenate([np.empty(0, np.int64), *self._lengths]).astype(np.int32)
        _write_index(self._files, self._stem, lengths, self._dtype)
        _write_documents(self._files, self._stem, self._ids, lengths)
        return {"stem": self._stem, "documents": len(lengths), "tokens": int(lengths.sum(dtype=np.int64)), "weight": self.weight}


def framed(tokens: Flat, ends: Ends) -> Flat:
    """Documents one after the other, each between the two ends, and their lengths with them."""
    (flat, counts), (before, after) = tokens, ends
    stops = np.cumsum(counts)
    # Row by row: where one document stops and the next starts, the stop's mark comes first.
    places = np.column_stack([*[stops - counts] * len(before), *[stops] * len(after)] or [np.empty((len(counts), 0), np.int64)])
    stream = np.insert(flat, places.ravel(), np.tile(np.concatenate([before, after]), len(counts)))
    return stream, counts + len(before) + len(after)


def _write_index(files: FileGroup, stem: str, lengths: NDArray[np.int32], dtype: np.dtype[Any]) -> None:
    """Header, lengths (int32), byte offsets (int64), and where documents begin: at every sequence, closed by their number."""
    offsets = np.zeros(len(lengths), np.int64)
    np.cumsum(lengths[:-1], dtype=np.int64, out=offsets[1:])
    out = files.open(f"{stem}.idx")
    out.write(MAGIC + struct.pack("<QBQQ", 1, DTYPE_CODES[dtype.name], len(lengths), len(lengths) + 1))
    out.write(lengths.astype("<i4").tobytes())
    out.write((offsets * dtype.itemsize).astype("<i8").tobytes())
    out.write(np.arange(len(lengths) + 1, dtype="<i8").tobytes())


def _write_documents(files: FileGroup, stem: str, ids: list[str], lengths: NDArray[np.int32]) -> None:
    ends = np.cumsum(lengths, dtype=np.int64)
    table = pa.table(
        {
            "document": np.arange(len(ids), dtype=np.int64),
            "id": pa.array(ids, pa.string()),
            "start": ends - lengths,
            "tokens": lengths,
        }
    )
    pq.write_table(table, files.open(f"{stem}.docs.parquet"), compression="zstd")
