"""Megatron's indexed dataset: `.bin` and `.idx` for each shard, and the blend file of the whole."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from stages.contract import TEXT, FileGroup, export_stage
from stages.tokenizers import LIBRARIES, Tokenizer, Vocabulary, open_tokenizer, special

MAGIC = b"MMIDIDX\x00\x00"
DTYPE_CODES = {"uint16": 8, "int32": 4}
SMALL_VOCABULARY = 65_500
"""Megatron's own limit for 16-bit tokens (indexed_dataset.py, DType.optimal_dtype)."""


class Megatron(Vocabulary):
    """What stands in the token stream."""

    eod: bool = Field(True, description="End every document with the end-of-document token.")
    bos: bool = Field(False, description="Begin every document with the begin token.")
    dtype: Literal["auto", "uint16", "int32"] = Field("auto", description="Token type; auto: uint16 for under 65,500 tokens.")
    prefix: str = Field("", description="Put before every name in blend.txt, such as the folder's path on the training machine.")


def _open(params: Megatron) -> Tokenizer:
    tokenizer = open_tokenizer(params)
    for kind in ("eod", "bos"):
        if getattr(params, kind):
            special(params, kind, tokenizer)
    if params.dtype == "uint16" and tokenizer.vocab_size > 2**16:
        raise ValueError(f"{params.tokenizer} has {tokenizer.vocab_size:,} tokens: they do not fit into uint16")
    return tokenizer


def _finish(summaries: Sequence[Mapping[str, Any]], params: Megatron) -> dict[str, bytes]:
    """`blend.txt` for --data-args-path (weight and prefix, by turns; shards without tokens left out) and `megatron.json`."""
    full = sorted((s for s in summaries if s["tokens"]), key=lambda s: str(s["name"]))
    names = [params.prefix + str(s["name"]) for s in full]
    if bad := next((name for name in names if len(name.split()) != 1), None):
        raise ValueError(f"Megatron splits its blend file at white space, and {bad!r} holds some: choose another prefix")
    blend = "".join(f"{s['tokens']} {name}\n" for s, name in zip(full, names, strict=True))
    totals = {key: sum(int(s[key]) for s in summaries) for key in ("rows", "documents", "empty", "tokens")}
    facts = {key: full[0][key] for key in ("dtype", "vocab_size", "eod_id", "bos_id")} if full else {}
    return {"blend.txt": blend.encode(), "megatron.json": orjson.dumps({**totals, **facts}, option=orjson.OPT_INDENT_2) + b"\n"}


@export_stage(version=1, reads={"id": pa.string(), "text": TEXT}, finish=_finish, libraries=LIBRARIES, model=_open)
def shards(batches: Iterable[pa.Table], params: Megatron, files: FileGroup, *, model: Tokenizer) -> Mapping[str, Any]:
    """Write a shard as Megatron-LM reads it (megatron/core/datasets/indexed_dataset.py): one sequence a document.

    `.bin` holds the tokens, `.idx` lengths and offsets, `.docs.parquet` the way back: `document` (index in the shard),
    `id`, `start` and `tokens`. Rows without text become no document and are counted as `empty`.
    """
    small = params.dtype == "uint16" or (params.dtype == "auto" and model.vocab_size < SMALL_VOCABULARY)
    dtype = np.dtype("<u2" if small else "<i4")
    before, after = _marks(params, model)
    lengths: list[int] = []
    ids: list[str] = []
    rows = 0
    out = files.open(".bin")
    for batch in batches:
        rows += batch.num_rows
        for row, tokens in _documents(batch, model):
            document = np.concatenate([before, tokens, after])
            out.write(document.astype(dtype).tobytes())
            lengths.append(len(document))
            ids.append(row)
    counts = np.array(lengths, np.int32)
    _write_index(files, counts, dtype)
    _write_documents(files, ids, counts)
    facts = {"dtype": dtype.name, "vocab_size": model.vocab_size, "eod_id": after.tolist(), "bos_id": before.tolist()}
    return {"rows": rows, "documents": len(ids), "empty": rows - len(ids), "tokens": int(counts.sum(dtype=np.int64)), **facts}


def _marks(params: Megatron, model: Tokenizer) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    before = [special(params, "bos", model)] if params.bos else []
    after = [special(params, "eod", model)] if params.eod else []
    return np.array(before, np.int32), np.array(after, np.int32)


def _documents(batch: pa.Table, model: Tokenizer) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    pairs = [(row, text) for row, text in zip(batch["id"].to_pylist(), batch["text"].to_pylist(), strict=True) if text]
    encoded = model.encode([text for _, text in pairs])
    return ((row, tokens) for (row, _), tokens in zip(pairs, encoded, strict=True) if len(tokens))


def _write_index(files: FileGroup, lengths: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> None:
    """Header, lengths (int32), byte offsets (int64), and where documents begin: at every sequence, closed by their number."""
    offsets = np.zeros(len(lengths), np.int64)
    np.cumsum(lengths[:-1], dtype=np.int64, out=offsets[1:])
    out = files.open(".idx")
    out.write(MAGIC + struct.pack("<QBQQ", 1, DTYPE_CODES[dtype.name], len(lengths), len(lengths) + 1))
    out.write(lengths.astype("<i4").tobytes())
    out.write((offsets * dtype.itemsize).astype("<i8").tobytes())
    out.write(np.arange(len(lengths) + 1, dtype="<i8").tobytes())


def _write_documents(files: FileGroup, ids: list[str], lengths: np.ndarray[Any, Any]) -> None:
    ends = np.cumsum(lengths, dtype=np.int64)
    table = pa.table(
        {
            "document": np.arange(len(ids), dtype=np.int64),
            "id": pa.array(ids, pa.string()),
            "start": ends - lengths,
            "tokens": lengths,
        }
    )
    pq.write_table(table, files.open(".docs.parquet"), compression="zstd")
