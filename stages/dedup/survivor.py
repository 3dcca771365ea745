"""Who stays of several rows that are one: a declared order, the exchange rows that carry it, and the verdicts.

Not a stage: the Reduces of this package that end in "one of them stays" share it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray
from pydantic import Field, field_validator

from stages.contract import TEXT, Memory, Params

LAST = np.iinfo(np.int64).max
Criterion = Literal["first", "longest", "oldest", "newest", "highest"]


class Survivor(Params):
    """Which of several equal rows stays."""

    keep: tuple[Criterion, ...] = Field(
        ("first",),
        description="Who stays, one or several in turn: longest text, oldest, newest, highest `by`; then smallest id (first).",
    )
    by: str | None = Field(None, description="Numeric column for keep: highest.")
    prefer: tuple[str, ...] = Field((), description="Sources in order of preference, before `keep`; sources not named come last.")
    partitions: int = Field(64, ge=1, description="Parts of the exchange; one part must fit into memory (80 bytes a row).")

    @field_validator("keep", mode="before")
    @classmethod
    def _one_is_a_list(cls, keep: Any) -> Any:
        return (keep,) if isinstance(keep, str) else keep

    def model_post_init(self, _context: Any) -> None:
        """Refuse `highest` without a column, and a column without `highest`."""
        if ("highest" in self.keep) != (self.by is not None):
            raise ValueError("keep: highest and by: COLUMN belong together")

    @property
    def criteria(self) -> tuple[Criterion, ...]:
        """What decides before the id does."""
        return tuple(c for c in self.keep if c != "first")

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """Columns beside the compared one that decide who stays."""
        needed: dict[str, pa.DataType] = {"id": pa.string(), "row": pa.int64()}
        needed |= {"source": pa.string()} if self.prefer else {}
        needed |= {"date": pa.string()} if {"oldest", "newest"} & set(self.keep) else {}
        needed |= {"text": TEXT} if "longest" in self.keep else {}
        return needed | ({self.by: pa.float64()} if self.by else {})


LOSER = Memory(per_row=130)
"""Every row of a partition may lose: an address, a reason and an id, twice while they are sorted."""
WRITES = {"row": pa.int64(), "drop_reason": pa.string(), "twin": pa.string()}


def emits_of(params: Survivor) -> dict[str, pa.DataType]:
    """Columns of the exchange: what is compared (128 bits), then what decides, then where the row lives."""
    kinds: dict[str, pa.DataType] = {"key": pa.uint64(), "digest": pa.binary(16)}
    kinds |= {"source_rank": pa.int32()} if params.prefer else {}
    kinds |= {f"priority_{i}": pa.int64() for i in range(len(params.criteria))}
    return kinds | {"id": pa.string(), "row": pa.int64()}


def ranking(params: Survivor) -> list[tuple[str, str]]:
    """Sort keys, best row first within what is equal."""
    return [(name, "ascending") for name in emits_of(params) if name != "key"]


def priority(batch: pa.Table, criterion: Criterion, by: str | None) -> NDArray[np.int64]:
    """Smaller stays. Rows without a date or value come last; NaN is no value."""
    match criterion:
        case "longest":
            return -np.asarray(pc.fill_null(pc.binary_length(batch["text"]), 0), np.int64)
        case "oldest" | "newest":
            digits = pc.utf8_slice_codeunits(pc.replace_substring_regex(batch["date"], r"\D", ""), 0, 14)
            when = np.asarray(pc.fill_null(pc.cast(pc.utf8_rpad(_numbers(digits), 14, "0"), pa.int64()), -1), np.int64)
            return np.where(when < 0, LAST, when if criterion == "oldest" else -when)
        case "highest":
            return _descending(np.asarray(pc.fill_null(pc.cast(batch[by], pa.float64()), float("nan"))))
        case _:
            return np.zeros(batch.num_rows, np.int64)


def _numbers(digits: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(pc.equal(digits, ""), pa.scalar(None, pa.string()), digits)


def _descending(values: NDArray[Any]) -> NDArray[np.int64]:
    """Integers that order as the floats do from high to low: IEEE 754 bits order as integers once negatives are mirrored."""
    bits = (values + 0.0).view(np.int64)
    ascending = np.where(bits < 0, np.int64(-(2**63)) - bits, bits)
    return np.where(np.isnan(values), LAST, -ascending)


def contest(compared: Sequence[bytes | None], batch: pa.Table, params: Survivor) -> pa.Table:
    """Exchange rows of a batch: equal `compared` values meet; None takes no part."""
    digests = [xxhash.xxh3_128_digest(value) if value is not None else None for value in compared]
    present = np.array([digest is not None for digest in digests], bool)
    joined = b"".join(digest for digest in digests if digest is not None)
    columns: dict[str, Any] = {}
    if params.prefer:
        rank = {source: place for place, source in enumerate(params.prefer)}
        columns["source_rank"] = pa.array([rank.get(str(s), len(rank)) for s in batch["source"].to_pylist()], pa.int32())
    columns |= {f"priority_{i}": priority(batch, c, params.by) for i, c in enumerate(params.criteria)}
    table = pa.table({**columns, "id": batch["id"], "row": batch["row"]}).filter(pa.array(present))
    keys = np.frombuffer(joined, ">u8")[::2].astype(np.uint64)
    digest = pa.Array.from_buffers(pa.binary(16), len(keys), [None, pa.py_buffer(joined)])
    return table.add_column(0, "digest", digest).add_column(0, "key", pa.array(keys))


def settle_as(reason: str) -> Callable[[Iterator[pa.Table], Any], Iterator[pa.Table]]:
    """A settle that gives every row but the best of equal ones this drop reason."""

    def settle(batches: Iterator[pa.Table], params: Any) -> Iterator[pa.Table]:
        for batch in batches:
            yield verdicts(batch, params, reason)

    return settle


def verdicts(batch: pa.Table, params: Survivor, reason: str) -> pa.Table:
    """Rows of a batch that have a better twin. Most keys stand alone: only neighbours with equal keys are sorted."""
    key = batch["key"].to_numpy()
    same = np.zeros(len(key) + 1, bool)
    same[1:-1] = key[1:] == key[:-1]
    rows = batch.filter(pa.array(same[1:] | same[:-1])).sort_by(ranking(params)).combine_chunks()
    digest = np.array(rows["digest"].to_pylist(), dtype="V16")
    first = np.ones(len(digest), bool)
    first[1:] = digest[1:] != digest[:-1]
    survivor = np.maximum.accumulate(np.where(first, np.arange(len(digest)), 0))
    return named(rows, survivor, reason)


def named(rows: pa.Table, survivor: NDArray[np.int64], reason: str) -> pa.Table:
    """Verdicts on the rows whose survivor (an index into the rows) is another row."""
    lost = pa.array(survivor != np.arange(len(survivor)))
    twin = rows["id"].take(pa.array(survivor)).filter(lost)
    return pa.table(
        {"row": rows["row"].filter(lost), "drop_reason": pa.array([reason] * len(twin), pa.string()), "twin": twin},
        schema=pa.schema(WRITES),
    )
