"""What an executor is: one method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from manifests.manifest import Receipt
from pipelines.program import Task, Work


class Wait:
    """Said by the task iterator: nothing is ready until one more outcome has been handed back."""


WAIT = Wait()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a task: its receipts by address, or why it failed for good."""

    task: Task
    receipts: Mapping[str, Receipt]
    error: str | None = None
    limited: tuple[str, ...] = ()
    """Rows that were quarantined because they broke a worker: the shard is `resource_limited`."""
    setbacks: tuple[str, ...] = ()
    """Why the task was tried again, in order."""


class Stopped(Exception):  # noqa: N818 - an interruption, not an error
    """The user pressed Ctrl-C twice: workers were stopped, nothing half-written remains."""


class Executor(Protocol):
    """Runs tasks somewhere. `tasks` is pulled when there is room; each task has exactly one outcome."""

    def map(self, work: Mapping[str, Work], tasks: Iterator[Task | Wait]) -> Iterator[Outcome]:
        """Outcomes in the order in which they come. `work` may grow while tasks are pulled."""
        ...

    def drain(self) -> None:
        """Start no further task; those at work are finished."""
        ...

    def close(self) -> None:
        """Stop workers."""
        ...
