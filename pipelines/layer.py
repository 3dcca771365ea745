"""Rows in flight, and the layer of a piece that is built from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.gather import DROP_REASON, DROP_STEP, ENTERED

BOOKKEEPING = {DROP_STEP: pa.int16(), DROP_REASON: pa.string()}
QUARANTINED = "quarantined"


def is_bulk(kind: pa.DataType) -> bool:
    """Large text and bytes: not kept for dropped rows unless asked."""
    return bool(pa.types.is_large_string(kind) or pa.types.is_large_binary(kind))


@dataclass(slots=True)
class Rows:
    """Standing rows at one point of a pass: their positions in the shard (ascending) and their columns."""

    at: np.ndarray
    table: pa.Table

    def where(self, mask: np.ndarray) -> Rows:
        """The rows for which the mask is true."""
        return self if mask.all() else Rows(self.at[mask], self.table.filter(pa.array(mask)))


def overlay(inputs: Sequence[Rows]) -> Rows:
    """Rows that stand in all inputs, with the columns of all (a later input wins)."""
    first, *others = inputs
    for other in others:
        if len(first.at) == len(other.at) and np.array_equal(first.at, other.at):
            left, right, at = first.table, other.table, first.at
        else:
            at, mine, theirs = np.intersect1d(first.at, other.at, assume_unique=True, return_indices=True)
            left, right = first.table.take(pa.array(mine)), other.table.take(pa.array(theirs))
        columns = {name: left[name] for name in left.column_names} | {name: right[name] for name in right.column_names}
        first = Rows(at, pa.table(columns) if columns else left)
    return first


@dataclass(slots=True)
class Tally:
    """Accounting of one member: in = standing + dropped by reason + quarantined (passed-over rows stand)."""

    came: int = 0
    standing: int = 0
    passed: int = 0
    filled: int = 0
    quarantined: int = 0
    made: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    records: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def record(self) -> dict[str, Any]:
        """For the receipt: zero entries are left out."""
        plain = {
            "in": self.came, "standing": self.standing, "passed": self.passed, "filled": self.filled,
            "quarantined": self.quarantined, "made": self.made, "records": self.records,
            "dropped": dict(sorted(self.dropped.items())), "skipped": dict(sorted(self.skipped.items())),
        }  # fmt: skip
        return {key: value for key, value in plain.items() if value}


@dataclass(slots=True)
class Fallen:
    """Rows that a member dropped, as they were then."""

    rows: Rows
    member: int
    reasons: pa.Array


def layer_table(
    stored: Mapping[str, pa.DataType], low: int, high: int, standing: Rows, fallen: Sequence[Fallen], keep_text: bool
) -> pa.Table:
    """The layer of positions [low, high): stored columns, drop_step and drop_reason, one row per position."""
    count = high - low
    groups = [standing, *(f.rows for f in fallen)]
    where = np.concatenate([g.at for g in groups]) - low if groups else np.empty(0, np.int64)
    whole = not fallen and len(standing.at) == count
    index = None if whole else _inverse(where, count)
    columns: dict[str, pa.Array] = {}
    for name, kind in stored.items():
        pieces = [
            _piece(g.table, name, kind, len(g.at), skip=i > 0 and is_bulk(kind) and not keep_text) for i, g in enumerate(groups)
        ]
        joined = pa.concat_arrays(pieces)
        columns[name] = joined if index is None else joined.take(index)
    steps = np.full(count, ENTERED, np.int16)
    stands = np.zeros(count, bool)
    stands[standing.at - low] = True
    for f in fallen:
        steps[f.rows.at - low] = f.member
    columns[DROP_STEP] = pa.array(steps, mask=stands)
    reasons = [pa.nulls(len(standing.at), pa.string()), *(f.reasons.cast(pa.string()) for f in fallen)]
    joined = pa.concat_arrays(reasons)
    columns[DROP_REASON] = joined if index is None else joined.take(index)
    return pa.table(columns)


def _inverse(where: np.ndarray, count: int) -> pa.Array:
    source = np.zeros(count, np.int64)
    known = np.zeros(count, bool)
    source[where] = np.arange(len(where))
    known[where] = True
    return pa.array(source, mask=~known)


def _piece(table: pa.Table, name: str, kind: pa.DataType, rows: int, *, skip: bool) -> pa.Array:
    if skip or name not in table.column_names:
        return pa.nulls(rows, kind)
    column = table[name].combine_chunks()
    column = pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
    return column if column.type == kind else column.cast(kind)


def reason_counts(reasons: pa.Array) -> Counter[str]:
    """How often each reason occurs."""
    counted = pc.value_counts(reasons)
    return Counter({str(row["values"]): int(row["counts"]) for row in counted.to_pylist()})
