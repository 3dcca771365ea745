"""Is the ensemble what one thinks it is? Histograms, overlap of best buckets, mass of labels, samples and drift, as one dataset.

Rows of several kinds, each with the columns it needs and nulls elsewhere (`low`, `high` are score limits, open where null):

    histogram  column, low, high, documents                 scores in equal steps between the outermost cut points
    bucket     column, bucket, documents, bytes, tokens, share       `column` null: the ensemble
    label      label, documents, bytes, tokens, share
    overlap    column, other, documents, total, share       documents in the top buckets of both, of either, and their ratio;
               `other` null: in the top of `column` alone. Nemotron-CC found 10 % for FineWeb-Edu and DCLM (table 4)
    drift      column, bucket, documents, share, expected   share found and share where the cut points were made
    stability  column, share                                population stability index over the buckets; by the usual rule of
               credit scoring below 0.1 nothing happened, above 0.25 the cut points belong to other documents
    sample     bucket, label, document, url, text           documents drawn by a hash of their ids
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray
from pydantic import Field

from classifiers.buckets import cuts_by_column, scores_of
from classifiers.quantiles import bucket_of
from classifiers.scale import SCORE
from stages.contract import TEXT, Params, Unusable, reduce_stage

REPORT = pa.schema(
    [
        ("id", pa.string()), ("kind", pa.string()), ("column", pa.string()), ("other", pa.string()), ("bucket", pa.int32()),
        ("label", pa.string()), ("low", SCORE), ("high", SCORE), ("documents", pa.int64()), ("bytes", pa.int64()),
        ("tokens", pa.int64()), ("total", pa.int64()), ("share", pa.float64()), ("expected", pa.float64()),
        ("document", pa.string()), ("url", pa.string()), ("text", TEXT),
    ]
)  # fmt: skip
CELL = ("histogram", "bucket", "label", "top", "both", "sample")
EMITS = {
    "key": pa.uint64(), "kind": pa.string(), "a": pa.int32(), "b": pa.int32(), "label": pa.string(), "documents": pa.int64(),
    "bytes": pa.int64(), "tokens": pa.int64(), "document": pa.string(), "url": pa.string(), "text": TEXT,
}  # fmt: skip
SCHEMA = pa.schema(list(EMITS.items()))
EXCERPT = 500


class Report(Params):
    """What is looked at."""

    columns: tuple[str, ...] = Field(..., min_length=1, description="Score columns, as in cut_points.")
    bins: int = Field(30, ge=2, le=1000, description="Steps of a histogram between the outermost cut points.")
    top: int | None = Field(None, ge=1, description="Lowest bucket that counts as the top for overlaps; null: the highest alone.")
    samples: int = Field(5, ge=0, le=100, description="Documents drawn from each bucket.")
    seed: int = Field(0, ge=0, description="Seed of the draw.")


def edges_of(cuts: NDArray[np.float32], bins: int) -> NDArray[np.float32]:
    """Inner edges of a histogram: equal steps from the first to the last cut point; fewer where the cuts are all alike."""
    return np.unique(np.linspace(cuts[0], cuts[-1], bins - 1).astype(np.float32))


def _sums(kind: str, a: int, where: NDArray[np.int64], sizes: NDArray[np.int64]) -> list[dict[str, Any]]:
    """A row for every value of `where` (-1: left out) with documents, bytes and tokens summed."""
    found = []
    for value in np.unique(where[where >= 0]).tolist():
        documents, size, tokens = sizes[where == value].sum(axis=0).tolist()
        found.append({"kind": kind, "a": a, "b": value, "documents": documents, "bytes": size, "tokens": tokens})
    return found


def _keyed(table: pa.Table, params: Report) -> pa.Table:
    """Cells of one name summed, and of each bucket's samples those with the smallest keys: associative, in any order."""
    drawn = pc.equal(table["kind"], "sample")
    samples = table.filter(drawn).sort_by([("a", "ascending"), ("key", "ascending")])
    places = samples["a"].to_numpy()
    rank = np.arange(len(places)) - np.searchsorted(places, places)
    cells = table.filter(pc.invert(drawn)).group_by(["key", "kind", "a", "b", "label"], use_threads=False)
    summed = cells.aggregate([(n, "sum") for n in ("documents", "bytes", "tokens")])
    summed = summed.rename_columns([n.removesuffix("_sum") for n in summed.column_names])
    for name in ("document", "url", "text"):
        summed = summed.append_column(name, pa.nulls(summed.num_rows, EMITS[name]))
    return pa.concat_tables([summed.select(SCHEMA.names).cast(SCHEMA), samples.filter(pa.array(rank < params.samples))])


def _samples(batch: pa.Table, params: Report) -> list[dict[str, Any]]:
    texts = pc.utf8_slice_codeunits(batch["text"], 0, EXCERPT)
    values = zip(*(batch[n].to_pylist() for n in ("id", "url", "bucket", "label")), texts.to_pylist(), strict=True)
    return [
        {"kind": "sample", "key": xxhash.xxh3_64_intdigest(i, params.seed), "a": b, "label": k, "document": i, "url": u, "text": t}
        for i, u, b, k, t in values
        if b is not None
    ]


def _label_sums(batch: pa.Table, sizes: NDArray[np.int64]) -> list[dict[str, Any]]:
    column = batch["label"].combine_chunks().dictionary_encode()
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    where = pc.fill_null(column.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return [row | {"label": column.dictionary[row["b"]].as_py(), "b": 0} for row in _sums("label", 0, where, sizes)]


def _settle(batches: Iterator[pa.Table], params: Report, *, cuts: pa.Table) -> Iterator[pa.Table]:
    tables = list(batches)
    if not tables:
        return
    table = _keyed(pa.concat_tables(tables), params)
    rows = table.sort_by([("kind", "ascending"), ("a", "ascending"), ("b", "ascending"), ("key", "ascending")]).to_pylist()
    kinds: dict[str, list[dict[str, Any]]] = {kind: [r for r in rows if r["kind"] == kind] for kind in CELL}
    made = [*_histograms(kinds["histogram"], params, cuts), *_masses(kinds, params), *_overlaps(kinds, params)]
    made += _drifts(kinds["bucket"], params, cuts)
    made += [
        {**{n: r[n] for n in ("label", "document", "url", "text")}, "kind": "sample", "bucket": r["a"]} for r in kinds["sample"]
    ]
    yield pa.Table.from_pylist(made, schema=REPORT)


def _histograms(rows: list[dict[str, Any]], params: Report, cuts: pa.Table) -> Iterator[dict[str, Any]]:
    by_column = cuts_by_column(cuts, params.columns)
    for index, column in enumerate(params.columns):
        edges: list[float | None] = [None, *edges_of(by_column[column], params.bins).tolist(), None]
        held = {r["b"]: r["documents"] for r in rows if r["a"] == index}
        for at in range(len(edges) - 1):
            yield {"kind": "histogram", "column": column, "low": edges[at], "high": edges[at + 1], "documents": held.get(at, 0)}


def _masses(kinds: dict[str, list[dict[str, Any]]], params: Report) -> Iterator[dict[str, Any]]:
    sizes = ("documents", "bytes", "tokens")
    names = [None, *params.columns]
    totals = {a: sum(r["documents"] for r in kinds["bucket"] if r["a"] == a) for a in range(len(names))}
    for r in kinds["bucket"]:
        share = r["documents"] / totals[r["a"]]
        yield {"kind": "bucket", "column": names[r["a"]], "bucket": r["b"], **{n: r[n] for n in sizes}, "share": share}
    everything = sum(r["documents"] for r in kinds["label"])
    for r in sorted(kinds["label"], key=lambda r: str(r["label"])):
        yield {"kind": "label", "label": r["label"], **{n: r[n] for n in sizes}, "share": r["documents"] / everything}


def _overlaps(kinds: dict[str, list[dict[str, Any]]], params: Report) -> Iterator[dict[str, Any]]:
    both = {(r["a"], r["b"]): r["documents"] for r in kinds["both"]}
    alone = {r["a"]: r["documents"] for r in kinds["top"]}
    for i, column in enumerate(params.columns):
        mine = both.get((i, i), 0)
        yield {
            "kind": "overlap",
            "column": column,
            "documents": alone.get(i, 0),
            "total": mine,
            "share": alone.get(i, 0) / mine if mine else None,
        }
        for j in range(i + 1, len(params.columns)):
            common = both.get((i, j), 0)
            either = mine + both.get((j, j), 0) - common
            share = common / either if either else None
            yield {
                "kind": "overlap",
                "column": column,
                "other": params.columns[j],
                "documents": common,
                "total": either,
                "share": share,
            }


def _drifts(rows: list[dict[str, Any]], params: Report, cuts: pa.Table) -> Iterator[dict[str, Any]]:
    for index, column in enumerate(params.columns):
        table = cuts.filter(pc.equal(cuts["column"], column)).sort_by("bucket")
        expected = np.array(table["documents"].to_pylist(), np.float64)
        held = {r["b"]: r["documents"] for r in rows if r["a"] == index + 1}
        found = np.array([held.get(b, 0) for b in range(len(expected))], np.float64)
        if not found.sum():
            continue
        wanted, got = expected / expected.sum(), found / found.sum()
        for bucket in range(len(expected)):
            numbers = {"documents": int(found[bucket]), "share": float(got[bucket]), "expected": float(wanted[bucket])}
            yield {"kind": "drift", "column": column, "bucket": bucket, **numbers}
        # An empty bucket counts as half a document: the index has a logarithm.
        p, q = np.maximum(got, 0.5 / found.sum()), np.maximum(wanted, 0.5 / expected.sum())
        yield {"kind": "stability", "column": column, "share": round(math.fsum(((p - q) * np.log(p / q)).tolist()), 6)}


@reduce_stage(
    version=1,
    reads=lambda p: {
        **dict.fromkeys(p.columns, SCORE), "id": pa.string(), "url": pa.string(), "text": TEXT, "bucket": pa.int32(),
        "label": pa.string(), "tokens": pa.int64(),
    },
    optional=("tokens",), emits=EMITS, writes={f.name: f.type for f in REPORT}, settle=_settle, combine=_keyed, result="dataset",
    partitions=lambda _params: 1, given=("cuts",), libraries=("xxhash",),
)  # fmt: skip
def report(batch: pa.Table, params: Report, *, cuts: pa.Table) -> pa.Table:
    """The calibration report of documents that `classifiers.buckets.label` has labelled, by the cut points it was given.

    Reads the scores, `bucket`, `label`, `text` and, where it is there, `tokens`. Kinds of rows and their columns: the module's
    docstring. Unusable: cut points of other columns.
    """
    by_column = cuts_by_column(cuts, params.columns)
    top = params.top if params.top is not None else len(next(iter(by_column.values())))
    if top > min(map(len, by_column.values())):
        raise Unusable(f"top {top} is beyond the last bucket, {min(map(len, by_column.values()))}")
    tokens = batch["tokens"] if "tokens" in batch.column_names else pa.nulls(batch.num_rows, pa.int64())
    measured = (pc.binary_length(batch["text"]), tokens)
    plain = [pc.fill_null(m.cast(pa.int64()), 0).to_numpy(zero_copy_only=False) for m in measured]
    sizes = np.stack([np.ones(batch.num_rows, np.int64), *plain], axis=1).astype(np.int64)
    rows = _label_sums(batch, sizes) + (_samples(batch, params) if params.samples else [])
    rows += _sums("bucket", 0, pc.fill_null(batch["bucket"], -1).to_numpy().astype(np.int64), sizes)
    tops = []
    for index, column in enumerate(params.columns):
        scores, known = scores_of(batch, column)
        bucket = np.where(known, bucket_of(scores, by_column[column]), -1).astype(np.int64)
        place = np.where(known, bucket_of(scores, edges_of(by_column[column], params.bins)), -1).astype(np.int64)
        rows += _sums("bucket", index + 1, bucket, sizes) + _sums("histogram", index, place, sizes)
        tops.append(bucket >= top)
    for i, mine in enumerate(tops):
        rows += _sums("top", i, np.where(mine & (np.sum(tops, axis=0) == 1), 0, -1), sizes)
        for j in range(i, len(tops)):
            rows += _sums("both", i, np.where(mine & tops[j], j, -1), sizes)
    return _keyed(pa.Table.from_pylist([{"key": 0, **r} for r in rows], schema=SCHEMA), params)
