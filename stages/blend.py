"""A weighted, phased mixture, in three steps of which only small rows travel.

    sizes   Reduce  tokens of each source by range of the seed's order: what there is
    budget  Reduce  where each source is cut for each phase, exact to the document: the decision, some rows a source
    take    Map     the rows of each phase, as a selection: a mixture of 1.7 epochs stores no text

`sizes` knows nothing of shares: other shares, phases or limits are another `budget` and `take` only. The order depends on
id and seed alone, so that adding a source takes no document out of another and reshuffles none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from stages.contract import Params, map_stage, reduce_stage
from stages.mixture import SIZES, Cut, Demand, Mixture, Place, bounds_of, in_bounds, place, slices, stocks
from stages.order import Histogram, bucket_of, hashes, turned

Numbers = NDArray[Any]

BUDGET: Mapping[str, pa.DataType] = {
    "source": pa.string(), "phase": pa.string(), "at": pa.int32(), "epoch": pa.int32(), "seed": pa.uint64(),
    "first": pa.uint64(), "last": pa.uint64(), "rows": pa.int64(), "tokens": pa.int64(), "wanted": pa.int64(),
    "available": pa.int64(),
}  # fmt: skip
"""The decision, a row for each source, phase and epoch: rows of `source` whose place in the epoch's order (stages/order.py)
lies in [first, last] belong to the phase (number `at`). `wanted` is what the phase wants of the source in all its epochs,
`available` one epoch."""
TAKEN: Mapping[str, pa.DataType] = {
    "parent": pa.int64(), "k": pa.int32(), "copy": pa.int32(), "copies": pa.int32(), "phase": pa.string(),
}  # fmt: skip


class Sizes(Params):
    """What is counted, and in which order."""

    by: str = Field("step", description="Column that names the source of a row; a union of steps has `step`.")
    seed: int = Field(0, ge=0, lt=2**64, description="Another seed gives another order.")
    twice: Literal["refuse", "allow"] = Field("refuse", description="What to do about an id that occurs twice.")
    partitions: int = Field(
        8, ge=1, description="Parts of the order; a task holds one of them: some 100 bytes for each of its documents."
    )


def _size_rows(batches: Iterator[pa.Table], params: Sizes) -> Iterator[pa.Table]:
    found, doubles = Histogram(), dict[str, int]()
    for batch in batches:
        keys = batch["key"].to_numpy()
        encoded = batch["source"].combine_chunks().dictionary_encode()
        names, groups = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
        found.add(groups, names, bucket_of(keys), batch["tokens"].to_numpy())
        if params.twice == "refuse":
            for group in groups[1:][_repeated(keys, batch["check"].to_numpy())].tolist():
                doubles[names[group]] = doubles.get(names[group], 0) + 1
    if doubles:
        raise ValueError(_said_twice(doubles))
    for name in sorted(found.rows):
        filled = np.flatnonzero(found.rows[name])
        columns = [found.rows[name][filled], found.tokens[name][filled]]
        yield pa.table(
            [pa.repeat(name, len(filled)), filled.astype(np.int32), *columns, np.full(len(filled), params.seed, np.uint64)],
            schema=SIZES,
        )


def _repeated(keys: Numbers, checks: Numbers) -> Numbers:
    """Mask over rows 1.. of those that are the row before once more: 64 bits may collide, 128 do not."""
    return np.asarray((keys[1:] == keys[:-1]) & (checks[1:] == checks[:-1]))


def _said_twice(doubles: Mapping[str, int]) -> str:
    places = ", ".join(f"{count:,} in '{name}'" for name, count in sorted(doubles.items()))
    return (
        f"ids occur twice: {places}. Find them with `select id from RECIPE.STEP group by id having count(*) > 1` and drop them "
        "before the mixture, or set twice: allow. Where ids are made of file names, no two sources may have files of one name: put "
        "/./ where the names shall begin, as in sources/./wiki/*.parquet, or map an id with columns."
    )


@reduce_stage(
    version=1,
    reads=lambda params: {"id": pa.string(), params.by: pa.string(), "tokens": pa.int64()},
    emits={"key": pa.uint64(), "check": pa.uint64(), "source": pa.string(), "tokens": pa.int64()},
    writes=dict(zip(SIZES.names, SIZES.types, strict=True)),
    settle=_size_rows,
    result="dataset",
    libraries=("xxhash",),
)
def sizes(batch: pa.Table, params: Sizes) -> pa.Table:
    """Sum rows and `tokens` of each source by range of the order: `source`, `bucket` (0 to 4,095), `rows`, `tokens`, `seed`.

    Rows whose source is null belong to no source. Raises ValueError when an id occurs twice (a document would count twice
    in every epoch), naming the sources.
    """
    named = batch.filter(batch[params.by].is_valid())
    ids = named["id"].to_pylist()
    checks = hashes(ids, params.seed ^ 0x5851_F42D_4C95_7F2D)
    return pa.table(
        {"key": hashes(ids, params.seed), "check": checks, "source": named[params.by], "tokens": named["tokens"].fill_null(0)}
    )


class Cuts:
    """The demand of a mixture and its cuts, worked out once for all batches of a worker."""

    def __init__(self, params: Mixture) -> None:
        self.params = params
        self.sizes: pa.Table | None = None

    def of(self, sizes: pa.Table) -> Cuts:
        """Ready for this table of sizes."""
        if self.sizes is not sizes:
            self.demand = Demand(self.params, stocks(sizes, self.params.seed))
            self.refusal = self.demand.refusal()
            self.cuts: list[tuple[str, str, Cut]] = [] if self.refusal else list(self.demand.cuts())
            self.names = list(dict.fromkeys(source for source, _, _ in self.cuts))
            self.bounds = bounds_of(self.cuts)
            self.sizes = sizes
        return self


def _decide(batches: Iterator[pa.Table], _params: Mixture, *, model: Cuts, sizes: pa.Table) -> Iterator[pa.Table]:
    cuts = model.of(sizes)
    if cuts.refusal:
        raise ValueError(cuts.refusal)
    schema = pa.schema({"key": pa.uint64(), "source": pa.string(), "tokens": pa.int64()}.items())
    looked = pa.concat_tables([schema.empty_table(), *batches])
    yield pa.Table.from_pylist(list(_slices(cuts, looked)), schema=pa.schema(list(BUDGET.items())))


def _slices(cuts: Cuts, looked: pa.Table) -> Iterator[dict[str, Any]]:
    phases = list(cuts.demand.wanted)
    last: dict[str, Place] = {}
    encoded = looked["source"].combine_chunks().dictionary_encode()
    codes = {name: code for code, name in enumerate(encoded.dictionary.to_pylist())}
    sources, buckets = encoded.indices.to_numpy(), bucket_of(looked["key"].to_numpy())
    for source, phase, cut in cuts.cuts:
        here = np.flatnonzero((sources == codes[source]) & (buckets == cut.bucket)) if cut.need else np.empty(0, np.int64)
        rows = looked.take(pa.array(here))
        stop = place(cut, rows["key"].to_numpy(), rows["tokens"].to_numpy())
        stock = cuts.demand.have[source]
        facts = {
            "source": source, "phase": phase, "at": phases.index(phase), "seed": cuts.params.seed,
            "wanted": cuts.demand.wanted[phase].get(source, 0), "available": stock.total,
        }  # fmt: skip
        for part in slices(last.get(source, Place(0, 0, 0, 0)), stop, stock):
            yield facts | part
        last[source] = stop


@reduce_stage(
    version=1,
    reads=lambda params: {"id": pa.string(), params.by: pa.string(), "tokens": pa.int64()},
    emits={"key": pa.uint64(), "source": pa.string(), "tokens": pa.int64()},
    writes=BUDGET,
    settle=_decide,
    result="dataset",
    given=("sizes",),
    model=Cuts,
    partitions=lambda _params: 1,
    libraries=("xxhash",),
)
def budget(batch: pa.Table, params: Mixture, *, model: Cuts, sizes: pa.Table) -> pa.Table:
    """Cut every source at the budget of every phase; only documents near a cut are looked at.

    Out: a row for each source, phase and epoch with the range of keys that belongs to it, its exact `rows` and `tokens`,
    what was `wanted` and what is `available`. Raises ValueError for a mixture that cannot be made, with the numbers.
    """
    cuts = model.of(sizes)
    keys = hashes(batch["id"].to_pylist(), params.seed)
    near = in_bounds(cuts.names, batch[params.by], keys, cuts.bounds)
    chosen = batch.filter(pa.array(near))
    return pa.table({"key": keys[near], "source": chosen[params.by], "tokens": chosen["tokens"].fill_null(0)})


class Take(Params):
    """How the mixture is written down."""

    by: str = Field("step", description="Column that names the source of a row; that of the step `budget`.")
    repeat: Literal["virtual", "written"] = Field(
        "virtual", description="virtual: a row once for each phase, with its copies counted; written: a row for each copy."
    )
    copies: bool = Field(False, description="Store every column again instead of a selection; pays after about four reads.")


@map_stage(
    version=1,
    reads=lambda params: {"id": pa.string(), params.by: pa.string()},
    writes=TAKEN,
    rows="any",
    given=("budget",),
    copies=lambda params: params.copies,
    libraries=("xxhash",),
)
def take(batch: pa.Table, params: Take, *, budget: pa.Table) -> pa.Table:
    """The rows of the mixture: `phase`, `copy` (the epoch, from 0) and `copies` (how often the row counts in its phase).

    Under repeat: written every copy is a row of its own and `copies` is 1. The first row of a document keeps its id, the
    others get `#1`, `#2` and so on. sum(tokens * copies) by phase and source is what `budget` says.
    """
    none = (np.empty(0, np.int64),) * 3
    rows, at, epochs = (np.concatenate(column) for column in zip(none, *_hits(batch, params, budget), strict=True))
    order = np.lexsort((epochs, at, rows))
    rows, at, epochs = rows[order], at[order], epochs[order]
    copies = np.ones(len(rows), np.int32)
    if params.repeat == "virtual" and len(rows):
        first = np.flatnonzero(np.append(True, (rows[1:] != rows[:-1]) | (at[1:] != at[:-1])))
        copies = np.diff(np.append(first, len(rows))).astype(np.int32)
        rows, at, epochs = rows[first], at[first], epochs[first]
    return _taken(rows, at, epochs, copies, budget)


def _hits(batch: pa.Table, params: Take, budget: pa.Table) -> Iterator[tuple[Numbers, ...]]:
    """(row, phase, epoch) for every part of the budget: which rows of the batch lie in it."""
    if not budget.num_rows:
        return
    seed = budget["seed"][0].as_py()
    keys = hashes(batch["id"].to_pylist(), seed)
    encoded = batch[params.by].combine_chunks().dictionary_encode()
    codes = {name: code for code, name in enumerate(encoded.dictionary.to_pylist())}
    mine = encoded.indices.fill_null(-1).to_numpy()
    for part in budget.to_pylist():
        code = codes.get(part["source"])
        if code is not None:
            places = turned(keys, seed, part["epoch"])
            rows = np.flatnonzero((mine == code) & (places >= np.uint64(part["first"])) & (places <= np.uint64(part["last"])))
            yield rows, np.full(len(rows), part["at"]), np.full(len(rows), part["epoch"])


def _taken(
    rows: Numbers,
    at: Numbers,
    epochs: Numbers,
    copies: Numbers,
    budget: pa.Table,
) -> pa.Table:
    begins = np.append(True, rows[1:] != rows[:-1])[: len(rows)]
    firsts = np.flatnonzero(begins)
    number = np.arange(len(rows)) - np.repeat(firsts, np.diff(np.append(firsts, len(rows))))
    names = dict(zip(budget["at"].to_pylist(), budget["phase"].to_pylist(), strict=True))
    phases = pa.array([names.get(index, "") for index in range(max(names, default=0) + 1)], pa.string())
    return pa.table(
        {
            "parent": pa.array(rows, pa.int64()),
            "k": pa.array(number.astype(np.int32), mask=number == 0),
            "copy": pa.array(epochs.astype(np.int32)),
            "copies": pa.array(copies),
            "phase": phases.take(pa.array(at, pa.int64())),
        }
    )
