"""One task from open to commit: the only code that is shipped elsewhere."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from manifests.manifest import Receipt
from manifests.shard import PartDraft, TableWriter
from manifests.spill import write_spill
from pipelines.asked import asked
from pipelines.chain import ChainRun, Opened, children, make_ids, open_call, stage_input
from pipelines.fill import Known
from pipelines.gather import load, read, standing
from pipelines.guard import Guard, StageError
from pipelines.layer import BOOKKEEPING, Rows, Tally, overlay
from pipelines.pile import Pile
from pipelines.program import Emit, Encode, FrameUnit, Inputs, Mark, Piece, Program, Standing, Task
from stages.contract import CORE, Ask, Chunk, Export, Map, Reduce, Source

BATCH = 2048
"""Rows of a batch read from stored layers: about 10 MB of web text."""
QUARANTINE = pa.schema(
    [("step", pa.string()), ("id", pa.string()), ("url", pa.string()), ("unit", pa.string()), ("offset", pa.int64()),
     ("length", pa.int64()), ("reason", pa.string()), ("detail", pa.string())]
)  # fmt: skip
Done = dict[str, Receipt]
"""Receipts by address (of an object, or `spill:` and the address of a spill)."""


class AccountError(StageError):
    """Rows do not balance: something lost or made up rows. The run stops here rather than going on with wrong counts."""


@dataclass(slots=True)
class OpenProgram:
    """A program whose stages are open; kept warm in the worker."""

    program: Program
    calls: dict[str, Opened]
    needs: dict[str, set[str]]
    """Columns needed behind the tail of each piece."""

    @staticmethod
    def of(program: Program) -> OpenProgram:
        """Open every stage of the program."""
        if program.folder and program.folder not in sys.path:
            sys.path.insert(0, program.folder)
        calls = [m for p in program.pieces for m in p.members]
        calls += [e.call for e in program.emits] + [e.call for e in program.exports]
        opened = {c.step: open_call(c) for c in calls}
        return OpenProgram(program, opened, _needs(program, opened))

    def live(self, piece: Piece) -> list[set[str]]:
        """Columns still needed after each member of a piece."""
        after = self.needs[piece.tail] | set(piece.stored) | {"id", "origin", "url"}
        found: list[set[str]] = []
        for member in reversed(piece.members):
            found.append(set(after))
            after |= _reads(self.calls[member.step]) | set(self.calls[member.step].providers)
        return found[::-1]


def _needs(program: Program, calls: Mapping[str, Opened]) -> dict[str, set[str]]:
    needs: dict[str, set[str]] = {p.tail: set() for p in program.pieces}
    consumers = [(e.inputs, _reads(calls[e.call.step])) for e in program.emits]
    consumers += [(e.inputs, _reads(calls[e.call.step])) for e in program.exports]
    for piece in reversed(program.pieces):
        for inputs, columns in consumers:
            if piece.tail in inputs.live:
                needs[piece.tail] |= columns
        own = set().union(*(_reads(calls[m.step]) for m in piece.members))
        consumers.append((piece.inputs, own | set(piece.stored) | needs[piece.tail]))
    return needs


def _reads(opened: Opened) -> set[str]:
    return opened.needs | (set(opened.where.columns) if opened.where else set())


@dataclass(slots=True)
class PassRun:
    """One unit of a pass."""

    opened: OpenProgram
    task: Task
    guard: Guard
    started: float = field(default_factory=time.monotonic)
    runs: dict[str, ChainRun] = field(default_factory=dict)
    writers: dict[str, TableWriter] = field(default_factory=dict)
    drafts: dict[str, PartDraft] = field(default_factory=dict)
    emitted: dict[str, list[pa.Table]] = field(default_factory=dict)
    piles: dict[str, Pile] = field(default_factory=dict)
    masks: dict[tuple[Standing, ...], np.ndarray] = field(default_factory=dict)
    beside: pa.Table | None = None
    ids: set[str] = field(default_factory=set)
    seen: int = 0
    checked: Iterator[str] | None = None

    @property
    def program(self) -> Program:
        """The program of the pass."""
        return self.opened.program

    @property
    def unit(self) -> FrameUnit:
        """The unit at work."""
        return self.task.unit

    def run(self) -> Done:
        """Do all of it and commit; nothing appears before everything is written."""
        with ExitStack() as stack:
            self._open(stack)
            for low, high, base, made in self._batches():
                self._batch(low, high, base, made)
            return self._commit()

    def _open(self, stack: ExitStack) -> None:
        program = self.program
        for piece in program.pieces:
            members = [self.opened.calls[m.step] for m in piece.members]
            run = ChainRun(piece, members, self.guard, self.opened.live(piece))
            for index, call in enumerate(piece.members):
                if call.fill is not None:
                    known = Known.open(program.root, call.fill, self.unit, call.writes)
                    run.known |= {index: known} if known is not None else {}
            self.runs[piece.tail] = run
            if piece.write:
                draft = stack.enter_context(PartDraft(f"{program.root}/objects/{piece.address}", self.unit.key))
                schema = pa.schema([*piece.stored.items(), *BOOKKEEPING.items()])
                self.drafts[piece.tail] = draft
                self.writers[piece.tail] = TableWriter(draft.open(".parquet"), schema)
                stack.callback(self.writers[piece.tail].abandon)
        if program.check is not None:
            self.checked = iter(read(program.root, program.check, self.unit.key, ["id"])["id"].to_pylist())

    def _batches(self) -> Iterator[tuple[int, int, Rows | None, Rows | None]]:
        """(low, high, rows read from stored layers, rows that the first piece has made)."""
        if self.program.mode == "source":
            yield from self._source_batches()
        elif self.program.mode == "rows":
            yield from self._derived_batches()
        else:
            yield from self._stored_batches()

    def _source_batches(self) -> Iterator[tuple[int, int, None, Rows]]:
        piece = self.program.pieces[0]
        run, opened = self.runs[piece.tail], self.opened.calls[piece.members[0].step]
        tally = run.tallies[0]
        assert isinstance(opened.stage, Source)
        assert self.unit.source is not None
        self.guard.tell(Mark(opened.step, 0, 0, 3600.0))
        for chunk in opened.stage.read(self.unit.source, opened.params, **opened.extras):
            table = self._source_rows(chunk, opened, tally, run)
            rows = Rows(np.arange(self.seen, self.seen + table.num_rows), table)
            low, self.seen = self.seen, self.seen + table.num_rows
            yield low, self.seen, None, rows
            self.guard.tell(Mark(opened.step, self.seen, 0, 3600.0))

    def _source_rows(self, chunk: Chunk, opened: Opened, tally: Tally, run: ChainRun) -> pa.Table:
        table = chunk.rows
        for name, kind in {**CORE, **opened.call.writes}.items():
            if name not in table.column_names and name != "id":
                table = table.append_column(name, pa.nulls(table.num_rows, kind))
        if "id" not in table.column_names:
            table = table.append_column("id", make_ids(table["origin"]))
        self._refuse_twice(table["id"].to_pylist(), opened)
        tally.records += chunk.records
        tally.skipped.update(chunk.skipped)
        tally.quarantined += len(chunk.bad)
        assert self.unit.source is not None
        run.quarantine.extend(
            {"step": opened.step, "id": None, "url": None, "unit": self.unit.source.name, "offset": b.offset, "length": b.length,
             "reason": b.reason, "detail": b.detail} for b in chunk.bad
        )  # fmt: skip
        if opened.call.sample is not None:
            table = _sampled(table, opened.call.sample, tally)
        tally.standing += table.num_rows
        if self.checked is not None:
            for got in table["id"].to_pylist():
                if next(self.checked, None) != got:
                    raise StageError(f"{self.unit.name}: a second read gave other rows; the input changed while the recipe ran")
        return table

    def _refuse_twice(self, ids: list[str | None], opened: Opened) -> None:
        """An id names one row: a declared id column with gaps or doubles in a unit is refused."""
        before = len(self.ids)
        self.ids.update(i for i in ids if i is not None)
        if len(self.ids) - before != len(ids):
            seen = set[str | None]()
            twice = next((i for i in ids if i in seen or seen.add(i)), None)  # type: ignore[func-returns-value]
            fault = "a row has no id" if None in ids else f"the id {twice or ids[0]!r} occurs twice"
            raise StageError(f"{self.unit.name}: {fault}; step '{opened.step}' needs another id column, or none to have ids made")

    def _derived_batches(self) -> Iterator[tuple[int, int, None, Rows]]:
        piece = self.program.pieces[0]
        run, opened = self.runs[piece.tail], self.opened.calls[piece.members[0].step]
        view = self.program.view.parents[self.unit.parent_frame]
        assert self.unit.parent is not None
        places = piece.inputs.stored
        places = (places[self.unit.parent_frame],) if len(self.program.view.parents) > 1 else places
        mask = standing(self.program.root, places, self.unit.parent)
        wanted = sorted(self.program.loads)
        if len(self.program.view.parents) > 1:
            wanted = [c for c in wanted if c != "step"]
        table = load(self.program.root, view, self.unit.parent, wanted)
        if len(self.program.view.parents) > 1:
            name = self.program.view.steps[self.unit.parent_frame]
            table = table.append_column("step", pa.array([name] * table.num_rows, pa.string()))
        if isinstance(opened.stage, Ask):
            batches = asked(opened, Rows(np.arange(table.num_rows), table), mask, self.guard, run.tallies[0], run.quarantine)
            for made in batches:
                low, self.seen = self.seen, self.seen + len(made.at)
                yield low, self.seen, None, Rows(made.at + low, made.table)
            return
        for rows in _slices(table, mask):
            made = children(opened, rows, self.guard, run.tallies[0], self.seen, run.quarantine)
            low, self.seen = self.seen, self.seen + len(made.at)
            yield low, self.seen, None, made

    def _stored_batches(self) -> Iterator[tuple[int, int, Rows, None]]:
        table = load(self.program.root, self.program.view, self.unit, sorted({"id", *self.program.loads}))
        self.seen = table.num_rows
        for low in range(0, table.num_rows, BATCH):
            piece = table.slice(low, BATCH)
            yield low, low + piece.num_rows, Rows(np.arange(low, low + piece.num_rows), piece), None

    def _batch(self, low: int, high: int, base: Rows | None, made: Rows | None) -> None:
        states: dict[str, Rows] = {}
        for index, piece in enumerate(self.program.pieces):
            run = self.runs[piece.tail]
            if index == 0 and made is not None:
                states[piece.tail], layer = run.run(made, low, high, first=1)
            else:
                states[piece.tail], layer = run.run(self._input(piece.inputs, states, base, low, high), low, high)
            if piece.tail in self.writers:
                self.writers[piece.tail].write(layer)
        for emit in self.program.emits:
            self._emit(emit, self._input(emit.inputs, states, base, low, high))
        for export in self.program.exports:
            rows = self._input(export.inputs, states, base, low, high)
            self.emitted.setdefault(export.call.step, []).append(stage_input(rows.table, self.opened.calls[export.call.step]))

    def _stored(self, low: int, high: int) -> Rows:
        """Stored columns beside a second read of the source."""
        if self.beside is None:
            self.beside = load(self.program.root, self.program.view, self.unit, sorted({"id", *self.program.loads}))
        return Rows(np.arange(low, high), self.beside.slice(low, high - low))

    def _input(self, inputs: Inputs, states: Mapping[str, Rows], base: Rows | None, low: int, high: int) -> Rows:
        found = [states[name] for name in inputs.live]
        if inputs.stored:
            base = base if base is not None else self._stored(low, high)
            if inputs.stored not in self.masks:
                mask = standing(self.program.root, inputs.stored, self.unit)
                assert mask is not None
                self.masks[inputs.stored] = mask
            found.insert(0, base.where(self.masks[inputs.stored][base.at]))
        return overlay(found)

    def _emit(self, emit: Emit, rows: Rows) -> None:
        opened = self.opened.calls[emit.call.step]
        assert isinstance(opened.stage, Reduce)
        stage = opened.stage
        if opened.where is not None:
            rows = rows.where(np.asarray(opened.where.mask(rows.table).to_numpy(zero_copy_only=False), bool))
        table = rows.table
        for column, provider in opened.providers.items():
            assert isinstance(provider.stage, Map)
            table = table.append_column(column, provider.stage.run(stage_input(table, provider), provider.params)[column])
        if emit.source and "step" not in table.column_names:
            table = table.append_column("step", pa.array([emit.source] * table.num_rows, pa.string()))
        batch = stage_input(table, opened)
        if "row" not in batch.column_names:
            address = (np.int64(emit.frame) << 56) | (np.int64(self.task.shard) << 32) | rows.at.astype(np.int64)
            batch = batch.append_column("row", pa.array(address, pa.int64()))
        outputs, culprits = self.guard.run(
            opened.step, stage.seconds_per_row, batch, rows.at, lambda b: stage.emit(b, opened.params, **opened.extras)
        )
        if culprits:
            first = culprits[0]
            raise StageError(
                f"{stage.name}: emit failed on row {rows.table['id'][first.index].as_py()}: {first.reason}: {first.detail}"
            )
        for out, _ in outputs:
            columns = {n: out[n] if out[n].type == t else out[n].cast(t) for n, t in emit.emits.items()}
            self._pile(emit).add(pa.table(columns))

    def _pile(self, emit: Emit) -> Pile:
        if emit.call.step not in self.piles:
            self.piles[emit.call.step] = Pile(self.opened.calls[emit.call.step], pa.schema(list(emit.emits.items())))
        return self.piles[emit.call.step]

    def _commit(self) -> Done:
        done: Done = {}
        for piece in self.program.pieces:
            if piece.tail in self.drafts:
                done[piece.address] = self._commit_piece(piece)
        for emit in self.program.emits:
            done[f"spill:{emit.address}"] = self._commit_spill(emit)
        for export in self.program.exports:
            done[export.address] = self._commit_export(export)
        if self.checked is not None and next(self.checked, None) is not None:
            raise StageError(f"{self.unit.name}: a second read gave fewer rows; the input changed while the recipe ran")
        return done

    def _commit_piece(self, piece: Piece) -> Receipt:
        run, draft, writer = self.runs[piece.tail], self.drafts[piece.tail], self.writers[piece.tail]
        for opened, tally in zip(run.members, run.tallies, strict=True):
            balance(opened, tally, f"{self.unit.name}, step '{opened.step}'")
        writer.close()
        if run.quarantine:
            sick = TableWriter(draft.open(".quarantine.parquet"), QUARANTINE)
            sick.write(pa.Table.from_pylist(run.quarantine, schema=QUARANTINE))
            sick.close()
        return self._receipt(writer.rows, draft, {"members": [t.record() for t in run.tallies]})

    def _commit_spill(self, emit: Emit) -> Receipt:
        table = self._pile(emit).merged()
        with PartDraft(f"{self.program.root}/spills/{emit.address}", f"{emit.frame}-{self.unit.key}") as draft:
            write_spill(draft.open(".spill"), table, emit.partitions)
            return self._receipt(table.num_rows, draft, {}, key=f"{emit.frame}-{self.unit.key}")

    def _commit_export(self, export: Encode) -> Receipt:
        opened = self.opened.calls[export.call.step]
        assert isinstance(opened.stage, Export)
        tables = self.emitted.get(export.call.step, [])
        self.guard.tell(Mark(opened.step, 0, 0, 3600.0))
        key = export.prefix + self.unit.key
        with PartDraft(f"{self.program.root}/objects/{export.address}", key) as draft:
            summary = dict(opened.stage.encode(iter(tables), opened.params, draft, **opened.extras))
            rows = sum(t.num_rows for t in tables)
            if summary.get("rows") != rows:
                raise AccountError(
                    f"{self.unit.name}, step '{opened.step}': {rows} rows went in, {summary.get('rows')} were encoded"
                )
            return self._receipt(rows, draft, {"summary": summary, "members": [{"in": rows, "standing": rows}]}, key)

    def _receipt(self, rows: int, draft: PartDraft, counts: Mapping[str, Any], key: str | None = None) -> Receipt:
        seconds = round(time.monotonic() - self.started, 3)
        return Receipt(key or self.unit.key, self.unit.name, rows, draft.commit(), counts, seconds)


def balance(opened: Opened, tally: Tally, where: str) -> None:
    """DESIGN: the accounting of each kind; AccountError where it does not add up."""
    if isinstance(opened.stage, Source):
        left, right = tally.records, tally.standing + sum(tally.skipped.values()) + tally.quarantined
    else:
        left, right = tally.came, tally.standing + sum(tally.dropped.values()) + tally.quarantined
        if isinstance(opened.stage, Ask) or (isinstance(opened.stage, Map) and opened.stage.rows == "any"):
            right += tally.passed
    if left != right:
        raise AccountError(f"{where}: {left} rows came in, {right} are accounted for ({tally.record()}); the store was not touched")


def _sampled(table: pa.Table, rate: float, tally: Tally) -> pa.Table:
    hashes = [hashlib.blake2b(i.encode(), digest_size=6, person=b"sample").digest() for i in table["id"].to_pylist()]
    mask = np.array([int.from_bytes(h, "big") < rate * 2**48 for h in hashes], bool)
    if not mask.all():
        tally.skipped["not_sampled"] += int((~mask).sum())
    return table.filter(pa.array(mask))


def _slices(table: pa.Table, mask: np.ndarray | None) -> Iterator[Rows]:
    for low in range(0, table.num_rows, BATCH):
        piece = table.slice(low, BATCH)
        rows = Rows(np.arange(low, low + piece.num_rows), piece)
        yield rows if mask is None else rows.where(mask[low : low + piece.num_rows])


_programs: dict[str, OpenProgram] = {}
"""Warm programs of this worker process, by id."""


def run_pass(program: Program, task: Task, tell: Callable[[Mark], None]) -> Done:
    """Run one unit of a pass; programs stay open between tasks."""
    if program.id not in _programs:
        pa.set_cpu_count(1)
        tell(Mark(program.frame, 0, 0, 3600.0))
        _programs[program.id] = OpenProgram.of(program)
    return PassRun(_programs[program.id], task, Guard(task, tell)).run()
