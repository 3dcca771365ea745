"""The exchange between emit and settle: one file a task, its rows grouped by partition and sorted by key.

Layout: Arrow IPC streams of the non-empty partitions one after the other, then an index of int64 triples
(partition, offset, bytes), then the number of triples as int64 and the magic. A settle task range-reads its slice.
Rows with equal keys keep the order in which they came, within a file and between files. Inside a stream, a column of
nothing but nulls has the type null, and `row` is stored as its lower 32 bits where all rows have the upper 32 in common (they
stand in the schema's metadata). What is left of a band of a signature is 12 bytes, read without decoding; tables with columns
of variable width are compressed (lz4).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.place import open_url, read_range, written

MAGIC = b"GRSPILL2"
_BASE = b"row_base"
_LZ4, _PLAIN = pa.ipc.IpcWriteOptions(compression="lz4"), pa.ipc.IpcWriteOptions()
BATCH = 1 << 20
"""Rows of one record batch at most: what a settle that streams holds of a spill."""

PER_SLICE = 64
"""Rows of a merged table for each of its slices, at least."""


def partition_of(keys: np.ndarray, partitions: int) -> np.ndarray:
    """Key ranges of equal width: partition order is key order, so a partitioned sort is a global one."""
    return ((keys >> np.uint64(32)) * np.uint64(partitions) >> np.uint64(32)).astype(np.int64)


def write_spill(file: BinaryIO, table: pa.Table, partitions: int) -> None:
    """Write emitted rows (`key` uint64 among the columns, `row` int64 where they lead home)."""
    order, placed = stable_order(table["key"].to_numpy())
    edges = np.searchsorted(partition_of(placed, partitions), np.arange(partitions + 1))
    table = _packed(taken(table, order, placed))
    pieces = ((int(p), table.slice(edges[p], edges[p + 1] - edges[p])) for p in np.flatnonzero(np.diff(edges)))
    _write(file, pieces)


def merge_spills(file: BinaryIO, spills: Sequence[Path | str], joined: Callable[[int], pa.Table]) -> int:
    """Join many spills into one, partition by partition; rows written.

    `joined` gives the rows of a partition, sorted by key, equal keys in the order of the spills. One partition is held at a time.
    """
    partitions = np.unique(np.concatenate([np.zeros(0, np.int64), *(read_index(path)[:, 0] for path in spills)]))
    rows = 0

    def pieces() -> Iterator[tuple[int, pa.Table]]:
        nonlocal rows
        for partition in partitions.tolist():
            table = joined(partition)
            rows += table.num_rows
            yield partition, _packed(table)

    _write(file, pieces())
    return rows


def _write(file: BinaryIO, pieces: Iterable[tuple[int, pa.Table]]) -> None:
    """Streams of the partitions in their order, then the index."""
    index: list[tuple[int, int, int]] = []
    offset = 0
    for partition, table in pieces:
        plain = all(pa.types.is_primitive(t) or pa.types.is_null(t) for t in table.schema.types)
        piece = _stream(table, _PLAIN if plain else _LZ4)
        file.write(piece)
        index.append((partition, offset, len(piece)))
        offset += len(piece)
    file.write(np.array(index, dtype="<i8").reshape(-1, 3).tobytes())
    file.write(np.int64(len(index)).tobytes() + MAGIC)


def _packed(table: pa.Table) -> pa.Table:
    """Columns as they are stored."""
    for i, name in enumerate(table.column_names):
        if table[name].null_count == table.num_rows:
            table = table.set_column(i, name, pa.nulls(table.num_rows))
        elif name == "row" and table[name].type == pa.int64() and not table[name].null_count:
            rows = table[name].to_numpy()
            base = int(rows[0]) >> 32
            if ((rows >> 32) == base).all():
                table = table.set_column(i, name, pa.array(rows.astype(np.uint32)))
                table = table.replace_schema_metadata({_BASE: str(base).encode()})
    return table


def _unpacked(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Columns as they were emitted."""
    columns = [
        pa.nulls(batch.num_rows, f.type) if pa.types.is_null(c.type) else c for c, f in zip(batch.columns, schema, strict=True)
    ]
    base = (batch.schema.metadata or {}).get(_BASE)
    if base is not None:
        place = schema.get_field_index("row")
        columns[place] = pa.array(columns[place].to_numpy().astype(np.int64) | (int(base) << 32))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _stream(table: pa.Table, options: pa.ipc.IpcWriteOptions) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=BATCH)
    return sink.getvalue()


def read_index(path: Path | str) -> np.ndarray:
    """The triples (partition, offset, bytes) of a spill, shape (n, 3)."""
    with open_url(str(path)) as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(size - 16, 0))
        tail = file.read(16)
        if tail[8:] != MAGIC:
            raise ValueError(f"{path}: not a spill, or cut off; delete it and run again")
        count = int(np.frombuffer(tail[:8], "<i8")[0])
        file.seek(size - 16 - 24 * count)
        return np.frombuffer(file.read(24 * count), "<i8").reshape(-1, 3)


@lru_cache(maxsize=4096)
def _known_index(path: str, _written: int) -> np.ndarray:
    """Indexes of spills in this process: a worker settles many partitions of the same spills."""
    return read_index(path)


def read_partition(paths: Iterable[Path | str], partition: int, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The slices of one partition in the order of the paths, each sorted by key; a large slice comes in several batches."""
    for path in paths:
        index = _known_index(str(path), written(str(path)))
        for _, offset, length in index[index[:, 0] == partition]:
            for batch in pa.ipc.open_stream(read_range(str(path), int(offset), int(length))):
                yield _unpacked(batch, schema)


def merged(batches: Iterable[pa.RecordBatch], schema: pa.Schema, rows: int, alone: bool = True) -> Iterator[pa.Table]:
    """All rows of a partition by key, equal keys in the order of the spills, in tables of about `rows` rows.

    Without `alone`, rows whose key occurs once in the partition are left out. No key is cut in two, so a table is longer where
    one key has more rows. Slices are sorted already: cut at the same keys, their pieces make one table after the other, and
    only what lies between two cuts is sorted, in the processor's cache.
    """
    slices = list(batches)
    if not slices:
        return
    keys = [s["key"].to_numpy() for s in slices]
    # Every table costs a look at every slice: with thousands of spills it has to be longer.
    cuts = _cuts(keys, max(rows, PER_SLICE * len(slices)))
    ends = np.array([[*np.searchsorted(k, cuts), len(k)] for k in keys])
    starts = np.zeros(len(slices), np.int64)
    for stops in ends.T:
        pieces = [slices[i].slice(starts[i], stops[i] - starts[i]) for i in np.flatnonzero(stops > starts)]
        starts = stops
        if pieces:
            table = pa.Table.from_batches(pieces, schema)
            yield taken(table, *stable_order(table["key"].to_numpy(), alone))


def _cuts(keys: list[np.ndarray], rows: int) -> np.ndarray:
    """Keys before which to cut, from a sample of one in `step`: how many rows lie between two is near to `rows`."""
    step = max(rows // 64, 1)
    before = np.cumsum([0, *map(len, keys)])
    sample = np.sort(np.concatenate([k[-b % step :: step] for k, b in zip(keys, before[:-1].tolist(), strict=True)]))
    return np.unique(sample[rows // step :: rows // step])


def taken(table: pa.Table, order: np.ndarray, keys: np.ndarray) -> pa.Table:
    """The rows in this order, in which their keys are `keys`; columns of nothing but nulls are not looked at."""
    places, columns = pa.array(order), []
    for name in table.column_names:
        column = table[name]
        if name == "key":
            columns.append(pa.array(keys))
        elif column.null_count == len(column):
            columns.append(pa.nulls(len(order), column.type))
        else:
            columns.append(pc.take(column.combine_chunks(), places, boundscheck=False))
    return pa.table(columns, schema=table.schema)


def stable_order(keys: np.ndarray, alone: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Where the rows stand that come first, second, ... by key, and their keys; equal keys keep their order.

    Without `alone`, rows whose key occurs once are left out.
    The leading bits of a key and the row's number fit one 64-bit word: sorting these is three times as fast as sorting rows by
    their keys. Keys that agree in those bits alone are rare where keys are spread evenly; they are put right afterwards.
    """
    if not len(keys):
        return np.arange(0), keys
    low = keys.min()
    lead = np.uint64(64 - int(keys.max() - low).bit_length()) % np.uint64(64)
    bits = np.uint64((len(keys) - 1).bit_length())
    words = keys - low
    words <<= lead
    words >>= bits
    words <<= bits
    words |= np.arange(len(keys), dtype=np.uint64)
    words.sort()
    mask = (np.uint64(1) << bits) - np.uint64(1)
    chosen = words if alone else words[_repeats(words >> bits)]
    order = (chosen & mask).view(np.int64)
    placed = keys[order]
    if (placed[1:] < placed[:-1]).any():
        heads = (placed - low << lead) >> bits
        tied = np.flatnonzero(_repeats(heads))
        order[tied] = order[tied][np.lexsort((order[tied], placed[tied]))]
        placed = keys[order]
    if alone:
        return order, placed
    kept = _repeats(placed)
    return (order, placed) if kept.all() else (order[kept], placed[kept])


def _repeats(values: np.ndarray) -> np.ndarray:
    """Which of sorted values equal a neighbour."""
    same = values[1:] == values[:-1]
    found = np.zeros(len(values), bool)
    found[1:] = same
    found[:-1] |= same
    return found
