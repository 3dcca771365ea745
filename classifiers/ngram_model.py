"""Train an n-gram model as steps of a recipe: counts, then the model as a table, then the file that KenLM reads.

counts  Reduce  text -> n-grams with their counts, in partitions        estimate  Reduce  counts -> the model, one row an n-gram
arpa    Export  the model -> one `.arpa` file for `classifiers.perplexity.score`

Counting scales with its partitions. The estimate is one process that holds all n-grams (see `classifiers.kneser_ney`); beyond
some ten million tokens sample the corpus first (`stages.sample`), as CCNet does, or train with lmplz.
"""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from pydantic import Field

from classifiers.kneser_ney import Gram, arpa_lines, counted, estimated, header
from classifiers.perplexity import cutter
from classifiers.sentences import sentences
from stages.contract import TEXT, FileGroup, Params, export_stage, file, reduce_stage

COUNTS = {"ngram": pa.string(), "order": pa.int8(), "count": pa.int64()}
MODEL = {"order": pa.int8(), "ngram": pa.string(), "line": pa.string()}
KEYED = {"key": pa.uint64()}
NAMED = {"id": pa.string()}
"""A row of either table is named by a hash of its n-gram."""
SLICE = 100_000
"""Rows of a table that a settle yields."""


class Counting(Params):
    """What is counted."""

    order: int = Field(5, ge=2, le=6, description="Words of the longest n-grams; CCNet trains with 5.")
    vocabulary: str | None = file(None, "SentencePiece vocabulary whose pieces are the tokens; null: words and marks.")
    partitions: int = Field(16, ge=1, description="Parts of the exchange; the n-grams of one part must fit into memory.")


class Estimate(Params):
    """The estimate has no choices: interpolated modified Kneser-Ney with the discounts that the counts give."""


class Arpa(Params):
    """How the file is written."""

    compressed: bool = Field(False, description="Write `.arpa.gz`, which KenLM reads as well, instead of `.arpa`.")


def _keys(ngrams: Iterable[str]) -> pa.Array:
    return pa.array([xxhash.xxh3_64_intdigest(ngram) for ngram in ngrams], pa.uint64())


def _ids(ngrams: Iterable[str]) -> pa.Array:
    return pa.array([xxhash.xxh3_128_hexdigest(ngram) for ngram in ngrams], pa.string())


def _summed(batches: Iterator[pa.Table], _params: Counting, **_given: Any) -> Iterator[pa.Table]:
    for batch in batches:
        table = batch.group_by(["key", "ngram", "order"], use_threads=False).aggregate([("count", "sum")])
        ordered = table.sort_by([("key", "ascending"), ("ngram", "ascending")]).rename_columns({"count_sum": "count"})
        yield ordered.select(list(COUNTS)).cast(pa.schema(COUNTS)).add_column(0, "id", _ids(ordered["ngram"].to_pylist()))


@reduce_stage(
    version=1,
    reads={"text": TEXT},
    emits=KEYED | COUNTS,
    writes=NAMED | COUNTS,
    settle=_summed,
    result="dataset",
    model=cutter,
    libraries=("xxhash",),
)
def counts(batch: pa.Table, params: Counting, *, model: Callable[[str], list[str]]) -> pa.Table:
    """Count the n-grams of every order in `text`, line by line, normalised as `classifiers.perplexity.score` does.

    Out come `ngram` (tokens between spaces, `<s>` and `</s>` among them), `order` (its number of tokens) and `count`.
    """
    lines = (line for text in batch["text"].to_pylist() if text for line in sentences(text, model))
    found: list[Counter[Gram]] = counted(lines, params.order)
    ngrams = [" ".join(gram) for level in found for gram in level]
    columns = {
        "ngram": pa.array(ngrams, pa.string()),
        "order": pa.array(np.repeat(np.arange(1, len(found) + 1), [len(level) for level in found]), pa.int8()),
        "count": pa.array([count for level in found for count in level.values()], pa.int64()),
    }
    return pa.table({"key": _keys(ngrams), **columns})


def _model(batches: Iterator[pa.Table], _params: Estimate) -> Iterator[pa.Table]:
    """The whole model, n-grams in order of length and words. ValueError when no line was counted."""
    levels: dict[int, Counter[Gram]] = {}
    for batch in batches:
        for ngram, order, count in zip(*(batch[name].to_pylist() for name in COUNTS), strict=True):
            levels.setdefault(order, Counter())[tuple(ngram.split(" "))] = count
    model = estimated([levels[order] for order in sorted(levels)])
    for order in range(1, len(model.probabilities) + 1):
        rows = list(arpa_lines(model, order))
        for at in range(0, len(rows), SLICE):
            ngrams, lines = zip(*rows[at : at + SLICE], strict=True)
            yield pa.table({"id": _ids(ngrams), "order": pa.array([order] * len(lines), pa.int8()), "ngram": ngrams, "line": lines})


@reduce_stage(
    version=1,
    libraries=("xxhash",),
    reads=COUNTS,
    emits=KEYED | COUNTS,
    writes=NAMED | MODEL,
    settle=_model,
    result="dataset",
    partitions=lambda _params: 1,
)
def estimate(batch: pa.Table, params: Estimate) -> pa.Table:
    """Turn counts into a model: interpolated modified Kneser-Ney (Chen and Goodman, 1998) as KenLM's lmplz estimates it.

    Out come `order`, `ngram`, and its `line` in ARPA format: log10 probability, n-gram, and log10 weight for backing off.
    """
    del params
    return batch.select(list(COUNTS)).add_column(0, "key", _keys(batch["ngram"].to_pylist()))


def _finish(summaries: Sequence[Mapping[str, Any]], _params: Arpa) -> dict[str, bytes]:
    if sum(summary["rows"] > 0 for summary in summaries) != 1:
        raise ValueError(
            "classifiers.ngram_model.arpa: a model is one shard; read the step of classifiers.ngram_model.estimate alone"
        )
    return {}


@export_stage(version=1, reads=MODEL, finish=_finish)
def arpa(batches: Iterable[pa.Table], params: Arpa, files: FileGroup) -> Mapping[str, Any]:
    """Write the model as one file in ARPA format; its path is what `classifiers.perplexity.score` takes as `model`."""
    tables = [batch.select(list(MODEL)) for batch in batches]
    table = pa.concat_tables(tables) if tables else pa.schema(MODEL).empty_table()
    sizes = [pc.sum(pc.equal(table["order"], order)).as_py() for order in range(1, (pc.max(table["order"]).as_py() or 0) + 1)]
    out: Any = files.open(".arpa.gz" if params.compressed else ".arpa")
    if params.compressed:
        out = gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=out, mtime=0)
    out.write(header(sizes).encode())
    for order in range(1, len(sizes) + 1):
        out.write(f"\n\\{order}-grams:\n".encode())
        for chunk in table.filter(pc.equal(table["order"], order))["line"].chunks:
            out.write("".join(chunk.to_pylist()).encode())
    out.write(b"\n\\end\\\n")
    if params.compressed:
        out.close()
    return {"rows": table.num_rows, "ngrams": sizes}
