"""Scores to ranks: global cut points as a dataset, buckets, and labels (Nemotron-CC, arXiv 2412.02595, section 2.2).

    cut_points  Reduce  score columns -> a dataset of `buckets` rows a column: publish it, and later crawls use it unchanged
    label       Map     scores, given the cuts -> a bucket a column, the ensemble's `bucket` and its `label`
    relabel     Map     `bucket`, given borders (such as classifiers.bucket_loss.borders derives) -> `label`
    published   Source  cut points of an earlier run

Rules. A document at a cut point falls to the lower bucket, so ties never overfill the best one and a constant score puts
everything into bucket 0. With fewer documents than buckets some buckets stay empty. Documents without a score count nowhere
and have no bucket; the ensemble uses the scores there are. Another label border recomputes labels and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from classifiers.quantiles import Counts, bucket_of, cuts_of, held, ordered, values_of
from classifiers.scale import NAME, SCORE
from stages.contract import TEXT, Chunk, Params, Unit, Unusable, knob, map_stage, reduce_stage, source
from stages.ingest import files

Weigh = Literal["documents", "bytes", "tokens"]
CUTS = pa.schema(
    [
        ("id", pa.string()), ("column", pa.string()), ("bucket", pa.int32()), ("above", SCORE),
        ("documents", pa.int64()), ("weight", pa.int64()),
    ]
)  # fmt: skip
LABELS = {"high": 19, "medium_high": 18, "medium": 12, "medium_low": 7, "low": 0}
"""The lowest bucket of each label of Nemotron-CC: 19, 18, 12 to 17, 7 to 11, 0 to 6."""


class CutPoints(Params):
    """What is cut, how finely, and what a document weighs."""

    columns: tuple[str, ...] = Field(..., min_length=1, max_length=64, description="Score columns, higher is better.")
    buckets: int = Field(20, ge=2, le=1000, description="Buckets of equal weight.")
    weigh: Weigh = Field("documents", description="documents: each counts one; bytes: UTF-8 length of text; tokens: that column.")


def weights_of(batch: pa.Table, weigh: Weigh) -> NDArray[np.int64]:
    """What each document weighs; one that weighs nothing moves no cut point."""
    if weigh == "documents":
        return np.ones(batch.num_rows, np.int64)
    sizes = pc.binary_length(batch["text"]) if weigh == "bytes" else batch["tokens"]
    return np.asarray(pc.fill_null(sizes, 0).cast(pa.int64()).to_numpy(), np.int64)


def weighed_columns(weigh: Weigh) -> dict[str, pa.DataType]:
    """The column that a weight is read from."""
    return {"documents": {}, "bytes": {"text": TEXT}, "tokens": {"tokens": pa.int64()}}[weigh]


def scores_of(batch: pa.Table, column: str) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Scores and which of them there are; ValueError where one is no number."""
    values = batch[column].combine_chunks()
    known = np.asarray(pc.is_valid(values).to_numpy(zero_copy_only=False), bool)
    scores = np.asarray(pc.fill_null(values, 0.0).to_numpy(zero_copy_only=False), np.float32)
    if not np.isfinite(scores).all():
        raise ValueError(f"the score '{column}' is {scores[~np.isfinite(scores)][0]}; mend the scorer, such values have no rank")
    return scores, known


def _merged(table: pa.Table, _params: CutPoints) -> pa.Table:
    keys = table["key"].to_numpy()
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])) if len(keys) else np.empty(0, np.int64)
    sums: dict[str, Any] = {
        n: np.add.reduceat(table[n].to_numpy()[order], starts) if len(starts) else [] for n in ("documents", "weight")
    }
    return pa.table({"key": keys[starts], **sums}, schema=table.schema)


def _settle(batches: Iterator[pa.Table], params: CutPoints) -> Iterator[pa.Table]:
    tables = list(batches)
    if not tables:
        return
    table = _merged(pa.concat_tables(tables), params)
    keys, documents, weight = (table[n].to_numpy() for n in ("key", "documents", "weight"))
    index = (keys >> np.uint64(32)).astype(np.int64)
    for number, column in enumerate(params.columns):
        mine = index == number
        if not weight[mine].sum():
            raise Unusable(f"the score '{column}' is null, or weighs nothing, in every document; there is nothing to cut")
        counts = Counts(values_of(keys[mine]), documents[mine], weight[mine])
        cuts = cuts_of(counts, params.buckets)
        size = params.buckets
        above = pa.array(np.append(np.float32(0), cuts), SCORE, mask=np.arange(size) == 0)
        yield pa.table([pa.nulls(size, pa.string()), [column] * size, np.arange(size), above, *held(counts, cuts)], schema=CUTS)


@reduce_stage(
    version=1,
    reads=lambda p: {**dict.fromkeys(p.columns, SCORE), **weighed_columns(p.weigh)},
    emits={"key": pa.uint64(), "documents": pa.int64(), "weight": pa.int64()},
    writes={f.name: f.type for f in CUTS},
    settle=_settle,
    combine=_merged,
    result="dataset",
    partitions=lambda _params: 1,
)
def cut_points(batch: pa.Table, params: CutPoints) -> pa.Table:
    """Exact weighted quantiles of score columns: `column, bucket, above, documents, weight`, a row a bucket.

    A document belongs to the highest bucket whose `above` is below its score. `documents` and `weight` say what the bucket
    holds where the cuts were made, ties included: drift is measured against them. Unusable: a column without any score.
    """
    weight = weights_of(batch, params.weigh)
    keys, rows = [], []
    for number, column in enumerate(params.columns):
        scores, known = scores_of(batch, column)
        keys.append(ordered(scores[known]) | np.uint64(number << 32))
        rows.append(weight[known])
    return pa.table(
        {"key": np.concatenate(keys), "documents": np.ones(sum(map(len, rows)), np.int64), "weight": np.concatenate(rows)}
    )


class Published(Params):
    """Where published cut points lie."""

    paths: list[str] | str = knob([], "Parquet files of cut points, and globs; a list, or separated by commas.")


def _units(params: Published) -> Iterator[Unit]:
    for file in files.expand(params.paths):
        yield Unit(file.name, file.path, file.size, file.witness)


@source(version=1, units=_units, writes={f.name: f.type for f in CUTS if f.name != "id"})
def published(unit: Unit, _params: Published) -> Iterator[Chunk]:
    """Cut points of an earlier run, to be `given` to `label` in place of new ones: buckets then mean what they meant there."""
    import pyarrow.parquet as pq

    with files.open_file(unit.path) as opened:
        table = pq.read_table(opened, columns=[f.name for f in CUTS if f.name != "id"])
    spots = [{"unit": unit.name, "offset": row, "length": 1} for row in range(table.num_rows)]
    kind = pa.struct([("unit", pa.string()), ("offset", pa.int64()), ("length", pa.int64())])
    yield Chunk(table.append_column("origin", pa.array(spots, kind)), table.num_rows)


def cuts_by_column(cuts: pa.Table, columns: tuple[str, ...]) -> dict[str, NDArray[np.float32]]:
    """Cut points of each column in ascending order; Unusable for one that is not there, or where sizes differ."""
    table = cuts.sort_by([("column", "ascending"), ("bucket", "ascending")])
    names = set(table["column"].to_pylist())
    missing = [c for c in columns if c not in names]
    if missing:
        raise Unusable(f"the cut points hold {sorted(names)} and nothing for {missing}; make them from the same columns")
    rows = {c: table.filter(pc.equal(table["column"], c)) for c in columns}
    if len({r.num_rows for r in rows.values()}) > 1:
        raise Unusable(
            f"the cut points hold { ({c: r.num_rows for c, r in rows.items()}) } buckets; an ensemble needs equally many"
        )
    return {c: r["above"].drop_null().combine_chunks().to_numpy(zero_copy_only=False) for c, r in rows.items()}


class Labels(Params):
    """Label names and where each begins."""

    labels: dict[str, int] = Field(LABELS, min_length=1, description="Lowest bucket of each label; one has to begin at 0.")

    def model_post_init(self, _context: Any) -> None:
        """Every bucket has exactly one label."""
        lows = sorted(self.labels.values())
        if lows[0] != 0 or len(set(lows)) < len(lows):
            raise ValueError(f"labels begin at {lows}; one has to begin at 0 and no two at the same bucket")


class Label(Labels):
    """How the buckets of several scores become one, and what it is called."""

    columns: tuple[str, ...] = Field(..., min_length=1, description="Score columns, as in cut_points.")
    combine: Literal["max", "mean", "weights"] = Field("max", description="How their buckets become one; max is Nemotron-CC's.")
    weights: dict[str, float] = Field({}, description="Weight of each column for combine: weights; not negative.")

    def model_post_init(self, context: Any) -> None:
        """Weights name the columns, all of them."""
        super().model_post_init(context)
        if (self.combine == "weights") != bool(self.weights) or (self.weights and set(self.weights) != set(self.columns)):
            raise ValueError(
                f"weights names {sorted(self.weights)}; with combine: weights, and only then, one for each of {self.columns}"
            )
        if self.weights and (min(self.weights.values()) < 0 or not sum(self.weights.values()) > 0):
            raise ValueError("weights must not be negative, and not all zero")


def label_column(bucket: NDArray[np.int32], known: NDArray[np.bool_], labels: dict[str, int]) -> pa.Array:
    """The label whose range holds each bucket; null where there is none."""
    ranked = sorted(labels, key=lambda name: labels[name])
    which = np.searchsorted(np.array([labels[n] for n in ranked]), bucket, side="right") - 1
    return pa.array(ranked, pa.string()).take(pa.array(which, pa.int64(), mask=~known))


def _combined(ranks: NDArray[np.int32], known: NDArray[np.bool_], params: Label) -> NDArray[np.int32]:
    if params.combine == "max":
        return np.asarray(np.where(known, ranks, -1).max(axis=1), np.int32)
    weights = np.array([params.weights.get(c, 1.0) for c in params.columns])
    share = np.where(known, weights, 0.0)
    total = share.sum(axis=1)
    mean = (ranks * share).sum(axis=1) / np.where(total > 0, total, 1.0)
    return np.where(total > 0, np.floor(mean + 0.5), -1).astype(np.int32)


def ranks_of(batch: pa.Table, columns: tuple[str, ...], cuts: pa.Table) -> tuple[NDArray[np.int32], NDArray[np.bool_], int]:
    """Buckets, shape (documents, columns), which of them there are, and how many buckets the cuts make."""
    by_column = cuts_by_column(cuts, columns)
    found = [scores_of(batch, c) for c in columns]
    ranks = np.stack([bucket_of(s, by_column[c]) for c, (s, _) in zip(columns, found, strict=True)], axis=1)
    return ranks, np.stack([k for _, k in found], axis=1), len(by_column[columns[0]]) + 1


@map_stage(
    version=1,
    reads=lambda p: dict.fromkeys(p.columns, SCORE),
    writes=lambda p: {**{f"{c}_bucket": pa.int32() for c in p.columns}, "bucket": pa.int32(), "label": pa.string()},
    given=("cuts",),
)
def label(batch: pa.Table, params: Label, *, cuts: pa.Table) -> pa.Table:
    """Buckets by the cut points: `<column>_bucket` for each score, `bucket` for the ensemble, and its `label`.

    Only the maximum keeps the best bucket of every member. mean and weights round half up and crowd the middle: for buckets
    of equal size take `classifiers.ensemble.score` and cut that. Unusable: cuts of other columns, a label beyond them.
    """
    ranks, known, buckets = ranks_of(batch, params.columns, cuts)
    if max(params.labels.values()) >= buckets:
        raise Unusable(
            f"labels begin at {sorted(params.labels.values())}, but the cut points make {buckets} buckets: 0 to {buckets - 1}"
        )
    bucket = _combined(ranks, known, params)
    some = bucket >= 0
    columns = {f"{c}_bucket": pa.array(ranks[:, i], pa.int32(), mask=~known[:, i]) for i, c in enumerate(params.columns)}
    return pa.table(
        {**columns, "bucket": pa.array(bucket, pa.int32(), mask=~some), "label": label_column(bucket, some, params.labels)}
    )


class Relabel(Params):
    """Nothing to choose: the borders are given."""

    column: str = Field("bucket", pattern=NAME, description="Column of buckets.")


@map_stage(version=1, reads=lambda p: {p.column: pa.int32()}, writes={"label": pa.string()}, given=("borders",))
def relabel(batch: pa.Table, params: Relabel, *, borders: pa.Table) -> pa.Table:
    """The `label` of a bucket by a dataset of borders (`label`, `low`: its lowest bucket). Unusable: no border at bucket 0."""
    labels = dict(zip(borders["label"].to_pylist(), borders["low"].to_pylist(), strict=True))
    if not labels or min(labels.values()) != 0:
        raise Unusable(f"the borders begin at {sorted(labels.values())}; one label has to begin at bucket 0")
    values = batch[params.column].combine_chunks()
    known = np.asarray(pc.is_valid(values).to_numpy(zero_copy_only=False), bool)
    bucket = np.asarray(pc.fill_null(values, 0).to_numpy(zero_copy_only=False), np.int32)
    return pa.table({"label": label_column(bucket, known, labels)})
