"""Rows out of Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from stages.contract import Bad, Chunk, Unit, knob, source
from stages.ingest import columns, files

BATCH = 512


class Rows(columns.Mapped):
    """Which files and columns."""

    paths: list[str] | str = knob([], "Files and globs, local or on a store; a list, or separated by commas.")
    unit_bytes: int = Field(64 << 20, ge=1, description="Bytes of one unit; larger files are read in ranges of row groups.")


def _units(params: Rows) -> Iterator[Unit]:
    columns.check_targets(params)
    for file in files.expand(params.paths):
        bounds: list[int | None] = [0, None]
        if file.size > 1.5 * params.unit_bytes:
            with files.open_file(file.path) as opened:
                bounds = _bounds(_opened(opened, file.path).metadata, params.unit_bytes)
        for start, stop in pairwise(bounds):
            yield Unit(file.name, file.path, file.size, file.witness, start or 0, stop)


def _bounds(metadata: Any, unit_bytes: int) -> list[int | None]:
    """Row groups at which units begin, and None for the end."""
    bounds: list[int | None] = [0]
    size = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if size >= unit_bytes:
            bounds.append(number)
            size = 0
        size += sum(group.column(column).total_compressed_size for column in range(group.num_columns))
    return [*bounds, None]


def _opened(file: Any, path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is no Parquet file: {error}") from error


@source(version=1, units=_units, writes=columns.kept)
def rows(unit: Unit, params: Rows) -> Iterator[Chunk]:
    """One row for each row: `text`, the core columns and those of `keep`, under the names that `columns` maps.

    Units are ranges of row groups. origin.offset is the row's number in the file, origin.length 1. Rows without text
    are skipped as `no_text`; a row group that cannot be read is one Bad. Raises ValueError for a mapped column that is
    not there, naming those present.
    """
    with files.open_file(unit.path) as file:
        opened = _opened(file, unit.path)
        sizes = [opened.metadata.row_group(number).num_rows for number in range(opened.metadata.num_row_groups)]
        tops = _tops(opened.schema_arrow, params)
        for number in range(unit.start, len(sizes) if unit.stop is None else unit.stop):
            yield from _group(opened, number, sum(sizes[:number]), tops, unit, params)


def _tops(schema: pa.Schema, params: Rows) -> list[str]:
    """The top-level columns that the mapped paths need; all of them where one is missing, for the error to name them."""
    paths = columns.paths_of(params)
    tops = {name: path if path in schema.names else path.split(".")[0] for name, path in paths.items()}
    if any(top not in schema.names for name, top in tops.items() if name not in columns.PLAIN or name in params.columns):
        return list(schema.names)
    return [name for name in schema.names if name in tops.values()]


def _group(opened: pq.ParquetFile, number: int, first: int, tops: list[str], unit: Unit, params: Rows) -> Iterator[Chunk]:
    batches = opened.iter_batches(BATCH, row_groups=[number], columns=tops)
    while True:
        try:
            batch = next(batches, None)
        except OSError as error:
            kinds = columns.schema_of(params)
            yield Chunk(pa.schema(list(kinds.items())).empty_table(), 1, bad=[Bad(first, "row_group", 0, str(error))])
            return
        if batch is None:
            return
        yield from columns.chunks_of(pa.Table.from_batches([batch]), params, unit, first)
        first += batch.num_rows
