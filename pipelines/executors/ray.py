"""Tasks on a Ray cluster: Ray core actors, one for each worker, warm as long as there is work for them.

Why actors and not Ray tasks or Ray Data: a stage opens its model once per process, and a driver that knows its workers can
see which row broke one. Actors are made when a task waits for one, up to as many as the cluster has processors for (or
`run.workers`, which an autoscaler may grow to), and let go when nothing is left for them. One task is with each actor, and
the next one is only taken from the plan when an actor is free for it: neither the driver nor the object store of Ray holds
more than that. Rows never pass through Ray: workers read and write the store.

Nodes and actors are expected to vanish. A lost node costs its tasks another try elsewhere. A crash, a hang or too much
memory is met as on one machine (trials.py): the second try tells a board where it is, so that the row can be found.
A task that takes far longer than its like is named and raced; both write the same bytes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from pipelines.executors.cluster import CPU, Shape, connect, refuse
from pipelines.executors.contract import Outcome, Stopped, Wait
from pipelines.executors.trials import Trial, describe, passes, take_due
from pipelines.program import Mark, Task, Work, calls_of

LOOK = 5.0
"""Seconds between looks at where workers are."""
RACE_AFTER, RACE_TIMES = 30.0, 3.0
"""A task is raced when it has run so many seconds, and so many times the median of its program, and a worker is idle."""
IDLE = 20.0
"""Seconds after which an actor without work is let go, so that an autoscaler can take its node away."""


class Mill:
    """A worker: runs inside of a Ray actor."""

    def __init__(self, root: str) -> None:
        self.known: dict[str, Work] = {}
        self.mark: Mark | None = None
        self.since = time.monotonic()
        self.root = root

    def hello(self) -> tuple[str, int, bool]:
        """The node, the process, and whether this node sees the store."""
        import ray

        from manifests.place import place_of

        return ray.get_runtime_context().get_node_id(), os.getpid(), place_of(self.root).exists("format.json")

    def perform(self, task: Task, work: list[Any], board: Any) -> tuple[Any, ...]:
        """One task: ("done", receipts) or ("fail", message, whether trying again may help)."""
        import ray

        from pipelines.perform import perform

        self.mark, self.since = None, time.monotonic()
        try:
            if task.program not in self.known:
                self.known[task.program] = ray.get(work[0])

            def tell(mark: Mark) -> None:
                self.mark, self.since = mark, time.monotonic()
                if board is not None:
                    ray.get(board.put.remote(task.program, task.unit.key, mark))

            return "done", perform(self.known[task.program], task, tell)
        except Exception as error:  # the boundary: whatever went wrong here is told to the driver, which names the unit
            return "fail", f"{task.unit.name}: {describe(error)}", passes(error)

    def where(self) -> tuple[Mark | None, float, int]:
        """The last mark, seconds since then, and resident bytes."""
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return self.mark, time.monotonic() - self.since, resident


class Board:
    """Where tasks that broke a worker before tell where they are; it outlives the workers."""

    def __init__(self) -> None:
        self.marks: dict[tuple[str, str], Mark] = {}

    def put(self, program: str, unit: str, mark: Mark) -> None:
        """Remember."""
        self.marks[program, unit] = mark

    def take(self, program: str, unit: str) -> Mark | None:
        """The last mark of a task."""
        return self.marks.pop((program, unit), None)


@dataclass(slots=True, eq=False)
class Hand:
    """An actor and what it does."""

    actor: Any
    shape: Shape
    free: float = field(default_factory=time.monotonic)
    """Since when it waits for work, while it has none."""
    node: str = ""
    trial: Trial | None = None
    result: Any = None
    began: float = 0.0
    look: Any = None
    mark: Mark | None = None
    age: float = 0.0
    fault: str = ""
    """Why the driver stopped it."""


class Ray:
    """An executor on a Ray cluster; it starts one on this machine where none is found.

    `workers` is the most that may work at a time (0: as many as the cluster has room for); `memory` the resident size at
    which one is stopped; `resources` what steps need beside one CPU, by step.
    """

    def __init__(
        self, root: str, workers: int = 0, memory: int = 4 << 30, address: str = "auto",
        resources: Mapping[str, Mapping[str, float]] | None = None, folder: Path | None = None,
    ) -> None:  # fmt: skip
        self.root, self.workers, self.memory, self.resources = root, workers, memory, resources or {}
        self._ours = connect(address, workers, folder)
        self._hands: list[Hand] = []
        self._refs: dict[str, Any] = {}
        self._times: dict[str, list[float]] = {}
        self._board: Any = None
        self._raced: set[str] = set()
        self._met: set[Shape] = set()
        self._draining = False
        self._looked = self._counted = 0.0
        self._room: dict[str, float] = {}

    def map(self, work: Mapping[str, Work], tasks: Iterator[Task | Wait]) -> Iterator[Outcome]:
        """See the contract. Raises Stopped when the run is interrupted for the second time."""
        source: Iterator[Task | Wait] | None = iter(tasks)
        again: list[Trial] = []
        while True:
            waiting = False
            while self._has_room():
                trial = take_due(again)
                if trial is None:
                    if source is None or self._draining:
                        break
                    item = next(source, None)
                    if item is None:
                        source = None
                        break
                    if isinstance(item, Wait):
                        waiting = True
                        break
                    trial = Trial(item)
                shape = self._shape(work[trial.task.program])
                if not self._has_room(shape):
                    again.append(trial)
                    break
                self._start(trial, shape, work)
            if not any(h.trial for h in self._hands) and not again:
                if source is None or self._draining:
                    return
                if waiting:
                    raise RuntimeError("the task list waits for an outcome, but nothing is at work")
            given = source is None or waiting
            if given:
                self._race(work)
            self._dismiss(given)
            yield from self._listen(again)

    def drain(self) -> None:
        """Start no further task; called a second time it stops the run."""
        if self._draining:
            raise Stopped
        self._draining = True

    def close(self) -> None:
        """Stop all actors, and the cluster if it was started here."""
        import ray

        for hand in self._hands:
            ray.kill(hand.actor)
        self._hands.clear()
        if self._board is not None:
            ray.kill(self._board)
        if self._ours:
            ray.shutdown()

    def at_work(self) -> list[tuple[str, Mark | None, float]]:
        """(unit, mark, seconds at the task) of every busy worker: the slowest shards, by name."""
        now = time.monotonic()
        busy = [(h.trial, h.mark, h.began) for h in self._hands]  # other threads look too, while trials end
        return [(trial.task.unit.name, mark, now - began) for trial, mark, began in busy if trial]

    def _has_room(self, shape: Shape = CPU) -> bool:
        """Whether one more worker may be busy, and one of this shape."""
        busy = [h.shape for h in self._hands if h.trial is not None]
        return len(busy) < self._limit(CPU) and busy.count(shape) < self._limit(shape)

    def _limit(self, shape: Shape) -> int:
        """Workers of a shape that the cluster has room for, asked again as nodes come and go; at least one, which may wait.

        Where the user says how many there are to be, more may be asked for than there is room for: so an autoscaler learns of it.
        """
        import ray

        if self.workers:
            return self.workers
        if time.monotonic() - self._counted > LOOK:
            self._room = ray.cluster_resources()
            self._counted = time.monotonic()
        return max(1, min(int(self._room.get(name, 0) // amount) for name, amount in shape if amount > 0))

    def _start(self, trial: Trial, shape: Shape, work: Mapping[str, Work]) -> Hand:
        import ray

        task = trial.task
        hand = next((h for h in self._hands if h.trial is None and h.shape == shape), None) or self._hire(shape)
        if task.program not in self._refs:
            self._refs[task.program] = ray.put(work[task.program])
        hand.trial, hand.began, hand.mark, hand.age, hand.fault = trial, time.monotonic(), None, 0.0, ""
        board = self._open_board() if trial.watched else None
        hand.result = hand.actor.perform.remote(task, [self._refs[task.program]], board)
        return hand

    def _open_board(self) -> Any:
        import ray

        if self._board is None:
            self._board = ray.remote(num_cpus=0)(Board).remote()
        return self._board

    def _shape(self, work: Work) -> Shape:
        """The most that any step of the work asks for."""
        wanted: dict[str, float] = {"CPU": 1.0}
        for call in calls_of(work):
            for name, amount in self.resources.get(call.step, {}).items():
                wanted[name] = max(wanted.get(name, 0.0), float(amount))
        return tuple(sorted(wanted.items()))

    def _hire(self, shape: Shape) -> Hand:
        import ray

        while len(self._hands) >= self._limit(CPU):  # another shape's actor makes room
            idle = next((h for h in self._hands if h.trial is None), None)
            if idle is None:
                break
            self._hands.remove(idle)
            ray.kill(idle.actor)
        if shape not in self._met and (self._ours or not self.workers):
            refuse(shape)
        self._met.add(shape)  # a node that is lost later may come back
        wanted = dict(shape)
        options: dict[str, Any] = {
            "num_cpus": wanted.pop("CPU"), "num_gpus": wanted.pop("GPU", 0), "memory": wanted.pop("memory", None),
            "resources": wanted, "max_restarts": 0, "scheduling_strategy": "SPREAD",
        }  # fmt: skip
        mill = ray.remote(concurrency_groups={"look": 1})(Mill)
        self._hands.append(Hand(mill.options(**options).remote(self.root), shape))
        return self._hands[-1]

    def _listen(self, again: list[Trial]) -> Iterator[Outcome]:
        import ray

        busy = {h.result: h for h in self._hands if h.trial is not None}
        if not busy:
            time.sleep(0.05)  # what is left waits for the time of its next try
            return
        ready, _ = ray.wait(list(busy), num_returns=len(busy), timeout=0) if len(busy) > 1 else ([], [])
        ready = ready or ray.wait(list(busy), num_returns=1, timeout=0.5)[0]
        for result in ready:
            yield from self._hear(busy[result], again)
        if time.monotonic() - self._looked > LOOK:
            self._looked = time.monotonic()
            self._look()

    def _hear(self, hand: Hand, again: list[Trial]) -> Iterator[Outcome]:
        import ray
        from ray.exceptions import RayError

        trial = hand.trial
        if trial is None:  # its twin was faster
            return
        try:
            kind, *content = ray.get(hand.result)
        except RayError as error:
            yield from self._next(self._after_loss(hand, trial, error), trial, again)
            return
        hand.trial, hand.free = None, time.monotonic()
        if kind == "done":
            self._times.setdefault(trial.task.program, []).append(time.monotonic() - hand.began)
            self._stop_twin(trial)
            yield trial.done(content[0])
        else:
            yield from self._next(trial.failed(content[0], content[1]), trial, again)

    def _next(self, what: Trial | Outcome, trial: Trial, again: list[Trial]) -> Iterator[Outcome]:
        """Unless its twin is still at it, which then decides."""
        if any(h.trial is not None and h.trial.task == trial.task for h in self._hands):
            return
        if isinstance(what, Outcome):
            yield what
        else:
            again.append(what)

    def _after_loss(self, hand: Hand, trial: Trial, error: Exception) -> Trial | Outcome:
        """The actor is gone: with its node, or because of what it did there."""
        import ray

        self._hands.remove(hand)
        text = " ".join(str(error).split())
        if not hand.fault and ("node" in text and ("died" in text or "dead" in text) and "its node" in text):
            return trial.lost("lost its node")
        mark = hand.mark if hand.fault else None
        if trial.watched:
            mark = ray.get(self._open_board().take.remote(trial.task.program, trial.task.unit.key)) or mark
        return trial.broken(mark, hand.fault or "crashed")

    def _look(self) -> None:
        """Where is everybody? Who stands still, or has grown too large, is stopped; the next answer tells of its end."""
        import ray

        for hand in [h for h in self._hands if h.trial is not None]:
            if hand.look is not None:
                if not ray.wait([hand.look], timeout=0)[0]:
                    hand.age += LOOK
                    self._judge(hand, 0)
                    continue
                try:
                    hand.mark, hand.age, resident = ray.get(hand.look)
                    self._judge(hand, resident)
                except ray.exceptions.RayError:
                    continue  # gone; `_hear` is told so as well
            hand.look = hand.actor.where.options(concurrency_group="look").remote()

    def _judge(self, hand: Hand, resident: int) -> None:
        import ray

        if resident > self.memory:
            hand.fault = f"used {resident / 2**30:.1f} GiB of memory (limit {self.memory / 2**30:.1f})"
        elif hand.mark and hand.age > hand.mark.limit:
            hand.fault = f"took longer than {hand.mark.limit:.0f} s"
        if hand.fault:
            ray.kill(hand.actor)

    def _race(self, work: Mapping[str, Work]) -> None:
        """Nothing else is to be done: the slowest task is given to an idle worker as well."""
        now = time.monotonic()
        for hand in [h for h in self._hands if h.trial is not None]:
            assert hand.trial is not None
            task = hand.trial.task
            known = self._times.get(task.program, [])
            slow = known and now - hand.began > max(RACE_AFTER, RACE_TIMES * median(known))
            if slow and task.unit.key not in self._raced and self._has_room(hand.shape) and _idempotent(work[task.program]):
                self._raced.add(task.unit.key)
                hand.trial = hand.trial.raced(now - hand.began, median(known))
                self._start(hand.trial, hand.shape, work)

    def _stop_twin(self, trial: Trial) -> None:
        import ray

        for twin in [h for h in self._hands if h.trial is not None and h.trial.task.unit.key == trial.task.unit.key]:
            if twin.trial is not None and twin.trial.task.program == trial.task.program:
                self._hands.remove(twin)
                twin.trial = None
                ray.kill(twin.actor)

    def _pending(self) -> bool:
        """Whether a worker with a task has given no sign for long: what it needs may be held by others that are idle."""
        now = time.monotonic()
        return any(h.trial is not None and h.mark is None and now - h.began > IDLE for h in self._hands)

    def _dismiss(self, given: bool) -> None:
        """Actors that wait for nothing give back what they hold: when all tasks are given, or another waits for its place."""
        import ray

        now = time.monotonic()
        if not (given or self._pending()):
            return
        for hand in [h for h in self._hands if h.trial is None and now - h.free > IDLE]:
            self._hands.remove(hand)
            ray.kill(hand.actor)


def _idempotent(work: Work) -> bool:
    """Whether two workers may do it at once: not where a language model is asked, which would be paid twice."""
    return all(call.seat is None for call in calls_of(work))
