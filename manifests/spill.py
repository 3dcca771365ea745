"""The exchange between emit and settle: one file a task, its rows grouped by partition and sorted by key and row.

Layout: Arrow IPC streams of the non-empty partitions one after the other, then an index of int64 triples
(partition, offset, bytes), then the number of triples as int64 and the magic. A settle task range-reads its slice.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

MAGIC = b"GRSPILL1"
_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")


def partition_of(keys: np.ndarray, partitions: int) -> np.ndarray:
    """Key ranges of equal width: partition order is key order, so a partitioned sort is a global one."""
    return ((keys >> np.uint64(32)) * np.uint64(partitions) >> np.uint64(32)).astype(np.int64)


def write_spill(file: BinaryIO, table: pa.Table, partitions: int) -> None:
    """Write emitted rows (`key` uint64 among the columns, `row` int64 where they lead home)."""
    keys = table["key"].to_numpy()
    order = _order(table)
    table = table.take(pa.array(order)).combine_chunks()
    edges = np.searchsorted(partition_of(keys[order], partitions), np.arange(partitions + 1))
    index: list[tuple[int, int, int]] = []
    offset = 0
    for partition in np.flatnonzero(np.diff(edges)):
        piece = _stream(table.slice(edges[partition], edges[partition + 1] - edges[partition]))
        file.write(piece)
        index.append((int(partition), offset, len(piece)))
        offset += len(piece)
    file.write(np.array(index, dtype="<i8").reshape(-1, 3).tobytes())
    file.write(np.int64(len(index)).tobytes() + MAGIC)


def _stream(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=_OPTIONS) as writer:
        writer.write_table(table)
    return sink.getvalue()


def read_index(path: Path) -> np.ndarray:
    """The triples (partition, offset, bytes) of a spill, shape (n, 3)."""
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(size - 16, 0))
        tail = file.read(16)
        if tail[8:] != MAGIC:
            raise ValueError(f"{path}: not a spill, or cut off; delete it and run again")
        count = int(np.frombuffer(tail[:8], "<i8")[0])
        file.seek(size - 16 - 24 * count)
        return np.frombuffer(file.read(24 * count), "<i8").reshape(-1, 3)


def read_partition(paths: Iterable[Path], partition: int) -> Iterator[pa.Table]:
    """The slices of one partition, in the order of the paths."""
    for path in paths:
        index = read_index(path)
        for _, offset, length in index[index[:, 0] == partition]:
            with path.open("rb") as file:
                file.seek(int(offset))
                yield pa.ipc.open_stream(file.read(int(length))).read_all()


def sorted_partition(paths: Iterable[Path], partition: int, schema: pa.Schema) -> pa.Table:
    """All rows of a partition by (key, row): slices are sorted already, so the merge is one stable sort of sorted runs."""
    table = pa.concat_tables([schema.empty_table(), *read_partition(paths, partition)]).combine_chunks()
    return table.take(pa.array(_order(table)))


def _order(table: pa.Table) -> np.ndarray:
    """By key, then by row where rows are carried, then as they came: slices come in the order of their units."""
    keys = table["key"].to_numpy()
    if "row" not in table.column_names:
        return np.asarray(np.argsort(keys, kind="stable"))
    return np.asarray(np.lexsort((table["row"].to_numpy(), keys)))


def by_key(table: pa.Table, rows: int) -> Iterator[pa.Table]:
    """Cut a sorted table into pieces of about `rows` rows without cutting a key in two."""
    keys = table["key"].to_numpy()
    start = 0
    while start < len(keys):
        stop = min(start + rows, len(keys))
        if stop < len(keys):
            stop = int(np.searchsorted(keys, keys[stop - 1], side="right"))
        yield table.slice(start, stop - start)
        start = stop
