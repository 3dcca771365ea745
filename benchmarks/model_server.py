"""A model server of fixed latency in a process of its own: bare asyncio, so that it costs a tenth of what its clients cost.

`faults` is the share of requests that fail, drawn from the request and its count of tries: 429 with Retry-After, 500, HTML
with status 200, cut JSON, JSON that is no completion, half a body, a closed connection. GET /stats tells what happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

FAULTS = ("429", "500", "html", "cut", "empty", "half", "closed")
BODY = json.dumps({
    "id": "x", "object": "chat.completion", "created": 1, "model": "test-model",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "word " * 50}}],
    "usage": {"prompt_tokens": 200, "completion_tokens": 50, "total_tokens": 250},
}).encode()  # fmt: skip


@dataclass
class Stats:
    """What the server saw; in flight is integrated over time from the first request to the last."""

    requests: int = 0
    answered: Counter[int] = field(default_factory=Counter)
    tries: Counter[int] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    peak: int = 0
    area: float = 0.0
    began: float = 0.0
    last: float = 0.0

    def step(self, by: int) -> None:
        """A request came or went."""
        now = time.perf_counter()
        self.began = self.began or now
        self.area += self.in_flight * (now - (self.last or now))
        self.last = now
        self.in_flight += by
        self.peak = max(self.peak, self.in_flight)

    def record(self) -> dict[str, Any]:
        """For /stats."""
        twice = sum(n - 1 for n in self.answered.values())
        return {
            "requests": self.requests, "answered": len(self.answered), "answered_twice": twice, "failed": dict(self.failed),
            "peak": self.peak, "mean_in_flight": self.area / max(1e-9, self.last - self.began), "seconds": self.last - self.began,
        }  # fmt: skip


class Connection(asyncio.Protocol):
    """One connection; requests come one after the other."""

    def __init__(self, stats: Stats, latency: float, faults: float) -> None:
        self.stats, self.latency, self.faults = stats, latency, faults
        self.buffer = b""
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        """See asyncio."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Take in a request."""
        self.buffer += data
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        size = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
        if len(rest) < size:
            return
        body, self.buffer = rest[:size], rest[size:]
        if head.startswith(b"GET"):
            self.send(200, json.dumps(self.stats.record()).encode())
        else:
            self.stats.requests += 1
            self.stats.step(1)
            asyncio.get_running_loop().call_later(self.latency, self.answer, hash(body))

    def answer(self, name: int) -> None:
        """Answer, or fail."""
        self.stats.step(-1)
        self.stats.tries[name] += 1
        draw = random.Random(f"{name} {self.stats.tries[name]}")
        if draw.random() < self.faults:
            self.fail(draw.choice(FAULTS))
        elif not self.transport.is_closing():
            self.stats.answered[name] += 1
            self.send(200, BODY)

    def fail(self, fault: str) -> None:
        """One of the faults."""
        self.stats.failed[fault] += 1
        if fault in ("429", "500"):
            self.send(int(fault), b'{"error": {"message": "no"}}', b"Retry-After: 0.05\r\n" if fault == "429" else b"")
        elif fault in ("half", "closed"):
            if fault == "half":
                self.transport.write(
                    b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\nContent-Type: application/json\r\n\r\n" + BODY[:90]
                )
            self.transport.close()
        else:
            self.send(200, {"html": b"<html>busy</html>", "cut": BODY[:-40], "empty": b'{"choices": []}'}[fault])

    def send(self, status: int, body: bytes, more: bytes = b"") -> None:
        """A whole response."""
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nContent-Type: application/json\r\n"
        self.transport.write(head.encode() + more + b"\r\n" + body)


@contextlib.contextmanager
def serving(latency: float, faults: float = 0.0) -> Iterator[str]:
    """The base address of a server that lives as long as the block."""
    process = subprocess.Popen([sys.executable, __file__, str(latency), str(faults)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.terminate()
        process.communicate()


def stats(url: str) -> dict[str, Any]:
    """What the server behind this address saw."""
    with urllib.request.urlopen(url.removesuffix("/v1") + "/stats") as response:
        found: dict[str, Any] = json.loads(response.read())
        return found


async def serve(latency: float, faults: float) -> None:
    """Serve on a free port, which is printed."""
    found = Stats()
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(found, latency, faults), "127.0.0.1", 0, backlog=4096
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1]), float(sys.argv[2])))
