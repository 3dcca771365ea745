"""Emitted rows as they pile up in a task or in a settle, merged where the stage says how (`Reduce.combine`)."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

from pipelines.chain import Opened
from pipelines.guard import StageError
from stages.contract import Reduce

ROWS = 1 << 20
"""Rows that pile up before they are merged: some tens of MB. Later twice what the last merge left: the cost stays linear."""


@dataclass(slots=True)
class Pile:
    """The emitted rows of one step; without `combine` all of them, with it a summary of bounded size."""

    opened: Opened
    schema: pa.Schema
    tables: list[pa.Table] = field(default_factory=list)
    rows: int = 0
    limit: int = ROWS

    def add(self, table: pa.Table) -> None:
        """Take rows with the columns of the schema."""
        self.tables.append(table)
        self.rows += table.num_rows
        if self.rows > self.limit and self._stage.combine is not None:
            self.tables = [self.merged()]
            self.rows = self.tables[0].num_rows
            self.limit = max(ROWS, 2 * self.rows)

    @property
    def _stage(self) -> Reduce:
        assert isinstance(self.opened.stage, Reduce)
        return self.opened.stage

    def merged(self) -> pa.Table:
        """Everything so far in one table; StageError where `combine` returns other columns than it was given."""
        table = pa.concat_tables([self.schema.empty_table(), *self.tables])
        if self._stage.combine is None or len(self.tables) < 2:
            return table
        found = self._stage.combine(table, self.opened.params)
        if not found.schema.equals(self.schema):
            raise StageError(f"{self._stage.name}: combine returned {found.schema.names}; it has to return {self.schema.names}")
        return found
