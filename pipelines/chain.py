"""Run the members of a piece on batches and write its layer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from manifests.place import read_parquet
from pipelines.fill import Known
from pipelines.gather import PARENT_AT
from pipelines.guard import Guard, StageError, positions
from pipelines.layer import QUARANTINED, Fallen, Rows, Tally, layer_table, reason_counts
from pipelines.predicate import Predicate, parse_predicate
from pipelines.program import Call, Piece
from pipelines.resolve import resolve
from stages.contract import Map, Params, Stage


@dataclass(slots=True)
class Opened:
    """A Call whose stage is imported, whose model is open and whose side tables are read: once per worker and program."""

    call: Call
    stage: Stage
    params: Params
    extras: dict[str, Any]
    where: Predicate | None
    providers: dict[str, Opened] = field(default_factory=dict)

    @property
    def step(self) -> str:
        """The step's name."""
        return self.call.step

    @property
    def needs(self) -> set[str]:
        """Columns this member and its providers read."""
        found = set(self.call.reads) - set(self.providers)
        for provider in self.providers.values():
            found |= provider.needs
        return found


def open_call(call: Call) -> Opened:
    """Import, validate, open. A model is opened here, so that a worker pays for it once."""
    stage = resolve(call.stage, f"step '{call.step}'")
    params = stage.params.model_validate(dict(call.params))
    extras: dict[str, Any] = {name: pa.concat_tables([read_parquet(f) for f in files]) for name, files in call.given.items()}
    if stage.model is not None:
        extras["model"] = stage.model(params)
    providers = {}
    for column, name in ((c, n) for c, n in getattr(stage, "derived", {}).items() if c in call.reads):
        provider = resolve(name, f"step '{call.step}'")
        default = provider.params()
        providers[column] = open_call(Call(call.step, name, {}, provider.reads_of(default), provider.writes_of(default)))
    return Opened(call, stage, params, extras, parse_predicate(call.where) if call.where else None, providers)


def stage_input(rows: pa.Table, opened: Opened) -> pa.Table:
    """The batch a stage sees: `id` and the columns it reads, cast to the types it declared; optional ones may be null."""
    columns: dict[str, Any] = {"id": rows["id"]} if "id" in rows.column_names else {}
    for name, kind in opened.call.reads.items():
        if name in rows.column_names:
            column = rows[name]
            columns[name] = column if column.type == kind else column.cast(kind)
        elif name in opened.stage.optional:
            columns[name] = pa.nulls(rows.num_rows, kind)
    return pa.table(columns) if columns else rows.select([])


def checked(opened: Opened, writes: Mapping[str, pa.DataType], batch: pa.Table) -> pa.Table:
    """Run a rows="same" stage and hold it to its declaration."""
    assert isinstance(opened.stage, Map)
    out = opened.stage.run(batch, opened.params, **opened.extras)
    if out.num_rows != batch.num_rows:
        raise StageError(f"{opened.stage.name} returned {out.num_rows} rows for {batch.num_rows}; rows='same' keeps every row")
    return declared(opened, writes, out)


def declared(opened: Opened, writes: Mapping[str, pa.DataType], out: pa.Table) -> pa.Table:
    """The written columns in their declared types; StageError for one that is not there or of another type."""
    missing = [name for name in writes if name not in out.column_names]
    if missing:
        raise StageError(f"{opened.stage.name} declares that it writes {missing} and returned only {out.column_names}")
    try:
        return pa.table({n: out[n] if out[n].type == t else out[n].cast(t) for n, t in writes.items()})
    except pa.ArrowInvalid as error:
        raise StageError(f"{opened.stage.name} returned a column of another type than it declares: {error}") from error


@dataclass(slots=True)
class ChainRun:
    """A piece at work on one shard."""

    piece: Piece
    members: list[Opened]
    guard: Guard
    live: list[set[str]]
    """Columns that somebody still needs after each member."""
    known: dict[int, Known] = field(default_factory=dict)
    """Answers of an earlier object, by member (Fill)."""
    tallies: list[Tally] = field(default_factory=list)
    quarantine: list[dict[str, Any]] = field(default_factory=list)
    made: int = 0
    """Rows so far, for a piece that makes its frame."""

    def __post_init__(self) -> None:
        self.tallies = [Tally() for _ in self.members]

    def run(self, rows: Rows, low: int, high: int, first: int = 0) -> tuple[Rows, pa.Table]:
        """Members from `first` on over the rows that stand in positions [low, high); survivors and the layer."""
        fallen: list[Fallen] = []
        if first and "drop_reason" in self.members[0].call.writes:
            rows = _born(rows, fallen)
        for index in range(first, len(self.members)):
            rows = self._member(index, rows, fallen)
        layer = layer_table(self.piece.stored, low, high, rows, fallen, self.piece.keep_text)
        return rows, layer

    def _member(self, index: int, rows: Rows, fallen: list[Fallen]) -> Rows:
        opened, tally = self.members[index], self.tallies[index]
        tally.came += len(rows.at)
        table = self._with_derived(opened, rows.table)
        chosen = chosen_by(opened.where, table)
        outputs = list(self._outputs(index, opened, Rows(rows.at, table), chosen))
        written = _scatter(outputs, opened.call.writes, rows, self.quarantine, opened.step)
        tally.passed += int(len(chosen) - chosen.sum())
        reasons = written.pop("drop_reason", None)
        kept = self.live[index] - self._stale(written)
        columns = {n: table[n] for n in table.column_names if n in kept and n not in written} | written
        out = Rows(rows.at, pa.table(columns)) if columns else Rows(rows.at, table.select([]))
        if reasons is None:
            tally.standing += len(out.at)
            return out
        stands = reasons.is_null().to_numpy(zero_copy_only=False)
        if not stands.all():
            down = out.where(~stands)
            why = reasons.filter(pa.array(~stands))
            fallen.append(Fallen(down, index, why))
            quarantined = sum(1 for r in why.to_pylist() if r.startswith(QUARANTINED))
            tally.quarantined += quarantined
            tally.dropped.update(reason_counts(why.filter(pa.array([not r.startswith(QUARANTINED) for r in why.to_pylist()]))))
            out = out.where(stands)
        tally.standing += len(out.at)
        return out

    def _stale(self, written: Mapping[str, Any]) -> set[str]:
        """Derived columns whose input has just been rewritten: the next reader derives them again."""
        providers = {column: provider for m in self.members for column, provider in m.providers.items()}
        return {column for column, provider in providers.items() if provider.needs & set(written)}

    def _with_derived(self, opened: Opened, table: pa.Table) -> pa.Table:
        for column, provider in opened.providers.items():
            if column not in table.column_names:
                made = checked(provider, provider.call.writes, stage_input(table, provider))
                table = table.append_column(column, made[column])
        return table

    def _outputs(
        self, index: int, opened: Opened, rows: Rows, chosen: np.ndarray
    ) -> Iterator[tuple[pa.Table | None, np.ndarray, Any]]:
        """(written columns, positions within rows, culprits) of the computed and of the already known rows."""
        at = np.flatnonzero(chosen)
        known = self.known.get(index)
        if known is not None:
            hits, table = known.answers(rows.table["id"], at)
            if len(hits):
                self.tallies[index].filled += len(hits)
                yield table, hits, ()
                at = np.setdiff1d(at, hits, assume_unique=True)
        assert isinstance(opened.stage, Map)
        step = opened.stage.batch_rows or max(len(at), 1)
        call = partial(checked, opened, opened.call.writes)
        for start in range(0, len(at), step):
            some = at[start : start + step]
            part = rows.table if len(some) == rows.table.num_rows else rows.table.take(pa.array(some))
            outputs, culprits = self.guard.run(
                opened.step, opened.stage.seconds_per_row, stage_input(part, opened), rows.at[some], call
            )  # fmt: skip
            table = pa.concat_tables([t for t, _ in outputs]) if outputs else None
            yield table, some[positions(outputs)], [(some[c.index], c) for c in culprits]


def _born(rows: Rows, fallen: list[Fallen]) -> Rows:
    """Rows of a new frame that carry a reason from the start (a conversation of which nothing came)."""
    reasons = rows.table["drop_reason"].combine_chunks()
    stands = np.asarray(reasons.is_null().to_numpy(zero_copy_only=False), bool)
    if not stands.all():
        fallen.append(Fallen(rows.where(~stands), 0, reasons.filter(pa.array(~stands))))
    return rows.where(stands)


def chosen_by(where: Predicate | None, table: pa.Table) -> np.ndarray:
    """Mask of the rows for which a step's predicate is true."""
    if where is None:
        return np.ones(table.num_rows, bool)
    return np.asarray(where.mask(table).to_numpy(zero_copy_only=False), dtype=bool)


def _scatter(
    outputs: list[tuple[pa.Table | None, np.ndarray, Any]], writes: Mapping[str, pa.DataType], rows: Rows,
    quarantine: list[dict[str, Any]], step: str,
) -> dict[str, Any]:  # fmt: skip
    """Written columns for all rows: computed ones in place, passed-over rows keep the old value or null, culprits get a reason."""
    count = len(rows.at)
    tables = [(t, at) for t, at, _ in outputs if t is not None]
    culprits = [pair for _, _, found in outputs for pair in found]
    if len(tables) == 1 and len(tables[0][1]) == count:
        only = tables[0][0]
        return {name: only[name].combine_chunks() for name in writes}
    where = np.concatenate([at for _, at in tables]) if tables else np.empty(0, np.int64)
    written: dict[str, Any] = {}
    for name, kind in writes.items():
        parts = [_flat(t[name], kind) for t, _ in tables]
        before = rows.table[name] if name in rows.table.column_names and name != "drop_reason" else None
        written[name] = _place(parts, where, count, kind, before)
    if culprits:
        reasons: list[str | None] = written["drop_reason"].to_pylist() if "drop_reason" in written else [None] * count
        for at, culprit in culprits:
            reasons[at] = f"{QUARANTINED}: {culprit.reason}"
            quarantine.append(quarantine_record(rows, int(at), step, culprit.reason, culprit.detail))
        written["drop_reason"] = pa.array(reasons, pa.string())
    return written


def _flat(column: Any, kind: pa.DataType) -> pa.Array:
    column = column.combine_chunks()
    column = pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
    return column.cast(kind) if column.type != kind else column


def _place(parts: list[pa.Array], where: np.ndarray, count: int, kind: pa.DataType, before: Any) -> pa.Array:
    index = np.zeros(count, np.int64)
    known = np.zeros(count, bool)
    index[where], known[where] = np.arange(len(where)), True
    if before is not None:
        parts = [*parts, _flat(before, kind)]
        index[~known], known[:] = len(where) + np.flatnonzero(~known), True
    joined = pa.concat_arrays(parts) if parts else pa.nulls(0, kind)
    return joined.take(pa.array(index, mask=~known))


def quarantine_record(rows: Rows, at: int, step: str, reason: str, detail: str) -> dict[str, Any]:
    """A row of the quarantine table: who, where in the source, why."""
    names = rows.table.column_names
    value: Callable[[str], Any] = lambda name: rows.table[name][at].as_py() if name in names else None  # noqa: E731
    origin = value("origin") or {}
    return {
        "step": step, "id": value("id"), "url": value("url"), "unit": origin.get("unit"), "offset": origin.get("offset"),
        "length": origin.get("length"), "reason": reason, "detail": detail,
    }  # fmt: skip


def children(opened: Opened, rows: Rows, guard: Guard, tally: Tally, next_at: int, quarantine: list[dict[str, Any]]) -> Rows:
    """Run a rows="any" Map: the new frame's rows with their parents' columns, `parent_at`, and ids of children."""
    chosen = chosen_by(opened.where, rows.table)
    tally.came += len(rows.at)
    tally.passed += int(len(chosen) - chosen.sum())
    rows = rows.where(chosen)
    run = partial(_any_rows, opened)
    outputs, culprits = guard.run(opened.step, opened.stage.seconds_per_row, stage_input(rows.table, opened), rows.at, run)
    quarantine.extend(quarantine_record(rows, c.index, opened.step, c.reason, c.detail) for c in culprits)
    tally.quarantined += len(culprits)
    parents = [some[t["parent"].to_numpy()] for t, some in outputs]
    parent = np.concatenate(parents) if parents else np.empty(0, np.int64)
    with_children = len(np.unique(parent))
    tally.standing += with_children
    childless = len(rows.at) - len(culprits) - with_children
    if childless:
        tally.dropped["no_children"] += childless
    tally.made += len(parent)
    table = rows.table.take(pa.array(parent))
    for name in opened.call.writes:
        if name not in ("parent", "k"):
            pieces = [_flat(t[name], opened.call.writes[name]) for t, _ in outputs]
            table = with_column(table, name, pa.concat_arrays(pieces) if pieces else pa.nulls(0, opened.call.writes[name]))
    if "k" in opened.call.writes and outputs:
        k = pa.concat_tables([t for t, _ in outputs])["k"].to_pylist()
        ids = [i if n is None else f"{i}#{n}" for i, n in zip(table["id"].to_pylist(), k, strict=True)]
        table = with_column(with_column(table, "id", pa.array(ids, pa.string())), "k", pa.array(k, pa.int32()))
    table = with_column(table, PARENT_AT, pa.array(rows.at[parent], pa.int64()))
    return Rows(np.arange(next_at, next_at + len(parent)), table)


def _any_rows(opened: Opened, batch: pa.Table) -> pa.Table:
    assert isinstance(opened.stage, Map)
    out = opened.stage.run(batch, opened.params, **opened.extras)
    out = declared(opened, {"parent": pa.int64(), **{n: t for n, t in opened.call.writes.items() if n != "parent"}}, out)
    parent = out["parent"].to_numpy()
    if len(parent) and (np.any(np.diff(parent) < 0) or parent[0] < 0 or parent[-1] >= batch.num_rows):
        raise StageError(f"{opened.stage.name} returned parents that are not ascending indices of its batch")
    if "k" not in opened.call.writes and len(np.unique(parent)) != len(parent):
        raise StageError(f"{opened.stage.name} returned two children of one parent without 'k' to tell them apart")
    return out


def with_column(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    """The table with a column added or put in the place of the one of that name."""
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), name, column)
    return table.append_column(name, column)


def make_ids(origins: pa.Array | pa.ChunkedArray) -> pa.Array:
    """`id` from origin: a 128-bit hash of unit name and offset, 32 hex digits."""
    names = origins.combine_chunks().field("unit").to_pylist()
    offsets = origins.combine_chunks().field("offset").to_pylist()
    made = [hashlib.blake2b(f"{u}\0{o}".encode(), digest_size=16).hexdigest() for u, o in zip(names, offsets, strict=True)]
    return pa.array(made, pa.string())
