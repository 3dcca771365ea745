"""What a run writes of itself into the store: its recipe, its events as they happen, how it ended.

    runs/<id>/recipe.yaml     as it was read
    runs/<id>/record.json     where its steps are
    runs/<id>/events.jsonl    one JSON object a line (in an object store: segments below events/)
    runs/<id>/lock            held while the run lives
    runs/<id>/result.json     how it ended

All of it lies in the store, so that `gristmill status` tells the same on another machine.
"""

from __future__ import annotations

import os
import socket
import time
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import orjson

from manifests.store import Store


class RunLog:
    """The record of one run; the run is seen to live as long as this is open."""

    def __init__(self, store: Store, recipe: str, text: str, record: dict[str, Any]) -> None:
        self.place = store.place
        self.run = new_run_id(recipe)
        self.place.put(f"runs/{self.run}/recipe.yaml", text.encode())
        self.place.put(f"runs/{self.run}/record.json", orjson.dumps(record))
        self._lock = self.place.lock(f"runs/{self.run}/lock")
        self._log = self.place.log(f"runs/{self.run}/events", durable=False)
        self.write({"event": "start", "recipe": recipe, "host": socket.gethostname(), "process": os.getpid()})

    def write(self, event: dict[str, Any]) -> None:
        """Append with the time."""
        self._log.append(orjson.dumps({"time": round(time.time(), 3), **event}) + b"\n")

    def end(self, record: dict[str, Any]) -> None:
        """How it ended."""
        self.write({"event": "end", "code": record["code"]})
        self._log.flush()
        self.place.put(f"runs/{self.run}/result.json", orjson.dumps(record, option=orjson.OPT_INDENT_2))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._log.close()
        finally:
            self._lock.close()


def read_events(store: Store, run: str) -> list[dict[str, Any]]:
    """Events of a run; a torn last line is left out."""
    raw = store.place.read_log(f"runs/{run}/events")
    return [orjson.loads(line) for line in raw[: raw.rfind(b"\n") + 1].splitlines()]


def new_run_id(recipe: str) -> str:
    """Sorted by time, unique."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{recipe}-{uuid4().hex[:6]}"
