"""Parquet files with row groups of a fixed size, so that bytes do not show how rows came batched."""

from __future__ import annotations

from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq


class RowGroups:
    """Tables in, one Parquet file (zstd) out."""

    def __init__(self, file: BinaryIO, schema: pa.Schema, rows: int, level: int = 3) -> None:
        self.schema, self.rows, self._size = schema, 0, rows
        self._writer = pq.ParquetWriter(file, schema, compression="zstd", compression_level=level)
        self._held: list[pa.Table] = []
        self._waiting = 0

    def write(self, table: pa.Table) -> None:
        """Take rows; columns are brought into the declared order and types."""
        self.rows += table.num_rows
        self._waiting += table.num_rows
        self._held.append(table.select(self.schema.names).cast(self.schema))
        if self._waiting >= self._size:
            held = pa.concat_tables(self._held)
            full = held.num_rows // self._size * self._size
            self._writer.write_table(held.slice(0, full).combine_chunks(), row_group_size=self._size)
            self._held = [held.slice(full)]
            self._waiting = held.num_rows - full

    def close(self) -> int:
        """Write the rest and the footer; rows of the file."""
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._held).combine_chunks(), row_group_size=self._size)
        self._writer.close()
        return self.rows
