"""Whole or absent: draft, fsync, hash, rename."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, cast

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.place import at

ROW_GROUP = 8192
"""Rows of a Parquet row group: about 40 MB of web text, small enough to stream, large enough to compress."""


class HashingFile(io.RawIOBase):
    """A file for writing that hashes what passes, so that no byte is read twice to be known."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._hash = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: object, /) -> int:
        """Write bytes or a buffer."""
        view = memoryview(data)  # type: ignore[arg-type]
        self._file.write(view)
        self._hash.update(view)
        self.size += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        """Bytes written so far."""
        return self.size

    def seal(self) -> tuple[int, str]:
        """Flush to the disk and close; size and sha256."""
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        super().close()
        return self.size, self._hash.hexdigest()

    def close(self) -> None:
        """Close without a promise."""
        if not self._file.closed:
            self._file.close()
        super().close()


class PartDraft:
    """The files of one part while they are written; `commit` makes all of them appear, leaving makes none.

    Drafts lie where the place wants them (on a disk beside the parts, for an object store in a local spool) under a name with
    the writer's process id.
    """

    def __init__(self, folder: Path | str, key: str) -> None:
        self.place, self.folder = at(str(folder))
        self.drafts, self.key = self.place.drafts(self.folder), key
        self._files: dict[str, tuple[Path, HashingFile]] = {}

    def open(self, suffix: str) -> BinaryIO:
        """A file for writing that will be named `<key><suffix>`."""
        if suffix in self._files:
            raise ValueError(f"{self.key}{suffix} is already open in this part")
        drafts = self.drafts
        drafts.mkdir(parents=True, exist_ok=True)
        path = drafts / f"{self.key}{suffix}.{os.getpid()}"
        file = HashingFile(path)
        self._files[suffix] = (path, file)
        return cast("BinaryIO", file)

    def commit(self) -> dict[str, tuple[int, str]]:
        """Seal and publish every file; suffix to (bytes, sha256)."""
        sealed = {suffix: file.seal() for suffix, (_, file) in self._files.items()}
        for suffix, (path, _) in self._files.items():
            self.place.publish(path, f"{self.folder}/parts/{self.key}{suffix}")
        self._files.clear()
        return dict(sorted(sealed.items()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for path, file in self._files.values():
            file.close()
            path.unlink(missing_ok=True)


class TableWriter:
    """Tables in, Parquet with fixed row groups out: the bytes do not depend on how the rows were batched."""

    def __init__(self, file: BinaryIO, schema: pa.Schema, addresses: bool = False) -> None:
        """`addresses`: int64 columns hold values that hardly repeat. Their bytes are stored by place, the first of all values
        and so on: edges take 5.8 bytes so, and 7.2 and a third more time as packed differences.
        """
        self.schema, self.rows = schema, 0
        split = [f.name for f in schema if addresses and f.type == pa.int64()]
        others = [name for name in schema.names if name not in split]
        self._writer = pq.ParquetWriter(
            file, schema, compression={**dict.fromkeys(others, "zstd"), **dict.fromkeys(split, "lz4")},
            compression_level=dict.fromkeys(others, 1), write_statistics=True, store_schema=True, write_page_index=False,
            use_dictionary=others, column_encoding=dict.fromkeys(split, "BYTE_STREAM_SPLIT") or None,
        )  # fmt: skip
        self._held: list[pa.Table] = []
        self._count = 0

    def write(self, table: pa.Table) -> None:
        """Take rows; columns are brought into the declared order and types."""
        table = table.select(self.schema.names).cast(self.schema)
        self.rows += table.num_rows
        self._held.append(table)
        self._count += table.num_rows
        while self._count >= ROW_GROUP:
            self._flush(ROW_GROUP)

    def _flush(self, rows: int) -> None:
        whole = pa.concat_tables(self._held)
        self._writer.write_table(whole.slice(0, rows).combine_chunks(), row_group_size=max(rows, 1))
        rest = whole.slice(rows)
        self._held, self._count = [rest], rest.num_rows

    def abandon(self) -> None:
        """Forget the file: its draft is being removed, and nobody will read a footer."""
        self._writer.is_open = False

    def close(self) -> None:
        """Write what is held and the footer."""
        if self._count:
            self._flush(self._count)
        self._writer.close()


def file_digest(path: Path | str) -> tuple[int, str]:
    """Size and sha256 of a file or of what a URL names, read in pieces."""
    place, key = at(str(path))
    with place.open(key) as file:
        digest = hashlib.file_digest(cast("io.BufferedReader", file), "sha256").hexdigest()
        return file.tell(), digest
