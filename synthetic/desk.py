"""Requests on their way: joining, ledger, claims, tries. All of it runs in one event loop and is never called from outside."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field

from stages.prompt import Reply
from synthetic.asking import Deferred, Rejected
from synthetic.claims import Claims
from synthetic.engines.contract import Engine, Failure
from synthetic.ledger import Ledger
from synthetic.limits import Budget, Gate
from synthetic.pulse import Pulse
from synthetic.request import Wanted

SYNC_S = 0.5
"""An answer is on the disk this long after it came, at most."""
POLL_S = (0.02, 0.5)
"""First and longest pause between two looks at a claim that somebody else holds."""
BACKOFF_S = (0.25, 30.0)
"""Pause after the first failure and longest pause; doubled from try to try, with full jitter (Brooker, 2015)."""
HEALTHY = 20
"""Answers to others since a request failed first, after which its failures are its own and not the server's."""
DRAIN_S = 120.0
"""What is in the air when everything else is given up may still arrive for so long: it is paid for."""
CLOSE_S = 5.0
"""The same at the end of a process: somebody who pressed Ctrl-C waits for it."""

Hear = Callable[[Reply | Rejected | Deferred], None]


@dataclass(slots=True, eq=False)
class Job:
    """One request that is not in the ledger, and everybody who waits for it."""

    wanted: Wanted
    waiting: list[Hear]
    tries: int = 0
    failed_at: int = -1
    """Answers of the desk when it failed first."""


@dataclass(slots=True)
class Desk:
    """The requests of one room."""

    engine: Engine
    ledger: Ledger
    claims: Claims
    gates: list[Gate]
    budget: Budget
    tries: int
    try_s: float
    patience_s: float
    model: str
    replay: bool
    """A rejection in the ledger stands. Otherwise it is asked again: another server may have a longer context."""
    counts: Counter[str] = field(default_factory=Counter)
    _jobs: dict[str, Job] = field(default_factory=dict)
    _queue: deque[Job] = field(default_factory=deque)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _timers: set[asyncio.TimerHandle] = field(default_factory=set)
    _started: asyncio.Task[None] | None = None
    _stopped: Deferred | None = None
    _answered: int = 0
    _failing_since: float | None = None
    """The first failure behind the last answer; kept over streams, so that a dead server is not waited for again and again."""
    _sync_at: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """A new stream of requests: what stopped the last one may be over."""
        self._stopped = None

    def take(self, requests: Sequence[tuple[Wanted, Hear]]) -> None:
        """Accept requests: answer from the ledger, join those in flight, queue the rest."""
        try:
            self._take(requests)
        except Exception as error:  # the boundary: an exception in a callback of the loop would leave everybody waiting
            self._stop(Deferred(f"run.models.{self.model}: {type(error).__name__}: {error}"))
            for _, hear in requests:
                hear(self._stopped or Deferred("stopped"))

    def _take(self, requests: Iterable[tuple[Wanted, Hear]]) -> None:
        fresh: list[Job] = []
        for wanted, hear in requests:
            if self._stopped is not None:
                hear(self._stopped)
            elif wanted.key in self._jobs:
                self.counts["joined"] += 1
                self._jobs[wanted.key].waiting.append(hear)
            elif (answer := self._known(wanted)) is not None:
                self.counts["from_ledger"] += 1
                hear(answer)
            else:
                job = self._jobs[wanted.key] = Job(wanted, [hear])
                fresh.append(job)
        self._claim(fresh)

    def withdraw(self) -> None:
        """Nobody waits any more: what is not sent yet never will be; what is in the air goes into the ledger when it comes."""
        for job in self._jobs.values():
            job.waiting.clear()
        for job in [*self._queue]:
            self._drop(job)
        self._queue.clear()

    def pulse(self) -> Pulse:
        """How the requests stand. Read from another thread: whole numbers, each true at some moment of the last milliseconds."""
        shut = min(gate.closed_until for gate in self.gates) - time.monotonic()
        limits = [max(1, int(gate.limit)) for gate in self.gates]
        return Pulse(
            self.model, self._in_flight, sum(limits), sum(gate.ceiling for gate in self.gates), len(self._queue),
            self.counts["failed_busy"], max(shut, 0.0),
        )  # fmt: skip

    async def close(self) -> None:
        """Wait for what is in the air, and let go of everything."""
        self.withdraw()
        self._stopped = self._stopped or Deferred("the room is closed")
        await self._drain(CLOSE_S)
        for timer in self._timers:
            timer.cancel()
        if self._started is not None:
            await self.engine.close()
        if self._sync_at is not None:
            self._sync_at.cancel()
        self.claims.close()
        self.ledger.close()

    def _known(self, wanted: Wanted) -> Reply | Rejected | None:
        answer = self.ledger.find(wanted.key)
        return None if isinstance(answer, Rejected) and not self.replay else answer

    def _claim(self, jobs: list[Job]) -> None:
        """Claim what shall be sent. Others may have answered since this ledger was read: it is read again behind the claims."""
        if not jobs:
            return
        mine = [job for job in jobs if self.claims.take(job.wanted.key)]
        self.ledger.refresh()
        for job in mine:
            answer = self._known(job.wanted)
            if answer is not None:
                self.counts["from_ledger"] += 1
                self._finish(job, answer)
            else:
                self._queue.append(job)
        for job in jobs:
            if job not in mine:
                self.counts["waited_for_others"] += 1
                self._spawn(self._await_claim(job))
        self._pump()

    async def _await_claim(self, job: Job) -> None:
        """Somebody else sends this request: wait until it is done or given up."""
        pause = POLL_S[0]
        while job.waiting and self._stopped is None:
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, POLL_S[1])
            if not self.claims.take(job.wanted.key):
                continue
            self.ledger.refresh()
            answer = self._known(job.wanted)
            if answer is not None:
                self._finish(job, answer)
            else:
                self._queue.append(job)
                self._pump()
            return
        self._finish(job, self._stopped or Deferred("withdrawn"))

    def _pump(self) -> None:
        """Send what may be sent."""
        now = time.monotonic()
        while self._queue and self._stopped is None:
            gate = min((g for g in self.gates if g.open_at(now)), key=lambda g: g.load, default=None)
            if gate is None:
                break
            ceiling = self._queue[0].wanted.ceiling
            if self.budget.limited and not self.budget.allows(ceiling, self.ledger.spent):
                if not self._in_flight:
                    state = self.budget.state(self.ledger.spent)
                    self._stop(Deferred(
                        f"the budget of run.models.{self.model} is spent: {state}, and the next request may take {ceiling:,}; "
                        "raise it and run again: nothing is asked twice"
                    ))  # fmt: skip
                break
            job = self._queue.popleft()
            self.budget.reserve(ceiling)
            gate.in_flight += 1
            self._spawn(self._try(job, gate))

    @property
    def _in_flight(self) -> int:
        return sum(gate.in_flight for gate in self.gates)

    async def _try(self, job: Job, gate: Gate) -> None:
        sent_at = time.monotonic()
        try:
            await self._start()
            self.counts["sent"] += 1
            async with asyncio.timeout(self.try_s):
                answer: Reply | Rejected = await self.engine.ask(gate.name, job.wanted)
        except TimeoutError:
            self._failed(job, gate, sent_at, Failure("timeout", f"{gate.name}: no answer within {self.try_s:g} s"))
        except Failure as failure:
            self._failed(job, gate, sent_at, failure)
        except Rejected as rejected:
            self._answer(job, gate, rejected)
        except Exception as error:  # the boundary: whatever an engine raises ends the task with a message, never the process
            told = error if isinstance(error, Deferred) else Deferred(f"{gate.name}: {type(error).__name__}: {error}")
            self._queue.appendleft(job)
            self._stop(told)
        else:
            self._answer(job, gate, answer)
        finally:
            gate.in_flight -= 1
            self.budget.reserve(job.wanted.ceiling, -1)
            self._pump()

    async def _start(self) -> None:
        """Start the engine with the first request; a run that the ledger answers wholly needs none."""
        if self._started is None:
            self._started = asyncio.ensure_future(self.engine.start())
        if not self._started.done():
            await asyncio.shield(self._started)
        self._started.result()

    def _answer(self, job: Job, gate: Gate, answer: Reply | Rejected) -> None:
        gate.success()
        self._answered += 1
        self._failing_since = None
        if isinstance(answer, Rejected):
            self.counts["rejected"] += 1
        try:
            self.ledger.add(job.wanted.key, answer)
        except OSError as error:
            self._queue.appendleft(job)
            self._stop(
                Deferred(f"{self.ledger.shelf.path}: the answer cannot be written ({error.strerror}); free space and run again")
            )
            return
        if self._sync_at is None:
            self._sync_at = asyncio.get_running_loop().call_later(SYNC_S, self._sync_soon)
        self._finish(job, answer)

    def _failed(self, job: Job, gate: Gate, sent_at: float, failure: Failure) -> None:
        """Decide about a failed try: again, later; this request never; or nothing any more."""
        now = time.monotonic()
        self.counts[f"failed_{failure.kind}"] += 1
        self._failing_since = now if self._failing_since is None else self._failing_since
        if now - self._failing_since > self.patience_s:
            self._queue.appendleft(job)
            self._stop(
                Deferred(f"{failure}; no answer for {self.patience_s:g} s: see that the server runs, then run again to go on")
            )
            return
        if failure.kind in ("busy", "gone"):
            pause = failure.retry_after if failure.retry_after is not None else _jittered(1)
            gate.overload(now, sent_at, min(pause, self.patience_s) if failure.kind == "busy" else _jittered(2))
            self._again(job, random.uniform(0, 0.05))
            return
        if failure.kind == "timeout":
            gate.overload(now, sent_at, 0.0)
        job.tries += 1
        job.failed_at = self._answered if job.failed_at < 0 else job.failed_at
        if job.tries < self.tries:
            self._again(job, _jittered(job.tries))
        elif self._answered - job.failed_at >= HEALTHY:
            self._answer(job, gate, Rejected(f"{failure}; {job.tries} tries, while other requests were answered"))
        else:
            self._queue.appendleft(job)
            self._stop(
                Deferred(f"request {job.wanted.gist}: {failure}; {job.tries} tries. See the server's log, then run again to go on")
            )

    def _again(self, job: Job, pause: float) -> None:
        self.counts["retried"] += 1

        def wake() -> None:
            self._timers.discard(timer)
            if job.waiting:
                self._queue.appendleft(job)
            else:
                self._drop(job)
            self._pump()

        # Closed gates wake nobody up: the job itself comes back when the first of them opens.
        opening = min(gate.closed_until for gate in self.gates) - time.monotonic()
        timer = asyncio.get_running_loop().call_later(max(pause, opening + random.uniform(0, 0.05)), wake)
        self._timers.add(timer)
        if self._stopped is not None:
            timer.cancel()
            self._timers.discard(timer)
            self._finish(job, self._stopped)

    def _stop(self, reason: Deferred) -> None:
        """Give everything up that is not in the air; those who wait hear the reason when that has arrived."""
        if self._stopped is None:
            self._stopped = reason
            self._spawn(self._wind_up())

    async def _wind_up(self) -> None:
        assert self._stopped is not None
        await self._drain(DRAIN_S)
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._queue.clear()
        for job in list(self._jobs.values()):
            self._finish(job, self._stopped)

    async def _drain(self, seconds: float) -> None:
        """Wait for the tries in the air; cut those off that take longer."""
        mine = asyncio.current_task()
        rest = {task for task in self._tasks if task is not mine}
        if rest:
            _, late = await asyncio.wait(rest, timeout=seconds)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=1.0)
        self.ledger.sync()

    def _drop(self, job: Job) -> None:
        self._finish(job, Deferred("withdrawn"))

    def _finish(self, job: Job, answer: Reply | Rejected | Deferred) -> None:
        """Tell everybody who waits, and give the claim back."""
        self._jobs.pop(job.wanted.key, None)
        self.claims.release(job.wanted.key)
        for hear in job.waiting:
            hear(answer)

    def _sync_soon(self) -> None:
        """Bring the ledger to the disk beside the loop: an fsync can take as long as an answer."""
        self._sync_at = None
        self._spawn(asyncio.to_thread(self.ledger.sync))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:  # a fault of ours: nobody must wait for ever
            self._stopped = self._stopped or Deferred(f"{type(error).__name__}: {error}")
            for job in list(self._jobs.values()):
                self._finish(job, self._stopped)


def _jittered(tries: int) -> float:
    return random.uniform(0.0, min(BACKOFF_S[1], BACKOFF_S[0] * 2.0**tries))
