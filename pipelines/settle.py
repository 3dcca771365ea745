"""The second halves: merge spills, settle a partition, carry verdicts home, finish an export."""

from __future__ import annotations

import tempfile
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from manifests.manifest import Receipt
from manifests.place import fetch
from manifests.shard import PartDraft, TableWriter
from manifests.spill import merge_spills, merged, read_partition, stable_order, taken
from manifests.store import Store
from pipelines.chain import Opened, declared, open_call
from pipelines.gather import DROP_REASON, DROP_STEP, ENTERED, standing
from pipelines.guard import StageError
from pipelines.layer import BOOKKEEPING, reason_counts
from pipelines.pile import Pile
from pipelines.program import Finish, FrameUnit, Home, Merge, Settle, Task
from stages.contract import Export, Reduce

SETTLE_ROWS = 65_536
"""Rows of a table given to settle, more where one key has more."""


def run_settle(work: Settle, task: Task) -> Receipt:
    """One partition: rows by key, verdicts by row or the rows of a new shard."""
    started = time.monotonic()
    opened = open_call(work.call)
    assert isinstance(opened.stage, Reduce)
    spills = f"{work.root}/spills/{work.spill}/parts"
    paths = [f"{spills}/{key}.spill" for key in work.parts]
    schema = pa.schema(list(work.emits.items()))
    came = Shown(read_partition(paths, task.shard, schema), opened, schema)
    results = opened.stage.settle(iter(came), opened.params, **opened.extras)
    writes = {**({"row": pa.int64()} if work.verdict else {}), **work.call.writes}
    outputs = (declared(opened, writes, out) for out in results)
    folder = f"{work.root}/{'spills' if work.verdict else 'objects'}/{work.address}"
    with PartDraft(folder, task.unit.key) as draft, _scratch(draft.drafts):
        if not work.verdict:
            rows = _write_dataset(draft, outputs, writes)
        else:
            rows = _write_verdicts(draft, outputs if opened.stage.streams else _by_row(outputs, writes), writes)
        counts = {"members": [{"in": came.rows, "made": rows}]}
        return Receipt(task.unit.key, task.unit.name, rows, draft.commit(), counts, round(time.monotonic() - started, 3))


def run_merge(work: Merge, task: Task) -> Receipt:
    """One spill out of many, which are read whole: a request each, however many partitions there are."""
    started = time.monotonic()
    opened = open_call(work.call)
    assert isinstance(opened.stage, Reduce)
    paths = [fetch(f"{work.root}/spills/{work.spill}/parts/{key}.spill") for key in work.groups[task.shard]]
    schema = pa.schema(list(work.emits.items()))

    def joined(partition: int) -> pa.Table:
        pile = Pile(opened, schema)
        for batch in read_partition(paths, partition, schema):
            pile.add(pa.Table.from_batches([batch]))
        table = pile.merged()
        return taken(table, *stable_order(table["key"].to_numpy()))

    with PartDraft(f"{work.root}/spills/{work.address}", task.unit.key) as draft:
        rows = merge_spills(draft.open(".spill"), paths, joined)
        return Receipt(task.unit.key, task.unit.name, rows, draft.commit(), {}, round(time.monotonic() - started, 3))


class Shown:
    """The rows of a partition on their way to a settle, as its stage wants them; `rows` counts all that the spills held."""

    def __init__(self, batches: Iterator[pa.RecordBatch], opened: Opened, schema: pa.Schema) -> None:
        assert isinstance(opened.stage, Reduce)
        self.rows = 0
        self._tables: Iterator[pa.Table]
        counted = self._count(batches)
        if opened.stage.combine is not None:
            counted = _combined(counted, opened, schema)
        one_by_one = (pa.Table.from_batches([batch]) for batch in counted)
        self._tables = one_by_one if opened.stage.streams else merged(counted, schema, SETTLE_ROWS, opened.stage.alone)

    def _count(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            self.rows += batch.num_rows
            yield batch

    def __iter__(self) -> Iterator[pa.Table]:
        """The tables, once."""
        return self._tables


def _combined(batches: Iterator[pa.RecordBatch], opened: Opened, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """What is left of a partition once its stage has merged what it can, by key."""
    pile = Pile(opened, schema)
    for batch in batches:
        pile.add(pa.Table.from_batches([batch]))
    table = pile.merged()
    yield from taken(table, *stable_order(table["key"].to_numpy())).to_batches()


@contextmanager
def _scratch(folder: Path) -> Iterator[None]:
    """Temporary files of a settle lie on the store's disk, among the drafts: what a killed run leaves goes with them."""
    folder.mkdir(parents=True, exist_ok=True)
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def _by_row(outputs: Iterator[pa.Table], writes: dict[str, pa.DataType]) -> Iterator[pa.Table]:
    """All verdicts of a partition in one table, by row."""
    table = pa.concat_tables([pa.schema(list(writes.items())).empty_table(), *outputs]).combine_chunks()
    yield table.take(pa.array(np.argsort(table["row"].to_numpy(), kind="stable")))


def _write_verdicts(draft: PartDraft, outputs: Iterator[pa.Table], writes: dict[str, pa.DataType]) -> int:
    """An uncompressed Arrow file sorted by row: a shard's slice is found by bisection in mapped memory."""
    count, last = 0, -1
    with pa.ipc.new_file(draft.open(".arrow"), pa.schema(list(writes.items()))) as writer:
        for out in outputs:
            rows = out["row"].to_numpy()
            if len(rows) and (rows[0] < last or (rows[1:] < rows[:-1]).any()):
                raise StageError("a settle that streams yields its verdicts by ascending row; this one went back")
            if len(rows):
                last, count = int(rows[-1]), count + len(rows)
                writer.write_table(out.combine_chunks())
    return count


def _write_dataset(draft: PartDraft, outputs: Iterator[pa.Table], writes: dict[str, pa.DataType]) -> int:
    """A shard of the new frame: nothing has been dropped from it yet. An `id` that is null is made where it is read."""
    own = writes if "id" in writes else {"id": pa.string(), **writes}
    more = {**BOOKKEEPING, **({} if "id" in writes else {"id": pa.string()})}
    writer = TableWriter(draft.open(".parquet"), pa.schema([*own.items(), *BOOKKEEPING.items()]), addresses=True)
    with ExitStack() as stack:
        stack.callback(writer.abandon)
        for out in outputs:
            nulls = {name: pa.nulls(out.num_rows, kind) for name, kind in more.items()}
            writer.write(pa.table({**{n: out[n] for n in writes}, **nulls}))
        writer.close()
    return writer.rows


def run_home(work: Home, task: Task) -> Receipt:
    """The layer that a verdict adds to one shard: columns where there is a verdict, null elsewhere."""
    started = time.monotonic()
    mask = standing(work.root, work.standing, task.unit)
    assert mask is not None
    verdicts = _slice_of(work, task.shard)
    at = (verdicts["row"].to_numpy() & 0xFFFFFFFF).astype(np.int64)
    _check(work, task.unit, at, mask)
    index = np.zeros(len(mask), np.int64)
    known = np.zeros(len(mask), bool)
    index[at], known[at] = np.arange(len(at)), True
    place = pa.array(index, mask=~known)
    columns = {n: verdicts[n].combine_chunks().take(place) for n in work.call.writes if n != DROP_REASON}
    reasons = pa.nulls(len(mask), pa.string())
    if DROP_REASON in work.call.writes:
        reasons = verdicts[DROP_REASON].combine_chunks().take(place)
    fallen = reasons.is_valid().to_numpy(zero_copy_only=False)
    steps = np.where(mask, 0, ENTERED).astype(np.int16)
    columns |= {DROP_STEP: pa.array(steps, mask=mask & ~fallen), DROP_REASON: reasons}
    table = pa.table(columns)
    with PartDraft(f"{work.root}/objects/{work.address}", task.unit.key) as draft:
        writer = TableWriter(draft.open(".parquet"), table.schema)
        writer.write(table)
        writer.close()
        dropped = dict(sorted(reason_counts(reasons.drop_null()).items()))
        counts = {"members": [{"in": int(mask.sum()), "standing": int(mask.sum() - fallen.sum()), "dropped": dropped}]}
        return Receipt(task.unit.key, task.unit.name, len(mask), draft.commit(), counts, round(time.monotonic() - started, 3))


def _check(work: Home, unit: FrameUnit, at: np.ndarray, mask: np.ndarray) -> None:
    if len(np.unique(at)) != len(at):
        raise StageError(f"{work.call.stage}: two verdicts on one row of {unit.name}; settle must judge a row at most once")
    if len(at) and (at.max() >= len(mask) or not mask[at].all()):
        raise StageError(f"{work.call.stage}: a verdict on a row of {unit.name} that it was not shown")


def _slice_of(work: Home, shard: int) -> pa.Table:
    address = (work.frame << 56) | (shard << 32)
    found = []
    for key in work.partitions:
        path = fetch(f"{work.root}/spills/{work.settled}/parts/{key}.arrow")
        table, batches = _settled(path, path.stat().st_mtime_ns)
        low, high = _place(batches, address), _place(batches, address + (1 << 32))
        found.append(table.slice(low, high - low))
    joined = pa.concat_tables(found)
    return joined.take(pa.array(np.argsort(joined["row"].to_numpy(), kind="stable")))


@lru_cache(maxsize=512)
def _settled(path: Path, _written: int) -> tuple[pa.Table, list[np.ndarray]]:
    """A settled partition in mapped memory and its addresses: a worker carries many shards home from the same files."""
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
    return table, [chunk.to_numpy() for chunk in table["row"].chunks]


def _place(batches: list[np.ndarray], address: int) -> int:
    """How many addresses, in ascending batches, are smaller than this one."""
    number = bisect_left(batches, address, key=lambda rows: rows[-1])
    before = sum(len(rows) for rows in batches[:number])
    return before + (int(np.searchsorted(batches[number], address)) if number < len(batches) else 0)


def run_finish(work: Finish, task: Task) -> Receipt:
    """Files of the whole dataset, from the summaries of its shards in order."""
    started = time.monotonic()
    opened = open_call(work.call)
    assert isinstance(opened.stage, Export)
    target = Store(work.root).object(work.address)
    receipts = target.receipts()
    summaries = [{"name": f"parts/{key}", **receipts[key].counts["summary"]} for key in work.keys]
    with PartDraft(target.url, task.unit.key) as draft:
        for name, data in sorted(opened.stage.finish(summaries, opened.params).items()):
            draft.open(f".{name}").write(data)
        return Receipt(task.unit.key, "dataset", 0, draft.commit(), {}, round(time.monotonic() - started, 3))
