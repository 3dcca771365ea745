"""JSON lines, compressed with zstd."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa
import zstandard
from pydantic import Field

from stages.columns import Written
from stages.contract import FileGroup, export_stage
from stages.export.listing import listing


class Jsonl(Written):
    """What is written, and how."""

    rename: dict[str, str] = Field({}, description="Other names in the file, such as {id: warc_record_id}.")
    level: int = Field(3, description="Level of zstd.", ge=1, le=22)


def _finish(summaries: Sequence[Mapping[str, Any]], _params: Jsonl) -> dict[str, bytes]:
    return listing(summaries, ".jsonl.zst")


@export_stage(version=1, reads=lambda params: params.written(), finish=_finish, libraries=("zstandard", "orjson"))
def files(batches: Iterable[pa.Table], params: Jsonl, files: FileGroup) -> Mapping[str, Any]:
    """Write a shard as one `.jsonl.zst` file, an object a line; nulls are written as null. `files.json` lists all files."""
    names = list(params.written())
    shown = [params.rename.get(name, name) for name in names]
    rows = 0
    with zstandard.ZstdCompressor(level=params.level).stream_writer(files.open(".jsonl.zst"), closefd=False) as out:
        for batch in batches:
            rows += batch.num_rows
            for values in zip(*(batch[name].to_pylist() for name in names), strict=True):
                out.write(orjson.dumps(dict(zip(shown, values, strict=True)), option=orjson.OPT_APPEND_NEWLINE))
    return {"rows": rows}
