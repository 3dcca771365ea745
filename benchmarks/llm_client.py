"""One client against one server, in a process of its own: `python llm_client.py CLIENT URL ROWS IN_FLIGHT STORE` prints JSON.

CLIENT is `ours` (a room with its ledger), `aiohttp` (a bare loop over a semaphore: no retries, no order, no ledger, nothing
kept) or `openai` (the SDK with max_retries=8, as its documentation shows it). CPU seconds are those of the whole process,
without its imports.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TEXT = "A page about the river and the town that grew beside it, and the bridge that came later. " * 8


def rows(n: int) -> Iterator[dict[str, str]]:
    return ({"id": str(i), "text": f"{i} {TEXT}"} for i in range(n))


def anonymous_mb() -> float:
    """Resident memory that is not backed by a file."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def ours(url: str, n: int, in_flight: int, store: str) -> dict[str, Any]:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import pyarrow as pa

    from stages.contract import AskParams, ask_stage
    from stages.prompt import Message, Request, Sampling
    from synthetic.room import Room, check_served

    def parse(_row: Any, replies: Any, _params: AskParams) -> Any:
        return [{"text": replies[0].reply.text}]

    def prompt(row: Any, so_far: Any, _params: AskParams) -> Any:
        return None if so_far else [Request((Message("user", row["text"]),), Sampling(max_tokens=100))]

    prompt.__annotations__ = {"params": AskParams}  # names of a function's own scope cannot be looked up later
    stage = ask_stage(version=1, reads={}, writes={"text": pa.string()}, parse=parse, prompts=lambda _: ())(prompt)
    params = AskParams(model="test-model")
    entry = {"engine": "openai", "endpoints": [url], "in_flight": in_flight, "tries": 20}
    room = Room.open(params, check_served("test-model", {"test-model": entry}), store, 1)
    if url == "instant":
        instant(room)
    good, memory, cpu = 0, [], time.process_time()
    for outcome in room.ask(stage, params, rows(n)):
        good += outcome.error is None and outcome.at == good
        if (outcome.at + 1) % max(1, n // 10) == 0:
            memory.append(round(anonymous_mb(), 1))
    found = {"good": good, "memory_mb": memory, "cpu": time.process_time() - cpu, "counts": dict(room.counts())}
    room.close()
    return found


def instant(room: Any) -> None:
    """Answers without a server: what is measured is everything else."""
    from stages.prompt import Reply

    class Instant:
        endpoints = room._desk.engine.endpoints

        async def start(self) -> None: ...

        async def ask(self, _endpoint: str, _wanted: Any) -> Reply:
            return Reply("word " * 50, "stop", 200, 50)

        async def close(self) -> None: ...

    room._desk.engine = Instant()


def bare(url: str, n: int, in_flight: int) -> dict[str, Any]:
    import aiohttp

    cpu = time.process_time()

    async def run() -> int:
        gate, good = asyncio.Semaphore(in_flight), 0
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def one(row: dict[str, str]) -> None:
                nonlocal good
                async with gate:
                    form = {"model": "test-model", "messages": [{"role": "user", "content": row["text"]}], "max_tokens": 100}
                    try:
                        async with session.post(f"{url}/chat/completions", json=form) as response:
                            body = await response.json()
                    except (aiohttp.ClientError, ValueError):
                        return
                    good += bool(body.get("choices"))

            await asyncio.gather(*map(one, rows(n)))
        return good

    return {"good": asyncio.run(run()), "cpu": time.process_time() - cpu}


def sdk(url: str, n: int, in_flight: int) -> dict[str, Any]:
    from openai import AsyncOpenAI, OpenAIError

    cpu = time.process_time()

    async def run() -> int:
        gate, good = asyncio.Semaphore(in_flight), 0
        async with AsyncOpenAI(base_url=url, api_key="none", max_retries=8) as client:

            async def one(row: dict[str, str]) -> None:
                nonlocal good
                async with gate:
                    say: Any = [{"role": "user", "content": row["text"]}]
                    try:
                        answer = await client.chat.completions.create(model="test-model", messages=say, max_tokens=100)
                        good += bool(answer.choices[0].message.content)
                    except (OpenAIError, ValueError, AttributeError, IndexError, TypeError):
                        return

            await asyncio.gather(*map(one, rows(n)))
        return good

    return {"good": asyncio.run(run()), "cpu": time.process_time() - cpu}


def main() -> None:
    client, url, n, in_flight, store = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
    found = ours(url, n, in_flight, store) if client == "ours" else {"aiohttp": bare, "openai": sdk}[client](url, n, in_flight)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
