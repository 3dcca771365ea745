"""The stage contract: what an author writes, and all that the engine knows about it.

A stage is a frozen value that describes a pure function. There are five kinds:

    Source   units(params) -> Unit...            read(unit, params) -> Chunk...
    Map      run(batch, params) -> table         rows="same" adds columns; rows="any" makes a new frame
    Reduce   emit(batch, params) -> table        settle(batches, params) -> table...
    Ask      prompt(row, so_far, params)         parse(row, replies, params) -> rows or Refused
    Export   encode(batches, params, files)      finish(summaries, params) -> files of the whole dataset

The engine owns everything else: ids, batching, fusion, the exchange between emit and settle, commit, accounting.
A stage is found by its import path (`stages.filters.length.by_words`); nothing is registered anywhere.

Columns with a meaning to the engine:

    id           string, 32 hex digits; the identity of a row in every frame
    drop_reason  string; null means keep. A Map or a verdict fills it, the first reason wins
    row          int64, the address of a row (frame << 56 | shard << 32 | position); readable by an emit, written by a verdict
    key          uint64, uniformly distributed; places an emitted row in a partition and orders it there
    parent, k    int64 and int32; what a rows="any" Map returns: index into its batch, and the child's number
    step         string; the step that a row of a union came from
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal, Protocol, TypeVar, get_type_hints

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from stages.prompt import Prompt

Columns = Mapping[str, pa.DataType]
Declared = Columns | Callable[[Any], Columns]
P = TypeVar("P", bound="Params")

TEXT = pa.large_string()
"""The type of `text`: 32-bit offsets overflow at 2 GiB, which one gathered shard can reach."""
BYTES = pa.large_binary()

CORE: Columns = {
    "id": pa.string(),
    "url": pa.string(),
    "source": pa.string(),
    "date": pa.string(),
    "language": pa.string(),
    "origin": pa.struct([("unit", pa.string()), ("offset", pa.int64()), ("length", pa.int64())]),
}
"""What every source row carries beside its content; `origin.unit` is the unit's name, so that a row leads back to bytes."""


class Unusable(Exception):  # noqa: N818 - it names the fault
    """A stage cannot work with the model, side table or parameters it was given: no row is to blame, the task fails with this."""


class Params(BaseModel):
    """Parameters of a stage: closed (an unknown key is refused by name) and frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class AskParams(Params):
    """What every Ask has to know: which model is asked. `run.models` of the recipe says where it is served."""

    model: str = Field(description="Name of the model; run.models of the recipe says where it is served.")
    revision: str = Field("", description="Revision of the weights, where the name alone does not fix them.")
    api: Literal["chat", "completions"] = Field(
        "chat", description="chat: the server applies the model's template. completions: the messages are joined to one text."
    )
    seed: int = Field(0, description="Seed of the sampling, part of every request.")


def knob(default: Any, description: str, **limits: Any) -> Any:
    """A parameter that says how and never what: it does not enter the identity of a result (batch sizes, paths of inputs)."""
    return Field(default, description=description, json_schema_extra={"how": True}, **limits)


def file(default: Any, description: str) -> Any:
    """A parameter that names a file (model, word list): its content enters the identity of a result, its path does not."""
    return Field(default, description=description, json_schema_extra={"file": True})


@dataclass(frozen=True, slots=True)
class Unit:
    """What one task reads: a whole input file or a range of it.

    `name` is the path under the source root and, with size, witness and range, the identity; `path` only says where to
    open it. `start` and `stop` mean what the source says (compressed bytes, row groups, lines); stop None is the end.
    """

    name: str
    path: str
    size: int
    witness: str
    start: int = 0
    stop: int | None = None

    @property
    def key(self) -> str:
        """16 hex digits that name this unit's parts in the store."""
        text = f"{self.name}\0{self.size}\0{self.witness}\0{self.start}\0{self.stop}"
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class Bad:
    """A record that could not become a row: it costs itself only and stands in the quarantine table."""

    offset: int
    reason: str
    length: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows read from a unit, and the count of all records met on the way: records = rows + skipped + bad."""

    rows: pa.Table
    records: int
    skipped: Mapping[str, int] = field(default_factory=dict)
    bad: Sequence[Bad] = ()


@dataclass(frozen=True, slots=True)
class Memory:
    """What a settle needs at most beside the rows that the engine shows it; the plan prints it before anything runs."""

    per_row: float = 0.0
    """Bytes of memory for each row of its partition, its results included."""
    fixed: int = 0
    """Bytes of memory whatever the rows."""
    disk_per_row: float = 0.0
    """Bytes of scratch files for each row."""


class FileGroup(Protocol):
    """Where an Export writes one shard: every file opened here is committed together, or none of them."""

    def open(self, suffix: str) -> BinaryIO:
        """A file for writing, named after the shard with this suffix (`.bin`)."""
        ...


@dataclass(frozen=True)
class Stage:
    """What all kinds share. `name` is the import path; `version` is the author's promise about the output bytes."""

    name: str
    version: int
    params: type[Params]
    doc: str
    reads: Declared = field(default_factory=dict)
    writes: Declared = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    """Columns of `reads` that may be missing: the stage then sees nulls."""
    libraries: tuple[str, ...] = ()
    """Distributions whose versions shape the output bytes and therefore enter its identity."""
    given: tuple[str, ...] = ()
    """Names of small side tables, passed to the function as keyword arguments (pa.Table)."""
    model: Callable[[Any], Any] | None = None
    """Opened once per worker process with the params, then passed as the keyword argument `model`."""
    seconds_per_row: float = 30.0
    """Limit for one row; the row is quarantined when it alone needs three times as long."""

    def reads_of(self, params: Params) -> dict[str, pa.DataType]:
        """Columns read under these parameters."""
        return dict(self.reads(params) if callable(self.reads) else self.reads)

    def writes_of(self, params: Params) -> dict[str, pa.DataType]:
        """Columns written under these parameters."""
        return dict(self.writes(params) if callable(self.writes) else self.writes)


@dataclass(frozen=True)
class Source(Stage):
    """Rows from outside. `units` is ordered and cheap; `read` yields Chunks of at most some thousand rows.

    `id` is made by the engine from origin unless `read` fills it. Columns in `transient` are never stored.
    """

    units: Callable[[Any], Iterable[Unit]] = field(kw_only=True)
    read: Callable[..., Iterator[Chunk]] = field(kw_only=True)
    transient: frozenset[str] = frozenset()

    def __call__(self, unit: Unit, params: Params, **given: Any) -> Iterator[Chunk]:
        """Read a unit without the engine."""
        return self.read(unit, params, **given)


@dataclass(frozen=True)
class Map(Stage):
    """A function of a batch. rows="same": one output row for each input row, in order, with at least the written columns.

    rows="any": any number of rows with `parent` (index into the batch, ascending) and, where a parent has several
    children, `k`. The batch holds standing rows only and at least `id` and the columns of `reads`.
    """

    run: Callable[..., pa.Table] = field(kw_only=True)
    rows: Literal["same", "any"] = "same"
    transient: frozenset[str] = frozenset()
    derived: Mapping[str, str] = field(default_factory=dict)
    """Columns of `reads` that a provider stage (its import path) makes on the fly from columns of the frame."""
    batch_rows: int | None = None
    """Exact batch size, for stages whose output depends on it (padding in an encoder); None: any batch, same bytes."""
    union: bool = False
    copies: Callable[[Any], bool] = field(default=lambda _params: False)
    """rows="any" only: store every column of the new frame physically instead of a selection of the parent's."""

    def __call__(self, batch: pa.Table, params: Params, **given: Any) -> pa.Table:
        """Run on a batch without the engine."""
        return self.run(batch, params, **given)


@dataclass(frozen=True)
class Reduce(Stage):
    """A global operation: emit from every batch, exchange by key, settle each partition.

    `emits` are the columns that `emit` returns, `key` among them. `settle` gets an iterator of tables sorted by key,
    then in input order; no key is ever cut between two tables. result="verdict": settle yields `row` and the written
    columns, at most one row per address, and the engine carries them home to the frame that was read first.
    result="dataset": settle yields the rows of a new frame with one shard per partition.
    """

    emit: Callable[..., pa.Table] = field(kw_only=True)
    settle: Callable[..., Iterator[pa.Table]] = field(kw_only=True)
    emits: Declared = field(kw_only=True)
    result: Literal["verdict", "dataset"] = "verdict"
    partitions: Callable[[Any], int] = field(default=lambda params: int(params.partitions))
    combine: Callable[[pa.Table, Any], pa.Table] | None = None
    """Emitted rows of several batches or tasks -> fewer rows of the same columns, for summaries that merge (counts, extremes).
    Must be associative: the engine calls it whenever rows pile up, and settle then holds the summary and not the rows."""
    derived: Mapping[str, str] = field(default_factory=dict)
    union: bool = False
    alone: bool = True
    """False: settle is not shown rows whose key nobody shares, which are most of them where copies are sought."""
    streams: bool = False
    """Settle takes its rows as they lie in the spills, in no order of keys, and yields verdicts by ascending `row`: the engine
    holds one batch of either."""
    fan_out: Callable[[Any], float] = field(default=lambda _params: 1.0)
    """Rows emitted for a row read, typically: the plan estimates with it."""
    memory: Callable[[Any], Memory] = field(default=lambda _params: Memory())

    def emits_of(self, params: Params) -> dict[str, pa.DataType]:
        """Columns emitted under these parameters."""
        return dict(self.emits(params) if callable(self.emits) else self.emits)


GENERATOR = pa.struct([("model", pa.string()), ("prompt", pa.string()), ("version", pa.int32())])
"""Who wrote a row: model (with @revision), and the prompt or the prompts (joined by +) with the version of the first."""
ASKED: Columns = {
    "parent_id": pa.string(),
    "k": pa.int32(),
    "generator": GENERATOR,
    "prompt_tokens": pa.int32(),
    "completion_tokens": pa.int32(),
    "refusal": pa.string(),
    "drop_reason": pa.string(),
}
"""What the engine writes in every row of an Ask beside the stage's own columns. The tokens of a whole conversation stand in
its first row; a conversation of which nothing came is one row with its reason, and `refusal` says more about it."""


@dataclass(frozen=True)
class Ask(Stage):
    """Rows that wait for a language model. One row owns all its requests; the engine owns waiting, retries, ledger and cost.

    `prompt(row, so_far, params, **given)` gets the row (a mapping of the columns of `reads`, and `id`) and the exchanges so
    far in the order in which they were asked for, and returns further requests, or none when the conversation is over.
    `parse(row, replies, params, **given)` gets all exchanges in that order (`request.tag`, `reply.text`, `reply.finish`) and
    turns them into rows (mappings of the columns of `writes`), with Refused in the place of a row of which nothing came (one
    segment of a document), or into Refused for the whole. Both are pure.
    A row that is rewritten gets the answer in `text`; stages that are verified later keep the original in `source_text`.
    """

    prompt: Callable[..., Any] = field(kw_only=True)
    parse: Callable[..., Any] = field(kw_only=True)
    prompts: Callable[[Any], Sequence[Prompt]] = field(kw_only=True)
    """The prompt files in use under these parameters: their text is part of the question, their names of `generator`."""
    rounds: int = 16
    """A conversation that still asks after so many rounds is refused as `too_many_rounds`."""

    def writes_of(self, params: Params) -> dict[str, pa.DataType]:
        """The stage's own columns and those of the engine."""
        own = self.writes(params) if callable(self.writes) else self.writes
        return {**own, **ASKED}


@dataclass(frozen=True)
class Export(Stage):
    """Files for somebody else's reader, one group per shard. `encode` returns a summary that counts `rows` at least."""

    encode: Callable[..., Mapping[str, Any]] = field(kw_only=True)
    finish: Callable[..., Mapping[str, bytes]] = field(kw_only=True)
    union: bool = False


def _path_and_params(function: Callable[..., Any]) -> tuple[str, type[Params], str]:
    hints = get_type_hints(function)
    found = [h for h in hints.values() if isinstance(h, type) and issubclass(h, Params)]
    if len(found) != 1:
        name = f"{function.__module__}.{function.__qualname__}"
        raise TypeError(f"{name}: annotate exactly one argument with a subclass of Params (found {len(found)})")
    return f"{function.__module__}.{function.__qualname__}", found[0], inspect.getdoc(function) or ""


def source(
    *, version: int, units: Callable[[Any], Iterable[Unit]], writes: Declared, transient: Iterable[str] = (), **more: Any
) -> Callable[[Callable[..., Iterator[Chunk]]], Source]:
    """Declare `read(unit, params)` a Source; `writes` names the columns beside the core ones."""

    def declare(function: Callable[..., Iterator[Chunk]]) -> Source:
        name, params, doc = _path_and_params(function)
        return Source(
            name=name, version=version, params=params, doc=doc, writes=writes, units=units, read=function,
            transient=frozenset(transient), **more,
        )  # fmt: skip

    return declare


def map_stage(
    *, version: int, reads: Declared, writes: Declared, transient: Iterable[str] = (), **more: Any
) -> Callable[[Callable[..., pa.Table]], Map]:
    """Declare `run(batch, params, **given)` a Map."""

    def declare(function: Callable[..., pa.Table]) -> Map:
        name, params, doc = _path_and_params(function)
        return Map(
            name=name, version=version, params=params, doc=doc, reads=reads, writes=writes, run=function,
            transient=frozenset(transient), **more,
        )  # fmt: skip

    return declare


def reduce_stage(
    *, version: int, reads: Declared, emits: Declared, writes: Declared, settle: Callable[..., Iterator[pa.Table]], **more: Any
) -> Callable[[Callable[..., pa.Table]], Reduce]:
    """Declare `emit(batch, params)` a Reduce."""

    def declare(function: Callable[..., pa.Table]) -> Reduce:
        name, params, doc = _path_and_params(function)
        return Reduce(
            name=name, version=version, params=params, doc=doc, reads=reads, writes=writes, emits=emits, emit=function,
            settle=settle, **more,
        )  # fmt: skip

    return declare


def ask_stage(
    *,
    version: int,
    reads: Declared,
    writes: Declared,
    parse: Callable[..., Any],
    prompts: Callable[[Any], Sequence[Prompt]],
    **more: Any,
) -> Callable[[Callable[..., Any]], Ask]:
    """Declare `prompt(row, so_far, params)` an Ask."""

    def declare(function: Callable[..., Any]) -> Ask:
        name, params, doc = _path_and_params(function)
        return Ask(
            name=name, version=version, params=params, doc=doc, reads=reads, writes=writes, prompt=function, parse=parse,
            prompts=prompts, **more,
        )  # fmt: skip

    return declare


def export_stage(
    *, version: int, reads: Declared, finish: Callable[..., Mapping[str, bytes]], **more: Any
) -> Callable[[Callable[..., Mapping[str, Any]]], Export]:
    """Declare `encode(batches, params, files)` an Export."""

    def declare(function: Callable[..., Mapping[str, Any]]) -> Export:
        name, params, doc = _path_and_params(function)
        return Export(
            name=name, version=version, params=params, doc=doc, reads=reads, encode=function, finish=finish, **more
        )  # fmt: skip

    return declare
