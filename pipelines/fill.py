"""Fill: the stage and its inputs are the same, only other rows stand. Answers that are known are copied by id."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from manifests.place import exists
from pipelines.gather import DROP_STEP, part, read
from pipelines.program import FrameUnit


class Known:
    """The answers that an earlier object holds for one member and one shard."""

    def __init__(self, ids: pa.ChunkedArray, table: pa.Table) -> None:
        self._place = {value: i for i, value in enumerate(ids.to_pylist())}
        self._table = table

    @staticmethod
    def open(root: str, place: tuple[str, int], unit: FrameUnit, writes: Mapping[str, pa.DataType]) -> Known | None:
        """None where the earlier object has no such shard."""
        address, member = place
        if not exists(part(root, address, unit.key)):
            return None
        names = [n for n in writes if n != "drop_reason"]
        table = read(root, address, unit.key, [*names, "id", DROP_STEP, "drop_reason"])
        ids = table["id"].combine_chunks()
        steps = table[DROP_STEP].fill_null(np.iinfo(np.int16).max).to_numpy()
        asked = steps >= member
        here = steps == member
        if "drop_reason" in writes:
            reasons = table["drop_reason"].combine_chunks()
            own = pa.array(np.where(here, np.arange(len(here)), 0), mask=~here)
            table = table.set_column(table.column_names.index("drop_reason"), "drop_reason", reasons.take(own))
        # a quarantined row is asked again: its limit may have been raised
        fresh = np.array([str(r or "").startswith("quarantined") for r in table["drop_reason"].to_pylist()], bool)
        keep = pa.array(asked & ~(here & fresh))
        return Known(
            pa.chunked_array([ids.filter(keep)]) if isinstance(ids, pa.Array) else ids.filter(keep),
            table.select(list(writes)).filter(keep),
        )

    def answers(self, ids: pa.ChunkedArray, at: np.ndarray) -> tuple[np.ndarray, pa.Table]:
        """Of the rows `at`, those already answered, and their written columns."""
        found = [self._place.get(i, -1) for i in ids.take(pa.array(at)).to_pylist()]
        where = np.array(found, dtype=np.int64)
        hits = where >= 0
        return at[hits], self._table.take(pa.array(where[hits]))
