"""Parquet files for any reader, plain or in Hive layout."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from stages.columns import Written
from stages.contract import FileGroup, export_stage
from stages.export.listing import listing
from stages.export.rowgroups import RowGroups

VALUE = re.compile(r"[A-Za-z0-9_-]+\Z")


class Parquet(Written):
    """What is written, and how."""

    row_group_rows: int = Field(10_000, description="Rows of a row group.", ge=1)
    level: int = Field(3, description="Level of zstd.", ge=1, le=22)


class Hive(Parquet):
    """What is written, and by which columns it is laid out."""

    partition_by: tuple[str, ...] = Field(
        description="Text columns that become folders, outermost first, such as [quality, kind]; they are not in the files.",
        min_length=1,
    )


def _finish(summaries: Sequence[Mapping[str, Any]], _params: Parquet) -> dict[str, bytes]:
    return listing(summaries, ".parquet")


@export_stage(version=1, reads=lambda params: params.written(), finish=_finish, libraries=("pyarrow",))
def files(batches: Iterable[pa.Table], params: Parquet, files: FileGroup) -> Mapping[str, Any]:
    """Write a shard as one Parquet file (zstd, row groups of a fixed size); `files.json` lists all with their rows."""
    writer = RowGroups(files.open(".parquet"), pa.schema(params.written()), params.row_group_rows, params.level)
    for batch in batches:
        writer.write(batch)
    return {"rows": writer.close()}


def _hive_reads(params: Hive) -> dict[str, pa.DataType]:
    return params.written() | dict.fromkeys(params.partition_by, pa.string())


def _hive_finish(summaries: Sequence[Mapping[str, Any]], _params: Hive) -> dict[str, bytes]:
    parts = [{"name": f"{s['name']}{stem}", "rows": rows} for s in summaries for stem, rows in s["partitions"].items()]
    return listing(parts, ".parquet")


@export_stage(version=1, reads=_hive_reads, finish=_hive_finish, libraries=("pyarrow",))
def hive(batches: Iterable[pa.Table], params: Hive, files: FileGroup) -> Mapping[str, Any]:
    """Write a shard as a Parquet file for each combination of values, as Nemotron-CC was released (quality=high/kind=actual/...).

    In the store a file carries its values in its name; `gristmill export` lays the folders out as `column=value`. Raises
    ValueError for a null value and for one that cannot be the name of a folder.
    """
    schema = pa.schema([(n, t) for n, t in params.written().items() if n not in params.partition_by])
    writers: dict[tuple[str, ...], RowGroups] = {}
    rows = 0
    for batch in batches:
        rows += batch.num_rows
        for key, mine in _groups(batch, params.partition_by):
            if key not in writers:
                out = files.open(f"{_stem(params.partition_by, key)}.parquet")
                writers[key] = RowGroups(out, schema, params.row_group_rows, params.level)
            writers[key].write(mine)
    done = {_stem(params.partition_by, key): (key, writers[key].close()) for key in sorted(writers)}
    folders = {
        f"{stem}.parquet": "/".join(f"{n}={v}" for n, v in zip(params.partition_by, key, strict=True))
        for stem, (key, _) in done.items()
    }
    return {"rows": rows, "partitions": {stem: count for stem, (_, count) in done.items()}, "folders": folders}


def _groups(batch: pa.Table, columns: Sequence[str]) -> Iterable[tuple[tuple[str, ...], pa.Table]]:
    """The rows of each combination of values, in the order of their first row."""
    places: dict[tuple[str, ...], list[int]] = {}
    for index, values in enumerate(zip(*(batch[name].to_pylist() for name in columns), strict=True)):
        places.setdefault(values, []).append(index)
    for values, rows in places.items():
        if bad := next((v for v in values if not VALUE.match(v or "")), False):
            raise ValueError(f"{bad!r} cannot be the name of a folder: use letters, digits, _ and -")
        if None in values:
            raise ValueError(f"a row has no value in {columns[values.index(None)]!r}, which it is laid out by")
        yield values, batch.take(pa.array(np.array(rows, np.int64)))


def _stem(columns: Sequence[str], values: Sequence[str]) -> str:
    return "".join(f".{name}={value}" for name, value in zip(columns, values, strict=True))
