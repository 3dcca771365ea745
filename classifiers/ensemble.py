"""Several scores as one: ranks by the cut points, weighed by hand or by what the scorers' agreement says of them (SUEL).

weights  Reduce  scores, given the cuts -> quality and weight of each scorer, from their rank correlations alone
score    Map     scores, given the cuts and the weights -> one score from 0 to 1, to be cut into buckets like any other
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from classifiers import suel
from classifiers.buckets import ranks_of
from classifiers.scale import NAME, SCORE, Scale
from stages.contract import Params, Unusable, map_stage, reduce_stage

WEIGHTS = pa.schema(
    [
        ("id", pa.string()), ("column", pa.string()), ("group", pa.string()), ("method", pa.string()), ("quality", pa.float64()),
        ("weight", pa.float64()), ("documents", pa.int64()), ("residual", pa.float64()), ("correlations", pa.list_(pa.float64())),
    ]
)  # fmt: skip


class Weights(Params):
    """Which scorers, and which of them depend on each other."""

    columns: tuple[str, ...] = Field(..., min_length=2, max_length=64, description="Score columns, as in cut_points.")
    groups: dict[str, str] = Field({}, description="Group of each column that shares data or a model family; others stand alone.")
    fallback: Literal["refuse", "spectral", "equal"] = Field("refuse", description="What to do where qualities cannot be told.")

    def model_post_init(self, _context: Any) -> None:
        """Groups name columns."""
        if unknown := sorted(set(self.groups) - set(self.columns)):
            raise ValueError(f"groups names {unknown}, which are no columns of {list(self.columns)}")


def _emits(_params: Weights) -> dict[str, pa.DataType]:
    return {"key": pa.uint64(), "documents": pa.int64(), "sums": pa.list_(pa.int64()), "products": pa.list_(pa.int64())}


def _merged(table: pa.Table, params: Weights) -> pa.Table:
    count = len(params.columns)
    rows = table.num_rows
    sums = np.asarray(table["sums"].combine_chunks().flatten().to_numpy(), np.int64).reshape(rows, count).sum(axis=0)
    products = (
        np.asarray(table["products"].combine_chunks().flatten().to_numpy(), np.int64).reshape(rows, count * count).sum(axis=0)
    )
    total = int(table["documents"].to_numpy().sum())
    return pa.table([np.zeros(1, np.uint64), [total], [sums.tolist()], [products.tolist()]], schema=table.schema)


def correlation_of(documents: int, sums: NDArray[np.int64], products: NDArray[np.int64], names: list[str]) -> NDArray[np.float64]:
    """Correlations of ranks out of integer sums: exact, whatever the order they came in. Unusable for a constant scorer."""
    many = len(names)
    flat: list[Any] = products.tolist()
    line: list[int] = sums.tolist()
    spread = [[documents * flat[i * many + j] - line[i] * line[j] for j in range(many)] for i in range(many)]
    if still := [name for i, name in enumerate(names) if spread[i][i] <= 0]:
        raise Unusable(
            f"the ranks of {still} are the same in all {documents} documents; a constant scorer has no quality: take it out"
        )
    roots = [float(spread[i][i]) ** 0.5 for i in range(many)]
    return np.array([[spread[i][j] / (roots[i] * roots[j]) for j in range(many)] for i in range(many)])


def weigh(correlation: NDArray[np.float64], params: Weights) -> tuple[str, suel.Fit]:
    """The method used and its fit; Unusable where the qualities cannot be told and no fallback was chosen."""
    names = list(params.columns)
    groups = [params.groups.get(name, name) for name in names]
    try:
        return "suel", suel.fit(correlation, groups, names)
    except suel.UnidentifiableError as error:
        if params.fallback == "refuse":
            raise Unusable(f"weights cannot be estimated: {error}") from error
        if params.fallback == "spectral":
            return "spectral", suel.spectral(correlation)
        equal = np.full(len(names), round(1 / len(names), 6))
        return "equal", suel.Fit(np.full(len(names), np.nan), equal, float("nan"))


def _settle(batches: Iterator[pa.Table], params: Weights, **_given: pa.Table) -> Iterator[pa.Table]:
    tables = list(batches)
    if not tables:
        return
    table = _merged(pa.concat_tables(tables), params)
    documents = int(table["documents"][0].as_py())
    if documents < 2:
        raise Unusable(f"{documents} documents have all scores; weights need many")
    sums, products = (np.array(table[n][0].as_py(), np.int64) for n in ("sums", "products"))
    correlation = correlation_of(documents, sums, products, list(params.columns))
    method, found = weigh(correlation, params)
    count = len(params.columns)
    yield pa.table(
        [
            pa.nulls(count, pa.string()), list(params.columns), [params.groups.get(c, c) for c in params.columns], [method] * count,
            found.quality, found.weights, [documents] * count, [found.residual] * count, np.round(correlation, 6).tolist(),
        ],
        schema=WEIGHTS,
    )  # fmt: skip


@reduce_stage(
    version=1, reads=lambda p: dict.fromkeys(p.columns, SCORE), emits=_emits, writes={f.name: f.type for f in WEIGHTS},
    settle=_settle, combine=_merged, result="dataset", partitions=lambda _params: 1, given=("cuts",),
)  # fmt: skip
def weights(batch: pa.Table, params: Weights, *, cuts: pa.Table) -> pa.Table:
    """How good each scorer is and how much it should weigh, without a label: `column, group, quality, weight, correlations`.

    From rank correlations over documents that have every score (`classifiers.suel` gives model and sources). Unusable, with
    the reason: fewer than three groups, a scorer that agrees with none, a constant one; `fallback` chooses other weights then.
    """
    ranks, known, _ = ranks_of(batch, params.columns, cuts)
    whole = ranks[known.all(axis=1)].astype(np.int64)
    return pa.table(
        [np.zeros(1, np.uint64), [len(whole)], [whole.sum(axis=0).tolist()], [(whole.T @ whole).ravel().tolist()]],
        schema=pa.schema(list(_emits(params).items())),
    )


class Combined(Params):
    """Which scores become one."""

    columns: tuple[str, ...] = Field(..., min_length=1, description="Score columns, as in cut_points and weights.")
    column: str = Field("ensemble", pattern=NAME, description="Name of the new score column.")


@map_stage(
    version=1, reads=lambda p: dict.fromkeys(p.columns, SCORE), writes=lambda p: {p.column: SCORE}, given=("cuts", "weights")
)
def score(batch: pa.Table, params: Combined, *, cuts: pa.Table, weights: pa.Table) -> pa.Table:
    """The weighed mean of ranks (bucket / highest bucket): 0 to 1, higher is better, 6 decimals; over the scores there are.

    Cut finely for it (`buckets: 100` or more): twenty ranks make many ties. Unusable: weights of other columns.
    """
    ranks, known, buckets = ranks_of(batch, params.columns, cuts)
    held = dict(zip(weights["column"].to_pylist(), weights["weight"].to_pylist(), strict=True))
    if missing := [c for c in params.columns if c not in held]:
        raise Unusable(f"the weights hold {sorted(held)} and nothing for {missing}; estimate them for the same columns")
    share = np.where(known, np.array([held[c] for c in params.columns]), 0.0)
    total = share.sum(axis=1)
    some = total > 0
    raw = (ranks / (buckets - 1) * share).sum(axis=1) / np.where(some, total, 1.0)
    return pa.table({params.column: Scale(0, 1).column(np.minimum(raw, 1.0), "the ensemble", some)})
