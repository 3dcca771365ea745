"""What happens between two outcomes of a run: how the requests to language models stand, told every few seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from synthetic.pulse import Pulse

EVERY = 5.0
"""Seconds between two looks."""


def pulses(executor: Any) -> list[Pulse]:
    """How the requests of all workers stand, by model; empty where nothing is asked."""
    from synthetic.pulse import together

    working = executor.at_work() if hasattr(executor, "at_work") else []
    return together(mark.asks for _, mark, _ in working if mark is not None and mark.asks is not None)


class Watch:
    """Looks at an executor as long as it is open; says `asking` when something is asked and stands otherwise than before."""

    def __init__(self, executor: Any, say: Callable[[dict[str, Any]], None]) -> None:
        self._executor, self._say = executor, say
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)
        self._said: list[dict[str, Any]] = []

    def _look(self) -> None:
        while not self._over.wait(EVERY):
            found = [pulse.as_event() for pulse in pulses(self._executor)]
            if found != self._said:
                self._said = found
                self._say({"event": "asking", "models": found})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
