"""Rows that wait for a language model: the children of one shard of an Ask, in the order of their parents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipelines.chain import Opened, chosen_by, quarantine_record, stage_input, with_column
from pipelines.gather import PARENT_AT
from pipelines.guard import Guard, StageError
from pipelines.layer import Rows, Tally
from pipelines.program import Mark, Seat
from stages.contract import ASKED, Ask, AskParams, Params
from stages.prompt import Refused

if TYPE_CHECKING:
    from synthetic.asking import Outcome
    from synthetic.pulse import Pulse
    from synthetic.room import Room

ROWS = 1024
"""Children of a batch that is handed on."""
SLICE = 128
"""Parents that are turned into Python values at once."""
SILENCE = 3600.0
"""Seconds without a finished conversation after which a worker counts as stuck; requests have limits of their own."""
_rooms: dict[str, Room] = {}
"""Open rooms of this worker process: a model is loaded, and a ledger opened, once."""


def asked(
    opened: Opened, rows: Rows, mask: np.ndarray | None, guard: Guard, tally: Tally, quarantine: list[dict[str, Any]]
) -> Iterator[Rows]:
    """Ask for every standing row of a shard; batches of the new frame's rows with their parents' columns and `parent_at`.

    Positions (`at`) count from 0 in each batch. StageError when the model cannot be asked: nothing of the shard is
    committed, and what was answered is in the ledger.
    """
    rows = rows if mask is None else rows.where(mask)
    chosen = chosen_by(opened.where, rows.table)
    tally.came += len(rows.at)
    tally.passed += int(len(chosen) - chosen.sum())
    rows = _healthy(opened, rows.where(chosen), guard, tally, quarantine)
    assert isinstance(opened.stage, Ask)
    batch = Batch(opened, rows, generator_of(opened.stage, opened.params))
    for outcome in _outcomes(opened, rows, guard):
        if outcome.error is not None:
            kind, message = outcome.error
            tally.quarantined += 1
            quarantine.append(quarantine_record(rows, outcome.at, opened.step, f"error: {kind}", message[:500]))
            continue
        batch.add(outcome, tally)
        if len(batch.parents) >= ROWS:
            yield batch.rows_and_clear()
    if batch.parents:
        yield batch.rows_and_clear()


def _healthy(opened: Opened, rows: Rows, guard: Guard, tally: Tally, quarantine: list[dict[str, Any]]) -> Rows:
    """Without the rows that broke a worker alone in an earlier try."""
    poison = {row: reason for step, row, reason in guard.task.poison if step == opened.step}
    sick = np.array([int(at) in poison for at in rows.at], bool)
    for at in np.flatnonzero(sick):
        tally.quarantined += 1
        reason = poison[int(rows.at[at])]
        quarantine.append(quarantine_record(rows, int(at), opened.step, reason, "it broke its worker"))
    return rows.where(~sick) if len(sick) else rows


def _outcomes(opened: Opened, rows: Rows, guard: Guard) -> Iterator[Outcome]:
    from synthetic.asking import Deferred

    stage = opened.stage
    assert isinstance(stage, Ask)
    assert isinstance(opened.params, AskParams)
    inputs = stage_input(rows.table, opened)
    stream = (row for low in range(0, inputs.num_rows, SLICE) for row in inputs.slice(low, SLICE).to_pylist())

    def tell(finished: int, pulse: Pulse | None = None) -> None:
        at = int(rows.at[min(finished, len(rows.at) - 1)]) if len(rows.at) else 0
        guard.tell(Mark(opened.step, at, 0, SILENCE, pulse))

    tell(0)
    try:
        yield from room_of(opened).ask(stage, opened.params, stream, tell, **opened.extras)
    except Deferred as error:
        raise StageError(f"step '{opened.step}': {error}") from error


def room_of(opened: Opened) -> Room:
    """The open room of an Ask step."""
    from synthetic.room import Room

    seat, params = opened.call.seat, opened.params
    assert isinstance(seat, Seat)
    assert isinstance(params, AskParams)
    key = repr((params.model, params.revision, params.api, sorted(seat.served.items()), seat.root, seat.share))
    if key not in _rooms:
        _rooms[key] = Room.open(params, seat.served, seat.root, seat.share)
    return _rooms[key]


@dataclass
class Batch:
    """Children on their way into a table."""

    opened: Opened
    source: Rows
    generator: Mapping[str, Any]
    parents: list[int] = field(default_factory=list)
    values: list[dict[str, Any]] = field(default_factory=list)

    def add(self, outcome: Outcome, tally: Tally) -> None:
        """The rows of one conversation; a row that says why stands in the place of one that did not come."""
        children = list(outcome.rows) if outcome.refused is None else [outcome.refused]
        children = children or [Refused("no_rows")]
        good = sum(1 for child in children if not isinstance(child, Refused))
        tally.standing += good > 0
        tally.made += good
        if not good:
            tally.dropped[next(c.reason for c in children if isinstance(c, Refused))] += 1
        for k, child in enumerate(children):
            tokens = (outcome.prompt_tokens, outcome.completion_tokens) if k == 0 else (0, 0)
            self.parents.append(outcome.at)
            self.values.append({
                **self._own(child), "k": k, "generator": self.generator, "prompt_tokens": tokens[0], "completion_tokens": tokens[1],
            })  # fmt: skip

    def _own(self, child: Mapping[str, Any] | Refused) -> Mapping[str, Any]:
        if isinstance(child, Refused):
            return {"drop_reason": child.reason, "refusal": child.detail[:500] or None}
        declared = set(self.opened.call.writes) - set(ASKED)
        if set(child) != declared:
            wrong = sorted(set(child) ^ declared)
            raise StageError(f"{self.opened.stage.name}: parse returned a row that differs from the declared columns in {wrong}")
        return child

    def rows_and_clear(self) -> Rows:
        """The batch as rows of the new frame."""
        parent = np.array(self.parents, np.int64)
        table = self.source.table.take(pa.array(parent))
        names = table["id"].to_pylist()
        for name, kind in self.opened.call.writes.items():
            if name != "parent_id":
                table = with_column(table, name, pa.array([v.get(name) for v in self.values], kind))
        ids = [f"{name}#{v['k']}" for name, v in zip(names, self.values, strict=True)]
        table = with_column(table, "parent_id", pa.array(names, pa.string()))
        table = with_column(table, "id", pa.array(ids, pa.string()))
        table = with_column(table, PARENT_AT, pa.array(self.source.at[parent], pa.int64()))
        self.parents, self.values = [], []
        return Rows(np.arange(len(parent)), table)


def generator_of(stage: Ask, params: Params) -> dict[str, Any]:
    """Model and prompts of an Ask as the column `generator` names them."""
    assert isinstance(params, AskParams)
    prompts = stage.prompts(params)
    model = f"{params.model}@{params.revision}" if params.revision else params.model
    return {"model": model, "prompt": "+".join(p.name for p in prompts), "version": prompts[0].version if prompts else 0}
