"""What becomes of a task that did not end well: tried again, tried again knowing more, or given up. The same for every executor."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.executors.contract import Outcome
from pipelines.program import Mark, Task

TRIES = 3
LOSSES = 20
"""Machines that may be lost under one task: that is nobody's fault, but it has an end."""
PAUSE = 1.0
"""Seconds before the second try of a task that failed for a passing reason; twice that before the third, with jitter."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A task, and what was learned of it in this run."""

    task: Task
    tries: int = 0
    losses: int = 0
    limited: tuple[str, ...] = ()
    setbacks: tuple[str, ...] = ()
    """Why it was tried again, in order."""
    after: float = 0.0
    """Not before this moment of the monotonic clock."""

    @property
    def watched(self) -> bool:
        """Whether it broke a worker before: then it matters where it is when that happens again."""
        return self.tries > 0 or bool(self.task.careful)

    def done(self, receipts: object) -> Outcome:
        """It worked."""
        return Outcome(self.task, receipts, limited=self.limited, setbacks=self.setbacks)  # type: ignore[arg-type]

    def failed(self, message: str, passing: bool) -> Trial | Outcome:
        """It said why it failed; `passing` means that trying again may help."""
        if passing and self.tries + 1 < TRIES:
            pause = PAUSE * 2**self.tries * random.uniform(0.5, 1.5)
            return replace(self._set_back(message), tries=self.tries + 1, after=time.monotonic() + pause)
        return self._given_up(message)

    def lost(self, why: str) -> Trial | Outcome:
        """Its machine went away: no fault of the task."""
        if self.losses + 1 < LOSSES:
            return replace(self._set_back(why), losses=self.losses + 1)
        return self._given_up(f"{self.task.unit.name}: {why} {LOSSES} times")

    def raced(self, seconds: float, usual: float) -> Trial:
        """It takes so much longer than its like that a second worker was set to it."""
        return self._set_back(f"at work for {seconds:.0f} s, where {usual:.0f} s are usual: a second worker was set to it")

    def broken(self, mark: Mark | None, why: str) -> Trial | Outcome:
        """It broke its worker (a crash, a hang, too much memory); `mark` is where it was, where that is known.

        A batch that breaks a worker is run row by row; a row that breaks one alone is quarantined.
        """
        task = self.task
        if mark is None or mark.rows == 0:
            if self.tries + 1 < TRIES:
                return replace(self._set_back(f"the worker {why}"), tries=self.tries + 1)
            return self._given_up(f"{task.unit.name}: the worker {why} {TRIES} times")
        known = self._set_back(f"the worker {why} in step '{mark.step}' at row {mark.first}, batch of {mark.rows}")
        if mark.rows == 1 and _was_alone(task, mark):
            reason = f"worker {why}"
            poison = (*task.poison, (mark.step, mark.first, reason))
            return replace(known, task=replace(task, poison=poison), limited=(*self.limited, reason))
        return replace(known, task=replace(task, careful=(*task.careful, (mark.step, mark.first))))

    def _set_back(self, why: str) -> Trial:
        return replace(self, setbacks=(*self.setbacks, why))

    def _given_up(self, error: str) -> Outcome:
        return Outcome(self.task, {}, error=error, setbacks=self.setbacks)


def _was_alone(task: Task, mark: Mark) -> bool:
    """Whether the row was already run alone: some careful batch of this step begins at or before it."""
    return any(step == mark.step and first <= mark.first for step, first in task.careful)


def take_due(again: list[Trial]) -> Trial | None:
    """A trial whose time has come, taken out of the list."""
    now = time.monotonic()
    for index, trial in enumerate(again):
        if trial.after <= now:
            return again.pop(index)
    return None


def describe(error: Exception) -> str:
    """One line for a person; where the fault may be ours, the place in the code as well."""
    from pipelines.guard import StageError
    from pipelines.recipe import RecipeError

    if isinstance(error, StageError | RecipeError | OSError | ImportError):
        return str(error)
    frames = error.__traceback__
    while frames is not None and frames.tb_next is not None:
        frames = frames.tb_next
    place = f" at {Path(frames.tb_frame.f_code.co_filename).name}:{frames.tb_lineno}" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def passes(error: Exception) -> bool:
    """Whether trying again may help: the network, a busy disk; never a full disk or a broken contract."""
    return isinstance(error, OSError) and error.errno != 28
