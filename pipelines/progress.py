"""How far a run is: a live display on a terminal, plain lines elsewhere; always on stderr."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from typing import Any, TextIO

from pipelines.display import Board, Screen
from pipelines.plan import Plan

EVERY = 10.0
"""Seconds between plain lines."""


@dataclass
class Progress:
    """Hears the events of a run and says how far it is."""

    plan: Plan
    out: TextIO = field(default_factory=lambda: sys.stderr)
    said: float = 0.0
    board: Board = field(init=False)
    _screen: Screen | None = None
    _kept: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.board = Board(self.plan)

    @property
    def terminal(self) -> bool:
        """Whether there is a screen to draw on."""
        return self.out.isatty() and os.environ.get("TERM") != "dumb" and "NO_COLOR" not in os.environ

    def begin(self) -> None:
        """The work starts: a terminal shows the display from here to `end`."""
        if self.terminal:
            self._screen = Screen(self.board, self.out)

    def __call__(self, event: dict[str, Any], executor: Any) -> None:
        """Hear one event."""
        kind = event["event"]
        self.board.executor = executor
        self.board.hear(event)
        if kind == "draining":
            self.line("stopping: the tasks at work are finished first; Ctrl-C again stops at once")
        elif kind == "failed":
            self.line(f"failed: {event['error']}")
        elif kind in ("task", "asking"):
            self.tell()

    def tell(self) -> None:
        """Say a plain line every ten seconds; a display draws itself."""
        now = time.monotonic()
        if self._screen or now - self.said < EVERY:
            return
        self.said = now
        self.board.watch()
        done, total = self.board.tasks
        rows = sum(t.rows for t in self.board.tallies.values())
        slow = f", slowest {self.board.slow[0][0]} {self.board.slow[0][2]:.0f} s" if self.board.slow else ""
        rate = rows / (now - self.board.started)
        self.line(f"{done:,}/{total:,} tasks, {rows:,} rows, {rate:,.0f} rows/s, ETA {self.board.eta(now)}{slow}")
        for pulse in self.board.asked:
            self.line(f"  {pulse.line()}")

    def line(self, text: str) -> None:
        """A line that stays: at once where lines are plain, after the display otherwise."""
        if self._screen:
            self.board.messages.append(text)
            self._kept.append(text)
            return
        self.out.write(f"{text}\n")
        self.out.flush()

    def end(self) -> None:
        """Leave the display, and say what was said meanwhile."""
        if self._screen:
            self._screen.close()
            self._screen = None
            for text in self._kept:
                self.line(text)
