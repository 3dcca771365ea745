"""A model server that answers by rule and fails by seed, and a small Ask to talk to it."""

from __future__ import annotations

import asyncio
import hashlib
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pyarrow as pa
import pytest
from aiohttp import web

from stages.contract import Ask, AskParams, ask_stage
from stages.prompt import Message, Refused, Request, Sampling
from synthetic.room import Room, check_served

FAULTS = ("429", "503", "500", "html", "cut_json", "no_choices", "half", "closed", "silence")


def rule(form: Mapping[str, Any]) -> str:
    """The answer of the test model: a function of the last message."""
    last = form["messages"][-1]["content"] if "messages" in form else form["prompt"]
    return f"answer to {last}"


@dataclass
class ModelServer:
    """Fails by `faults` (name: probability), drawn from the seed, the request and its count of tries."""

    faults: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    delay: float = 0.0
    answer: Callable[[Mapping[str, Any]], str] = rule
    respond: Callable[[Mapping[str, Any]], web.Response | None] = lambda form: None
    """Answers in place of everything else when it returns something."""
    models: Sequence[str] = ("test-model",)
    tries: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    forms: list[Mapping[str, Any]] = field(default_factory=list)
    tokens: int = 0
    in_flight: int = 0
    peak: int = 0
    url: str = ""

    def __post_init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(30)

    def _serve(self, ready: threading.Event) -> None:
        self._loop.run_until_complete(self._open())
        ready.set()
        self._loop.run_forever()

    async def _open(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        await self._runner.cleanup()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": name} for name in self.models]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        form = orjson.loads(raw)
        name = hashlib.blake2b(raw, digest_size=8).hexdigest()
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        self.tries[name] += 1
        self.forms.append(form)
        try:
            told = self.respond(form)
            if told is not None:
                return told
            fault = self._fault(name)
            if fault is not None:
                self.failed[fault] += 1
                return await self._fail(fault, request)
            if self.delay:
                await asyncio.sleep(self.delay)
            self.answered[name] += 1
            return web.json_response(self.completion(form))
        finally:
            self.in_flight -= 1

    def completion(self, form: Mapping[str, Any]) -> dict[str, Any]:
        text = self.answer(form)
        usage = {"prompt_tokens": len(orjson.dumps(form)) // 4, "completion_tokens": len(text.split())}
        self.tokens += sum(usage.values())
        choice = {"message": {"role": "assistant", "content": text}, "text": text, "finish_reason": "stop", "index": 0}
        return {"choices": [choice], "usage": usage}

    def _fault(self, name: str) -> str | None:
        draw = random.Random(f"{self.seed} {name} {self.tries[name]}").random()
        for fault, share in self.faults.items():
            draw -= share
            if draw < 0:
                return fault
        return None

    async def _fail(self, fault: str, request: web.Request) -> web.StreamResponse:
        if fault in ("429", "503"):
            return web.json_response({"error": {"message": "too many"}}, status=int(fault), headers={"Retry-After": "0.02"})
        if fault == "500":
            return web.Response(status=500, text="Internal Server Error")
        if fault == "html":
            return web.Response(text="<html><body>Sign in</body></html>", content_type="text/html")
        if fault == "cut_json":
            return web.Response(text='{"choices": [{"message": {"content": "half an ans', content_type="application/json")
        if fault == "no_choices":
            return web.json_response({"object": "chat.completion", "choices": [], "usage": {}})
        if fault == "silence":
            await asyncio.sleep(3600)
        if fault == "half":
            response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
            await response.prepare(request)
            await response.write(b'{"choices": [{"message"')
        assert request.transport is not None
        request.transport.abort()
        return web.Response()


@pytest.fixture
def serve() -> Iterator[Callable[..., ModelServer]]:
    """Start model servers; they are closed behind the test."""
    servers: list[ModelServer] = []

    def start(**options: Any) -> ModelServer:
        servers.append(ModelServer(**options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


class Echo(AskParams):
    """Parameters of the test stage."""

    model: str = "test-model"
    rounds: int = 1


def parse(row: Mapping[str, Any], replies: Sequence[Any], params: Echo) -> Any:
    """The last answer as a row; "refuse" and "fail" in the row's text do what they say."""
    if "refuse" in row["text"]:
        return Refused("told_to", row["text"])
    if "fail" in row["text"]:
        raise ValueError(row["text"])
    last = replies[-1].reply
    return [{"text": last.text, "finish": last.finish}]


@ask_stage(version=1, reads={"text": pa.string()}, writes={"text": pa.string()}, parse=parse, prompts=lambda params: (), rounds=5)
def echo(row: Mapping[str, Any], so_far: Sequence[Any], params: Echo) -> list[Request] | None:
    """Say the text, then what was answered, for `rounds` rounds."""
    if "mute" in row["text"]:
        raise KeyError(row["text"])
    if len(so_far) >= params.rounds:
        return None
    text = so_far[-1].reply.text if so_far else row["text"]
    return [Request((Message("user", text),), Sampling(max_tokens=50))]


assert isinstance(echo, Ask)


@pytest.fixture
def open_room(tmp_path: Any) -> Iterator[Callable[..., Room]]:
    """Open rooms on the store `tmp_path`/store (or another); they are closed behind the test."""
    rooms: list[Room] = []

    def start(params: AskParams, share: int = 1, root: Any = None, **entry: Any) -> Room:
        config = check_served(params.model, {params.model: entry})
        rooms.append(Room.open(params, config, str(root or tmp_path / "store"), share))
        return rooms[-1]

    yield start
    for room in rooms:
        room.close()


@pytest.fixture
def stage() -> tuple[Ask, type[Echo]]:
    return echo, Echo
