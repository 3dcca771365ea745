"""Chunks of bounded size: rows collected one by one, with the count of everything that did not become a row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from stages.contract import BYTES, CORE, Bad, Chunk

MAX_ROWS = 256
MAX_BYTES = 8 << 20

HEAD: Mapping[str, pa.DataType] = {name: kind for name, kind in CORE.items() if name != "id"}
"""The core columns without `id`, which the engine makes from origin."""


class Collector:
    """Columns under construction; `full` says when to hand over a chunk (at most 256 rows or some 8 MiB of content)."""

    def __init__(self, columns: Mapping[str, pa.DataType]) -> None:
        self._schema = pa.schema(list(columns.items()))
        self._rows: list[tuple[Any, ...]] = []
        self._skipped: Counter[str] = Counter()
        self._bad: list[Bad] = []
        self._bytes = 0

    @property
    def full(self) -> bool:
        """Whether the chunk has reached its bounds; many bad or skipped records count too, so that memory is flat."""
        return len(self._rows) >= MAX_ROWS or self._bytes >= MAX_BYTES or len(self._bad) >= MAX_ROWS

    @property
    def empty(self) -> bool:
        """Whether no record was met since the last chunk."""
        return not (self._rows or self._skipped or self._bad)

    def row(self, values: tuple[Any, ...], size: int) -> None:
        """Add a row, values in the order of the columns; `size` is its content in bytes."""
        self._rows.append(values)
        self._bytes += size

    def skip(self, kind: str) -> None:
        """Count a record that is not for us."""
        self._skipped[kind] += 1

    def bad(self, bad: Bad) -> None:
        """Add a record that could not be read."""
        self._bad.append(bad)

    def take(self) -> Chunk:
        """The chunk so far; the collector starts anew."""
        columns = list(zip(*self._rows, strict=True)) or [()] * len(self._schema)
        arrays = [_array(column, field.type) for column, field in zip(columns, self._schema, strict=True)]
        chunk = Chunk(
            pa.table(arrays, schema=self._schema),
            len(self._rows) + self._skipped.total() + len(self._bad),
            dict(sorted(self._skipped.items())),
            tuple(self._bad),
        )
        self._rows, self._skipped, self._bad, self._bytes = [], Counter(), [], 0
        return chunk


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if kind != BYTES or None in values:
        return pa.array(list(values), kind)
    # One copy instead of two, and no list of Python bytes: pages are nearly all of a chunk.
    offsets = np.zeros(len(values) + 1, np.int64)
    np.cumsum([len(value) for value in values], out=offsets[1:])
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(values))])
