"""The exchange between emit and settle: one file a task, its rows grouped by partition and sorted by key and row.

Layout: Arrow IPC streams of the non-empty partitions one after the other, then an index of int64 triples
(partition, offset, bytes), then the number of triples as int64 and the magic. A settle task range-reads its slice.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from functools import lru_cache
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


@lru_cache(maxsize=4096)
def _known_index(path: Path, _written: int) -> np.ndarray:
    """Indexes of spills in this process: a worker settles many partitions of the same spills."""
    return read_index(path)


def read_partition(paths: Iterable[Path], partition: int) -> Iterator[pa.Table]:
    """The slices of one partition, in the order of the paths."""
    for path in paths:
        index = _known_index(path, path.stat().st_mtime_ns)
        for _, offset, length in index[index[:, 0] == partition]:
            with path.open("rb") as file:
                file.seek(int(offset))
                yield pa.ipc.open_stream(file.read(int(length))).read_all()


def by_order(table: pa.Table) -> pa.Table:
    """Rows of a partition by (key, row): slices are sorted already, so the merge is one stable sort of sorted runs."""
    table = table.combine_chunks()
    return table.take(pa.array(_order(table)))


def _order(table: pa.Table) -> np.ndarray:
    """By key, then by row where rows are carried, then as they came: slices come in the order of their units."""
    keys = table["key"].to_numpy()
    rows = table["row"].to_numpy() if "row" in table.column_names else None
    if rows is not None and np.any(rows[1:] < rows[:-1]):
        return np.asarray(np.lexsort((rows, keys)))
    return _stable(keys)


def _stable(keys: np.ndarray) -> np.ndarray:
    """A stable order: numpy's unstable sort is three times as fast on random keys, and only equal keys need mending."""
    if np.count_nonzero(keys[1:] < keys[:-1]) * 64 < len(keys):
        return np.asarray(np.argsort(keys, kind="stable"))  # long sorted runs, as in a settle, merge faster than they sort
    order = np.argsort(keys)
    placed = keys[order]
    same = placed[1:] == placed[:-1]
    if np.count_nonzero(same) * 16 > len(keys):
        return np.asarray(np.argsort(keys, kind="stable"))
    if same.any():
        tied = np.flatnonzero(np.append(same, False) | np.insert(same, 0, False))
        run = np.cumsum(np.append(True, ~same))[tied]
        order[tied] = order[tied][np.lexsort((order[tied], run))]
    return np.asarray(order)


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
