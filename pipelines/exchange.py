"""What each exchange of a plan costs: requests, bytes, and the memory of one settle task. Exact where emits are there already."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from manifests.spill import BATCH
from pipelines.plan import Plan
from pipelines.program import Merge, Settle
from stages.contract import Reduce

UNKNOWN = 40
"""Bytes of a value whose type does not say its width: an id of 32 digits with its offset."""
SETTLE_SPREAD = 1.1
"""The largest partition over the mean one: keys are spread evenly, but not to the last row."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One Reduce between emit and settle; rows are None where nobody has counted those it reads."""

    step: str
    spills: int
    """Spills that a settle task reads."""
    merged: int
    """Spills that are merged into these first; 0 where they are read as they are."""
    partitions: int
    row_bytes: int
    rows: int | None
    measured: bool
    memory_per_row: float
    memory_fixed: int
    disk_per_row: float

    @property
    def requests(self) -> int:
        """Reads of whole spills to merge them, and range reads of all settle tasks."""
        return self.merged + self.spills * self.partitions

    @property
    def bytes(self) -> int | None:
        """Bytes of all spills, before compression."""
        return None if self.rows is None else self.rows * self.row_bytes

    @property
    def memory(self) -> int | None:
        """Bytes that one settle task holds at most."""
        if self.rows is None:
            return None if self.memory_per_row else self.memory_fixed
        return round(SETTLE_SPREAD * self.rows / self.partitions * self.memory_per_row) + self.memory_fixed

    def line(self) -> str:
        """As the plan says it."""
        first = f"{self.merged:,} to merge, then " if self.merged else ""
        head = f"exchange {self.step}: {self.requests:,} requests ({first}{self.spills:,} x {self.partitions:,})"
        scratch = f", {self.disk_per_row:.0f} bytes of scratch files a row" if self.disk_per_row else ""
        if self.rows is None:
            held = " + ".join(
                [f"{self.memory_per_row:.0f} bytes a row of its part"] * bool(self.memory_per_row)
                + [f"{self.memory_fixed / 1e6:,.0f} MB"] * bool(self.memory_fixed)
            )
            return f"{head}, {self.row_bytes} bytes a row; a settle holds {held}{scratch}"
        about = "" if self.measured else "about "
        size = f"{about}{self.rows:,} rows, {self.rows * self.row_bytes / 1e6:,.1f} MB"
        return f"{head}, {size}; a settle holds {about}{(self.memory or 0) / 1e6:,.1f} MB{scratch}"


def exchanges(plan: Plan) -> list[Exchange]:
    """Every exchange that has settle tasks left."""
    merges = {w.address: w for a in plan.actions for w in a.work.values() if isinstance(w, Merge)}
    return [
        _exchange(plan, work, merges.get(work.spill))
        for a in plan.actions
        if a.do == "settle" and a.tasks
        for work in a.work.values()
        if isinstance(work, Settle)
    ]


def width(emits: dict[str, pa.DataType]) -> int:
    """Bytes of a row in the exchange, before compression."""
    sizes = [t.bit_width if pa.types.is_primitive(t) or pa.types.is_fixed_size_binary(t) else 8 * UNKNOWN for t in emits.values()]
    return -(-sum(sizes) // 8)


def _exchange(plan: Plan, work: Settle, merge: Merge | None) -> Exchange:
    node = plan.layout.graph[work.call.step]
    stage = node.stage
    assert isinstance(stage, Reduce)
    memory, row_bytes = stage.memory(node.params), width(dict(work.emits))
    receipts = plan.layout.store.spill(merge.spill if merge else work.spill).receipts()
    parts = [key for group in merge.groups for key in group] if merge else work.parts
    measured = all(key in receipts for key in parts)
    rows = sum(receipts[key].rows for key in parts) if measured else _estimate(plan, node.step.parents, stage.fan_out(node.params))
    held = 0.0 if stage.streams or stage.combine is not None else float(row_bytes)
    fixed = memory.fixed + (BATCH * row_bytes if stage.streams else 0)
    return Exchange(
        work.call.step, len(work.parts), len(parts) if merge else 0, stage.partitions(node.params), row_bytes, rows, measured,
        held + memory.per_row, fixed, memory.disk_per_row,
    )  # fmt: skip


def _estimate(plan: Plan, parents: tuple[str, ...], fan_out: float) -> int | None:
    """Rows that will be emitted, if the rows of the frames that are read have been counted."""
    total = 0
    for frame in dict.fromkeys(plan.layout.graph[p].frame for p in parents):
        target, _ = plan.layout.holder[frame]
        units = plan.layout.units[target.frame]
        if not plan.layout.object(target).answered(units):
            return None
        total += int(plan.layout.object(target).head(units)["rows"])
    return round(total * fan_out)
