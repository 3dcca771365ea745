"""Tokens and nothing else: one array a shard, as nanoGPT maps it into memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from stages.contract import TEXT, FileGroup, export_stage
from stages.tokenizers import LIBRARIES, Tokenizer, Vocabulary, open_tokenizer, special


class Flat(Vocabulary):
    """What stands in the token stream."""

    eod: bool = Field(True, description="End every document with the end-of-document token.")
    bos: bool = Field(False, description="Begin every document with the begin token.")


def _open(params: Flat) -> Tokenizer:
    tokenizer = open_tokenizer(params)
    for kind in ("eod", "bos"):
        if getattr(params, kind):
            special(params, kind, tokenizer)
    return tokenizer


def _finish(summaries: Sequence[Mapping[str, Any]], _params: Flat) -> dict[str, bytes]:
    """`flat.json`: the type of a token, and the files with their tokens."""
    parts = sorted(summaries, key=lambda s: str(s["name"]))
    facts: dict[str, Any] = {"dtype": parts[0]["dtype"] if parts else None, "tokens": sum(int(s["tokens"]) for s in parts)}
    facts["files"] = [{"file": f"{s['name']}.bin", "tokens": s["tokens"]} for s in parts]
    return {"flat.json": orjson.dumps(facts, option=orjson.OPT_INDENT_2) + b"\n"}


@export_stage(version=1, reads={"id": pa.string(), "text": TEXT}, finish=_finish, libraries=LIBRARIES, model=_open)
def tokens(batches: Iterable[pa.Table], params: Flat, files: FileGroup, *, model: Tokenizer) -> Mapping[str, Any]:
    """Write a shard as `.bin`: its tokens one after the other, uint16 for up to 65,536 ids and int32 beyond, little endian.

    `numpy.memmap(path, dtype=..., mode="r")` reads it (nanoGPT's data loader). `.docs.parquet` leads back from token ranges
    to ids. Rows without text are counted as `empty`.
    """
    dtype = np.dtype("<u2" if model.vocab_size <= 2**16 else "<i4")
    before = [special(params, "bos", model)] if params.bos else []
    after = [special(params, "eod", model)] if params.eod else []
    out, ids, counts, rows = files.open(".bin"), list[str](), list[int](), 0
    for batch in batches:
        rows += batch.num_rows
        full = [(row, text) for row, text in zip(batch["id"].to_pylist(), batch["text"].to_pylist(), strict=True) if text]
        for (row, _), encoded in zip(full, model.encode([text for _, text in full]), strict=True):
            document = np.concatenate([before, encoded, after]).astype(dtype)
            out.write(document.data)
            ids.append(row)
            counts.append(len(document))
    lengths = np.array(counts, np.int64)
    table = {"id": pa.array(ids, pa.string()), "start": np.cumsum(lengths) - lengths, "tokens": lengths}
    pq.write_table(pa.table(table), files.open(".docs.parquet"), compression="zstd")
    return {"rows": rows, "documents": len(ids), "empty": rows - len(ids), "tokens": int(lengths.sum()), "dtype": dtype.name}
