"""Megatron's indexed dataset: `.bin` and `.idx` for each shard (and source), and the blend files of the whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from stages.contract import TEXT, FileGroup, export_stage
from stages.engines import Flat
from stages.export.indexed import SMALL_VOCABULARY, Ends, IndexedFiles
from stages.tokenizers import LIBRARIES, Tokenizer, Vocabulary, open_tokenizer, special

Key = tuple[str, ...]
NAME = re.compile(r"[A-Za-z0-9_-]+\Z")
"""What may stand in a file name and, by Megatron's splitting at white space, in a blend."""


class Megatron(Vocabulary):
    """What stands in the token stream, and in which files."""

    eod: bool = Field(True, description="End every document with the end-of-document token.")
    bos: bool = Field(False, description="Begin every document with the begin token.")
    dtype: Literal["auto", "uint16", "int32"] = Field("auto", description="Token type; auto: uint16 for under 65,500 tokens.")
    split_by: tuple[str, ...] = Field(
        (),
        description="Columns whose values get files of their own in every shard, such as [phase, step]; one blend for each phase.",
    )
    valid: int = Field(0, ge=0, description="Shards held out for validation: the last before those for testing.")
    test: int = Field(0, ge=0, description="Shards held out for testing: the last ones.")
    prefix: str = Field("", description="Put before every name in a blend, such as the folder's path on the training machine.")


def _open(params: Megatron) -> Tokenizer:
    tokenizer = open_tokenizer(params)
    for kind in ("eod", "bos"):
        if getattr(params, kind):
            special(params, kind, tokenizer)
    if params.dtype == "uint16" and tokenizer.vocab_size > 2**16:
        raise ValueError(f"{params.tokenizer} has {tokenizer.vocab_size:,} tokens: they do not fit into uint16")
    return tokenizer


def _reads(params: Megatron) -> dict[str, pa.DataType]:
    return {"id": pa.string(), "text": TEXT, **dict.fromkeys(params.split_by, pa.string()), "copies": pa.int32()}


def _finish(summaries: Sequence[Mapping[str, Any]], params: Megatron) -> dict[str, bytes]:
    """The blends in every form that Megatron's arguments take, and `megatron.json` with the totals.

    `blend.txt` (weight and prefix by turns: --data-path or --data-args-path), `prefixes.txt` (no weights: sampled by length)
    and `splits.json` (flat lists for train, valid and test: --per-split-data-args-path). With `split_by` also a set for each
    value of its first column, such as `blend-phase1.txt`. Files without tokens are left out. Weights are tokens, a document
    counted as often as its `copies` say.
    """
    shards = sorted(summaries, key=lambda s: str(s["name"]))
    held = params.valid + params.test
    if held and held >= len(shards):
        raise ValueError(f"{held} shards are held out for validation and testing, and there are {len(shards)}: make more shards")
    kinds = ["train"] * (len(shards) - held) + ["valid"] * params.valid + ["test"] * params.test
    entries = [
        {**group, "name": f"{params.prefix}{shard['name']}{group['stem']}", "kind": kind}
        for shard, kind in zip(shards, kinds, strict=True)
        for group in shard["groups"]
        if group["tokens"]
    ]
    if bad := next((e["name"] for e in entries if len(e["name"].split()) != 1), None):
        raise ValueError(f"Megatron splits its blend file at white space, and {bad!r} holds some: choose another prefix")
    files = _blends(entries, "")
    for value in sorted({entry["values"][0] for entry in entries if entry["values"]}):
        files |= _blends([entry for entry in entries if entry["values"][0] == value], f"-{value}")
    return files | {"megatron.json": orjson.dumps(_totals(shards, entries), option=orjson.OPT_INDENT_2) + b"\n"}


def _blends(entries: Sequence[Mapping[str, Any]], label: str) -> dict[str, bytes]:
    def flat(kind: str) -> list[str] | None:
        return [word for e in entries if e["kind"] == kind for word in (str(e["weight"]), e["name"])] or None

    blend = "".join(f"{e['weight']} {e['name']}\n" for e in entries if e["kind"] == "train")
    prefixes = "".join(f"{e['name']}\n" for e in entries if e["kind"] == "train")
    splits = orjson.dumps({kind: flat(kind) for kind in ("train", "valid", "test")}, option=orjson.OPT_INDENT_2)
    return {f"blend{label}.txt": blend.encode(), f"prefixes{label}.txt": prefixes.encode(), f"splits{label}.json": splits + b"\n"}


def _totals(shards: Sequence[Mapping[str, Any]], entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    totals: dict[str, Any] = {key: sum(int(s[key]) for s in shards) for key in ("rows", "documents", "empty", "tokens")}
    facts = {key: shards[0][key] for key in ("dtype", "vocab_size", "eod_id", "bos_id")} if shards else {}
    groups: dict[tuple[str, ...], dict[str, Any]] = {}
    for entry in entries:
        group = groups.setdefault(tuple(entry["values"]), {"values": entry["values"], "documents": 0, "tokens": 0, "weight": 0})
        for key in ("documents", "tokens", "weight"):
            group[key] += entry[key]
    return totals | facts | {"groups": [groups[key] for key in sorted(groups)]}


@export_stage(version=2, reads=_reads, optional=("copies",), finish=_finish, libraries=LIBRARIES, model=_open)
def shards(batches: Iterable[pa.Table], params: Megatron, files: FileGroup, *, model: Tokenizer) -> Mapping[str, Any]:
    """Write a shard as Megatron-LM reads it: one sequence a document; with `split_by` one set of files for each value.

    `.bin` holds the tokens, `.idx` lengths and offsets, `.docs.parquet` the way back: `document` (index in the file), `id`,
    `start` and `tokens`. Rows without text become no document and are counted as `empty`. Raises ValueError where rows count
    several times (`copies`) in files that all sources share: such a repeat is a weight of the file.
    """
    small = params.dtype == "uint16" or (params.dtype == "auto" and model.vocab_size < SMALL_VOCABULARY)
    dtype = np.dtype("<u2" if small else "<i4")
    ends = _marks(params, model)
    written: dict[Key, IndexedFiles] = {} if params.split_by else {(): IndexedFiles(files, "", dtype)}
    rows = 0
    for batch in batches:
        rows += batch.num_rows
        for key, ids, tokens, copies in _documents(batch, params, model):
            if key not in written:
                written[key] = IndexedFiles(files, "".join(f".{value}" for value in key), dtype)
            written[key].add(ids, tokens, copies, ends)
    groups = [{"values": list(key), **written[key].close()} for key in sorted(written)]
    count, tokens = (sum(group[name] for group in groups) for name in ("documents", "tokens"))
    return {
        "rows": rows, "documents": count, "empty": rows - count, "tokens": tokens, "groups": groups, "dtype": dtype.name,
        "vocab_size": model.vocab_size, "eod_id": ends[1].tolist(), "bos_id": ends[0].tolist(),
    }  # fmt: skip


def _marks(params: Megatron, model: Tokenizer) -> Ends:
    before = [special(params, "bos", model)] if params.bos else []
    after = [special(params, "eod", model)] if params.eod else []
    return np.array(before, np.int32), np.array(after, np.int32)


def _documents(batch: pa.Table, params: Megatron, model: Tokenizer) -> Iterator[tuple[Key, list[str], Flat, NDArray[np.int64]]]:
    """Key, ids, tokens and copies of the rows that have any token, by the values of the columns that files are split by."""
    there = "copies" in batch.column_names
    copies = batch["copies"].fill_null(1).to_numpy().astype(np.int64) if there else np.ones(batch.num_rows, np.int64)
    if copies.max(initial=1) > 1 and not params.split_by:
        raise ValueError("rows count several times here (copies): set split_by to [phase, step], or take the mixture as written")
    flat, counts = model.flat(batch["text"])
    keys, codes = _keys(batch, params)
    for code, key in enumerate(keys):
        mine = (codes == code) & (counts > 0)
        if mine.all():
            yield key, batch["id"].to_pylist(), (flat, counts), copies
        elif mine.any():
            ids = batch["id"].filter(pa.array(mine)).to_pylist()
            yield key, ids, (flat[np.repeat(mine, counts)], counts[mine]), copies[mine]


def _keys(batch: pa.Table, params: Megatron) -> tuple[list[Key], NDArray[np.int64]]:
    """The values of the columns that files are split by in the order of their first row, and which of them each row has."""
    if not params.split_by:
        return [()], np.zeros(batch.num_rows, np.int64)
    codes: dict[tuple[str | None, ...], int] = {}
    rows = zip(*(batch[name].to_pylist() for name in params.split_by), strict=True)
    found = [codes.setdefault(values, len(codes)) for values in rows]
    return [_key(values, params) for values in codes], np.array(found, np.int64)


def _key(values: tuple[str | None, ...], params: Megatron) -> tuple[str, ...]:
    for name, value in zip(params.split_by, values, strict=True):
        if not NAME.match(value or ""):
            raise ValueError(f"the value {value!r} of '{name}' cannot stand in a file name: use letters, digits, _ and -")
    return tuple(str(value) for value in values)
