"""Processes on this machine, kept warm: one pipe each, and each dies with the driver.

`concurrent.futures` is not enough: its workers outlive a killed driver, and one dead worker breaks the pool without
naming the task. Here a dead, stuck or bloated worker is replaced and only its task is sent again, with what is known of
the batch that broke it.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from pipelines.executors.contract import Outcome, Stopped, Wait
from pipelines.executors.trials import Trial, describe, passes, take_due
from pipelines.program import Mark, Task, Work

PAGE = os.sysconf("SC_PAGE_SIZE")
_PR_SET_PDEATHSIG = 1


@dataclass(slots=True)
class Crew:
    """One worker process and what it is doing."""

    process: Any
    pipe: Connection
    known: set[str] = field(default_factory=set)
    trial: Trial | None = None
    mark: Mark | None = None
    marked: float = 0.0


class Local:
    """An executor of `workers` processes; `memory` is the resident size at which one of them is stopped."""

    def __init__(self, workers: int = 0, memory: int = 4 << 30) -> None:
        self.workers = workers or len(os.sched_getaffinity(0))
        self.memory = memory
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["pipelines.worker", "pipelines.settle"])
        self._crews: list[Crew] = []
        self._draining = False

    def map(self, work: Mapping[str, Work], tasks: Iterator[Task | Wait]) -> Iterator[Outcome]:
        """See the contract. Raises Stopped when the run is interrupted for the second time."""
        source: Iterator[Task | Wait] | None = iter(tasks)
        again: list[Trial] = []
        while True:
            waiting = False
            for crew in self._idle():
                if (due := take_due(again)) is not None:
                    self._start(crew, work, due)
                    continue
                if source is None or waiting or self._draining:
                    break
                item = next(source, None)
                if item is None:
                    source = None
                elif isinstance(item, Wait):
                    waiting = True
                else:
                    self._start(crew, work, Trial(item))
            if not any(c.trial for c in self._crews) and not again:
                if source is None or self._draining:
                    return
                if waiting:
                    raise RuntimeError("the task list waits for an outcome, but nothing is at work")
            yield from self._listen(again)

    def drain(self) -> None:
        """Start no further task; called a second time it stops the run."""
        if self._draining:
            raise Stopped
        self._draining = True

    def close(self) -> None:
        """Stop all workers."""
        for crew in self._crews:
            crew.pipe.close()
            crew.process.kill()
        for crew in self._crews:
            crew.process.join()
        self._crews.clear()

    def at_work(self) -> list[tuple[str, Mark | None, float]]:
        """(unit, mark, seconds since) of every busy worker: the slowest shards, by name."""
        now = time.monotonic()
        busy = [(c.trial, c.mark, c.marked) for c in self._crews]  # other threads look too, while trials end
        return [(trial.task.unit.name, mark, now - marked) for trial, mark, marked in busy if trial]

    def _idle(self) -> Iterator[Crew]:
        for crew in list(self._crews):
            if crew.trial is None:
                yield crew
        while len(self._crews) < self.workers:
            mine, theirs = self._context.Pipe()
            process = self._context.Process(target=serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self._crews.append(Crew(process, mine))
            yield self._crews[-1]

    def _start(self, crew: Crew, work: Mapping[str, Work], trial: Trial) -> None:
        crew.trial, crew.mark, crew.marked = trial, None, time.monotonic()
        task = trial.task
        if task.program not in crew.known:
            crew.pipe.send(("work", task.program, work[task.program]))
            crew.known.add(task.program)
        crew.pipe.send(("task", task))

    def _listen(self, again: list[Trial]) -> Iterator[Outcome]:
        busy = [c for c in self._crews if c.trial]
        if not busy:
            time.sleep(0.05)  # what is left waits for the time of its next try
        ready = wait([c.pipe for c in busy], timeout=0.5) if busy else []
        for crew in busy:
            if crew.pipe in ready:
                yield from self._hear(crew, again)
            else:
                fault = self._fault(crew)
                if fault:
                    crew.process.kill()
                    yield from self._broken(crew, fault, again)

    def _hear(self, crew: Crew, again: list[Trial]) -> Iterator[Outcome]:
        assert crew.trial is not None
        try:
            kind, *content = crew.pipe.recv()
        except (EOFError, ConnectionResetError):
            crew.process.join(5)
            code = crew.process.exitcode
            yield from self._broken(crew, f"crashed ({_signal_name(code)})", again)
            return
        if kind == "mark":
            crew.mark, crew.marked = content[0], time.monotonic()
            return
        trial = crew.trial
        crew.trial = None
        if kind == "done":
            yield trial.done(content[0])
        else:
            yield from self._next(trial.failed(content[0], content[1]), again)

    def _next(self, what: Trial | Outcome, again: list[Trial]) -> Iterator[Outcome]:
        if isinstance(what, Outcome):
            yield what
        else:
            again.append(what)

    def _fault(self, crew: Crew) -> str | None:
        resident = _resident(crew.process.pid)
        if resident > self.memory:
            return f"used {resident / 2**30:.1f} GiB of memory (limit {self.memory / 2**30:.1f})"
        if crew.mark and time.monotonic() - crew.marked > crew.mark.limit:
            return f"took longer than {crew.mark.limit:.0f} s"
        return None

    def _broken(self, crew: Crew, why: str, again: list[Trial]) -> Iterator[Outcome]:
        """Replace the worker; send its task again, knowing more."""
        assert crew.trial is not None
        self._crews.remove(crew)
        crew.pipe.close()
        crew.process.join(5)
        yield from self._next(crew.trial.broken(crew.mark, why), again)


def _signal_name(code: int | None) -> str:
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):  # gone, or no /proc on this system: the pipe tells of its death
        return 0


def serve(pipe: Connection) -> None:
    """A worker's life: learn work, run tasks, until the driver is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.name == "posix" and hasattr(ctypes.CDLL(None), "prctl"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    from pipelines.perform import perform

    known: dict[str, Work] = {}
    while True:
        try:
            kind, *content = pipe.recv()
        except EOFError:
            return
        if kind == "work":
            known[content[0]] = content[1]
            continue
        task: Task = content[0]
        try:
            receipts = perform(known[task.program], task, lambda mark: pipe.send(("mark", mark)))
        except Exception as error:  # the boundary: whatever went wrong here is told to the driver, which names the unit
            pipe.send(("fail", f"{task.unit.name}: {describe(error)}", passes(error)))
        else:
            pipe.send(("done", receipts))
