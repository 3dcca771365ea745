"""The room where models are asked: the only way from a stage to an answer.

A room has an event loop in a thread of its own, so that answers come in while the worker writes. The author's functions
run in the worker's thread: they need not know about either.
"""

from __future__ import annotations

import asyncio
import atexit
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from queue import Empty, SimpleQueue
from typing import Any

from stages.contract import Ask, AskParams
from stages.prompt import Reply
from synthetic.asking import Deferred, Outcome, Rejected, Talk
from synthetic.claims import Claims
from synthetic.desk import Desk, Hear
from synthetic.engines.contract import Engine
from synthetic.ledger import Ledger
from synthetic.limits import Budget, Gate
from synthetic.pulse import Pulse
from synthetic.request import Wanted
from synthetic.served import AnyServed, Llamacpp, OpenAI, Replay, Vllm, check_served
from synthetic.served import served as typed

__all__ = ["Room", "check_served"]

AHEAD = 2
"""Requests that are prepared for each one that may be in flight, so that no place stays empty while the worker writes."""
WINDOW = 16
"""Rows begun for each request that may be in flight: so far others may run ahead of a slow row before it holds them up."""
TELL_S = 0.5
ALIVE_S = 2.0
"""How often a waiting worker says that it is alive, and how its requests stand."""

Mail = tuple[Talk, int, Reply | Rejected | Deferred]
Tell = Callable[[int, Pulse], None]
"""Hears how many rows are finished, and how the requests stand."""
_nothing: Tell = lambda _finished, _pulse: None  # noqa: E731


class Room:
    """Opened once per worker process and Ask step."""

    def __init__(self, params: AskParams, config: AnyServed, store_root: str, share: int) -> None:
        ledger = Ledger.open(store_root, params.model, params.revision)
        ledger.shelf.make(params.model, params.revision)
        self.places = _places(config, share)
        self._desk = _desk(params, config, ledger, self.places, share)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"room {params.model}", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    @staticmethod
    def open(params: AskParams, served: Mapping[str, Any], store_root: str, share: int) -> Room:
        """A room for this model. `served` comes from `check_served`, `share` is the number of workers that split its limits.

        ValueError when the ledger in this store belongs to another model.
        """
        return Room(params, typed(served), store_root, max(1, share))

    def ask(
        self, stage: Ask, params: AskParams, rows: Iterator[Mapping[str, Any]], tell: Tell = _nothing, **given: Any
    ) -> Iterator[Outcome]:
        """One Outcome for each row, in order; some rows are read ahead.

        Deferred when the model cannot be asked: what was in the air has arrived in the ledger by then. Everything that was
        answered is on the disk when the iterator is exhausted.
        """
        visit = Visit(self, stage, params, given, tell)
        self._call(self._desk.begin)
        try:
            yield from visit.outcomes(enumerate(rows))
            self._call(self._desk.ledger.sync)
        finally:
            self._loop.call_soon_threadsafe(self._desk.withdraw)

    def counts(self) -> Counter[str]:
        """sent, from_ledger, joined, retried, rejected, failed_<kind>: for progress and events, never for digests.

        What has not happened counts 0: a worker whose every answer was paid for by another has sent nothing.
        """
        return self._desk.counts.copy()

    def pulse(self) -> Pulse:
        """How the requests stand."""
        return self._desk.pulse()

    def close(self) -> None:
        """Wait for what is in the air, write the ledger, stop the loop."""
        if self._loop.is_closed():
            return
        atexit.unregister(self.close)
        asyncio.run_coroutine_threadsafe(self._desk.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def submit(self, requests: list[tuple[Wanted, Hear]]) -> None:
        """Hand requests to the loop."""
        self._loop.call_soon_threadsafe(self._desk.take, requests)

    def _call(self, function: Callable[[], None]) -> None:
        async def call() -> None:
            function()

        asyncio.run_coroutine_threadsafe(call(), self._loop).result()


class Visit:
    """One stream of rows in a room."""

    def __init__(self, room: Room, stage: Ask, params: AskParams, given: Mapping[str, Any], tell: Tell) -> None:
        self._room, self._stage, self._params, self._given = room, stage, params, given
        self._mail: SimpleQueue[Mail] = SimpleQueue()
        self._talks: deque[Talk] = deque()
        self._outbox: list[tuple[Wanted, Hear]] = []
        self._waiting = 0
        self._finished, self._tell, self._told_at = 0, tell, time.monotonic()

    def outcomes(self, rows: Iterator[tuple[int, Mapping[str, Any]]]) -> Iterator[Outcome]:
        """Begin conversations as long as there is room, go on with those that were answered, end them in order."""
        more = True
        while more or self._talks:
            more = more and self._begin(rows)
            while self._talks and (outcome := self._talks[0].outcome) is not None:
                self._talks.popleft()
                self._finished += 1
                self._say(TELL_S)
                yield outcome
            if self._waiting and not (more and self._has_room):
                self._hear()
        self._tell(self._finished, self._room.pulse())

    @property
    def _has_room(self) -> bool:
        return self._waiting < AHEAD * self._room.places and len(self._talks) < WINDOW * self._room.places

    def _begin(self, rows: Iterator[tuple[int, Mapping[str, Any]]]) -> bool:
        """Begin conversations; False when the rows are used up."""
        more = True
        while self._has_room:
            found = next(rows, None)
            if found is None:
                more = False
                break
            talk = Talk(found[0], found[1], self._stage, self._params, self._given)
            self._talks.append(talk)
            self._go_on(talk)
        self._send()
        return more

    def _go_on(self, talk: Talk) -> None:
        for index, wanted in enumerate(talk.ask()):
            self._waiting += 1
            self._outbox.append((wanted, _hearer(self._mail, talk, index)))

    def _send(self) -> None:
        if self._outbox:
            self._room.submit(self._outbox)
            self._outbox = []

    def _hear(self) -> None:
        """Take in all mail that is there; wait for the first piece."""
        mail: Mail | None = self._next()
        while mail is not None:
            talk, index, reply = mail
            self._waiting -= 1
            if isinstance(reply, Deferred):
                raise Deferred(*reply.args)
            if talk.hear(index, reply) and talk.outcome is None:
                self._go_on(talk)
            try:
                mail = self._mail.get_nowait()
            except Empty:
                mail = None
        self._send()

    def _next(self) -> Mail:
        while True:
            try:
                return self._mail.get(timeout=ALIVE_S)
            except Empty:
                self._say(0.0)

    def _say(self, pause: float) -> None:
        now = time.monotonic()
        if now - self._told_at >= pause:
            self._told_at = now
            self._tell(self._finished, self._room.pulse())


def _hearer(mail: SimpleQueue[Mail], talk: Talk, index: int) -> Hear:
    return lambda reply: mail.put((talk, index, reply))


def _places(config: AnyServed, share: int) -> int:
    """Requests that this worker may have in flight. An engine inside the worker is not shared."""
    return max(1, math.ceil(config.in_flight / share)) if isinstance(config, OpenAI) else config.in_flight


def _desk(params: AskParams, config: AnyServed, ledger: Ledger, places: int, share: int) -> Desk:
    try:
        engine = _engine(params, config)
    except ImportError as error:
        raise Deferred(f"run.models.{params.model}: engine '{config.engine}' needs {error.name}, which is not installed") from error
    total = sum(weight for _, weight in engine.endpoints)
    return Desk(
        engine, ledger, Claims(ledger.shelf.path / "claims"),
        [Gate(name, weight, max(1, math.ceil(places * weight / total))) for name, weight in engine.endpoints],
        Budget(config.budget_tokens, config.budget_cost, (config.price_prompt, config.price_completion), share),
        config.tries, config.try_s, config.patience_s, params.model, isinstance(config, Replay),
    )  # fmt: skip


def _engine(params: AskParams, config: AnyServed) -> Engine:
    """The engine of a configuration; what it needs is imported here and nowhere else."""
    match config:
        case OpenAI():
            from synthetic.engines.openai import OpenAIEngine

            return OpenAIEngine(config, params.model)
        case Vllm():
            from synthetic.engines.vllm import VllmEngine

            return VllmEngine(config, params.model, params.revision)
        case Llamacpp():
            from synthetic.engines.llamacpp import LlamacppEngine

            return LlamacppEngine(config, params.model)
        case Replay():
            from synthetic.engines.replay import ReplayEngine

            return ReplayEngine(config, params.model, params.revision)
