"""Parquet files for any reader."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from stages.columns import Written
from stages.contract import FileGroup, export_stage
from stages.export.listing import listing


class Parquet(Written):
    """What is written, and how."""

    row_group_rows: int = Field(10_000, description="Rows of a row group.", ge=1)
    level: int = Field(3, description="Level of zstd.", ge=1, le=22)


def _finish(summaries: Sequence[Mapping[str, Any]], _params: Parquet) -> dict[str, bytes]:
    return listing(summaries, ".parquet")


@export_stage(version=1, reads=lambda params: params.written(), finish=_finish, libraries=("pyarrow",))
def files(batches: Iterable[pa.Table], params: Parquet, files: FileGroup) -> Mapping[str, Any]:
    """Write a shard as one Parquet file (zstd, row groups of a fixed size); `files.json` lists all with their rows."""
    schema = pa.schema(params.written())
    held: list[pa.Table] = []
    rows = waiting = 0
    with pq.ParquetWriter(files.open(".parquet"), schema, compression="zstd", compression_level=params.level) as writer:
        for batch in batches:
            rows, waiting = rows + batch.num_rows, waiting + batch.num_rows
            held.append(batch.select(schema.names).cast(schema))
            if waiting >= params.row_group_rows:
                held = [_write_full(writer, pa.concat_tables(held), params.row_group_rows)]
                waiting = held[0].num_rows
        if waiting:
            writer.write_table(pa.concat_tables(held).combine_chunks(), row_group_size=params.row_group_rows)
    return {"rows": rows}


def _write_full(writer: pq.ParquetWriter, held: pa.Table, size: int) -> pa.Table:
    """Write as many full row groups as there are, and return the rest: row groups must not show how rows came batched."""
    full = held.num_rows // size * size
    writer.write_table(held.slice(0, full).combine_chunks(), row_group_size=size)
    return held.slice(full)
