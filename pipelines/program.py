"""What is shipped to a worker: frozen, picklable, and without the graph.

A Program is the same for all units of a pass; a Task names one unit of it. A task carries the ids it needs and nothing
else: at 100,000 units everything repeated per task costs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from stages.contract import Unit

if TYPE_CHECKING:
    from synthetic.pulse import Pulse


@dataclass(frozen=True, slots=True)
class FrameUnit:
    """One shard of a frame: its key, and where its rows come from."""

    key: str
    name: str
    source: Unit | None = None
    parent: FrameUnit | None = None
    parent_frame: int = 0
    """Which of the parent frames `parent` belongs to."""


@dataclass(frozen=True, slots=True)
class FrameView:
    """Where the columns of a frame are stored: in objects on the frame, or on the parent's frame through a selection."""

    objects: Mapping[str, str]
    """Column to address."""
    base: str | None = None
    """The object with `parent_at`, for a frame that is a selection."""
    parents: tuple[FrameView, ...] = ()
    steps: tuple[str, ...] = ()
    """Names of the parent steps, for the column `step` of a union."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Rows that stand at a step: an object and the last member whose drops count."""

    address: str
    member: int


@dataclass(frozen=True, slots=True)
class Seat:
    """Where an Ask is answered: how its model is served, the store that holds the ledger, and how many workers share the limits."""

    served: Mapping[str, Any]
    root: str
    share: int


@dataclass(frozen=True, slots=True)
class Call:
    """A stage with its parameters, by name."""

    step: str
    stage: str
    params: Mapping[str, Any]
    reads: Mapping[str, pa.DataType]
    writes: Mapping[str, pa.DataType]
    where: str | None = None
    given: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Argument name to the files of a small dataset."""
    sample: float | None = None
    fill: tuple[str, int] | None = None
    """An object and member that already answered this question for other standing rows."""
    seat: Seat | None = None
    """For an Ask."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a piece, an emit or an export reads: steps computed in the same pass, and steps stored before."""

    live: tuple[str, ...] = ()
    """Last steps of pieces of the same program."""
    stored: tuple[Standing, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """A chain of Maps on one frame (its first member may be a Source or a Map that makes the frame): one object."""

    address: str
    label: str
    members: tuple[Call, ...]
    inputs: Inputs
    stored: Mapping[str, pa.DataType]
    """Columns of the object, in order."""
    keep_text: bool = False
    write: bool = True

    @property
    def tail(self) -> str:
        """The step whose rows leave this piece."""
        return self.members[-1].step


@dataclass(frozen=True, slots=True)
class Emit:
    """The first half of a Reduce."""

    call: Call
    inputs: Inputs
    address: str
    partitions: int
    emits: Mapping[str, pa.DataType]
    frame: int = 0
    """Which of the read frames this is: the top byte of `row`."""
    source: str = ""
    """In a union the step that these rows come from: the column `step`."""


@dataclass(frozen=True, slots=True)
class Encode:
    """The first half of an Export."""

    call: Call
    inputs: Inputs
    address: str
    prefix: str = ""
    """Before the unit's key, where several frames are exported together."""


@dataclass(frozen=True, slots=True)
class Program:
    """One pass over the units of a frame."""

    id: str
    root: str
    """The store."""
    folder: str
    """The recipe's own folder, importable in workers."""
    frame: str
    view: FrameView
    mode: str
    """source: read the unit. rows: make the frame out of its parent's rows. stored: read committed layers."""
    pieces: tuple[Piece, ...]
    emits: tuple[Emit, ...] = ()
    exports: tuple[Encode, ...] = ()
    loads: tuple[str, ...] = ()
    """Stored columns that the pass reads."""
    check: str | None = None
    """On a second read of a source: the object whose ids must come out again."""


@dataclass(frozen=True, slots=True)
class Settle:
    """The second half of a Reduce, for one partition."""

    call: Call
    root: str
    folder: str
    address: str
    """Of the object (dataset) or of the settled verdicts (verdict)."""
    spill: str
    parts: tuple[str, ...]
    emits: Mapping[str, pa.DataType]
    verdict: bool
    key: str = ""


@dataclass(frozen=True, slots=True)
class Merge:
    """Join so many spills of a Reduce into one, where there are too many for every settle task to read a slice of each."""

    call: Call
    root: str
    folder: str
    address: str
    """Of the merged spills."""
    spill: str
    groups: tuple[tuple[str, ...], ...]
    """Parts of `spill`, a merged one each."""
    emits: Mapping[str, pa.DataType]


@dataclass(frozen=True, slots=True)
class Home:
    """Carry verdicts home to a range of shards."""

    call: Call
    root: str
    address: str
    settled: str
    partitions: tuple[str, ...]
    standing: tuple[Standing, ...]
    frame: int = 0


@dataclass(frozen=True, slots=True)
class Finish:
    """The second half of an Export: files of the whole dataset."""

    call: Call
    root: str
    folder: str
    address: str
    units: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Task:
    """One unit of work. `work` is shipped once per worker and known by `program` afterwards."""

    program: str
    unit: FrameUnit
    shard: int
    careful: tuple[tuple[str, int], ...] = ()
    """(step, first row) of batches that broke a worker: their rows are run one by one."""
    poison: tuple[tuple[str, int, str], ...] = ()
    """(step, row, reason): rows that broke a worker alone; quarantined without another try."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a worker is: written before each batch, read by the driver when the worker dies or stands still."""

    step: str
    first: int
    rows: int
    limit: float
    asks: Pulse | None = None
    """How the requests of an Ask stand."""


Work = Program | Merge | Settle | Home | Finish


def calls_of(work: Work) -> tuple[Call, ...]:
    """Every stage that the work runs."""
    if isinstance(work, Program):
        members = (call for piece in work.pieces for call in piece.members)
        return (*members, *(e.call for e in work.emits), *(e.call for e in work.exports))
    return (work.call,)
