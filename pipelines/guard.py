"""One row never takes its batch with it: failing batches are bisected to the row, which is quarantined.

An exception is met here. A crash, a hang or too much memory is met by the driver: it sees the last Mark of the worker,
sends the task again with that batch marked `careful` (rows run one by one), and a row that breaks a worker alone is
`poison`: quarantined without another try.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines.program import Mark, Task
from stages.contract import Unusable

ALONE = 3.0
"""A row that is run alone gets this many times the stage's limit."""
WARM_UP = 4.0
"""Limits more for the first batch of a step in a process: kernels are compiled there, and no row is to blame for that."""
_warm: set[str] = set()


class StageError(Unusable):
    """A stage broke its contract, or cannot run at all: no row is to blame, the task fails with this message."""


@dataclass(frozen=True, slots=True)
class Culprit:
    """A row that could not be processed: its index in the batch, a reason and what was raised."""

    index: int
    reason: str
    detail: str


@dataclass(slots=True)
class Guard:
    """Runs the stages of one task."""

    task: Task
    tell: Callable[[Mark], None]

    def run(
        self, step: str, limit: float, batch: pa.Table, at: np.ndarray, call: Callable[[pa.Table], pa.Table]
    ) -> tuple[list[tuple[pa.Table, np.ndarray]], list[Culprit]]:
        """Outputs in order, each with the batch indices it came from, and the rows that failed."""
        if batch.num_rows == 0:
            return [], []
        poison = {row: reason for s, row, reason in self.task.poison if s == step}
        careful = (step, int(at[0])) in self.task.careful
        culprits = [Culprit(i, poison[int(p)], "it broke its worker") for i, p in enumerate(at) if int(p) in poison]
        keep = np.setdiff1d(np.arange(batch.num_rows), [c.index for c in culprits])
        outputs: list[tuple[pa.Table, np.ndarray]] = []
        for some in [keep[i : i + 1] for i in range(len(keep))] if careful else [keep]:
            first = int(at[some[0]]) if careful and len(some) else int(at[0])
            warm_up = 0.0 if step in _warm else WARM_UP * limit
            self.tell(Mark(step, first, len(some), _allowance(limit, len(some), careful) + warm_up))
            self._bisect(batch, some, call, outputs, culprits)
            _warm.add(step)
        return outputs, culprits

    def _bisect(
        self, batch: pa.Table, some: np.ndarray, call: Callable[[pa.Table], pa.Table],
        outputs: list[tuple[pa.Table, np.ndarray]], culprits: list[Culprit],
    ) -> None:  # fmt: skip
        if not len(some):
            return
        piece = batch if len(some) == batch.num_rows else batch.take(pa.array(some))
        try:
            outputs.append((call(piece), some))
        except (Unusable, ImportError, MemoryError, OSError):
            raise
        except Exception as error:  # the boundary: whatever a stage raises on a row becomes a quarantined row
            if len(some) == 1:
                culprits.append(Culprit(int(some[0]), f"error: {type(error).__name__}", str(error)[:500]))
                return
            half = len(some) // 2
            self._bisect(batch, some[:half], call, outputs, culprits)
            self._bisect(batch, some[half:], call, outputs, culprits)


def _allowance(limit: float, rows: int, careful: bool) -> float:
    """Seconds a batch may take: the limit of one row and a sixteenth of it for each further row; alone three times."""
    return limit * ALONE if careful else limit * (1 + (rows - 1) / 16)


def positions(outputs: Iterable[tuple[pa.Table, np.ndarray]]) -> np.ndarray:
    """Batch indices of all output rows, in output order."""
    found = [indices for _, indices in outputs]
    return np.concatenate(found) if found else np.empty(0, dtype=np.int64)
