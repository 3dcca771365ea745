"""A progress line on a terminal, plain lines elsewhere; always on stderr."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from typing import Any, TextIO

from pipelines.plan import Plan

EVERY = 10.0
"""Seconds between plain lines."""


@dataclass
class Progress:
    """Hears the events of a run and says how far it is."""

    plan: Plan
    out: TextIO = field(default_factory=lambda: sys.stderr)
    done: int = 0
    rows: int = 0
    started: float = field(default_factory=time.monotonic)
    said: float = 0.0

    @property
    def terminal(self) -> bool:
        """Whether lines can be rewritten."""
        return self.out.isatty() and os.environ.get("TERM") != "dumb"

    def __call__(self, event: dict[str, Any], executor: Any) -> None:
        """Hear one event."""
        kind = event["event"]
        if kind == "draining":
            self.line("stopping: the tasks at work are finished first; Ctrl-C again stops at once")
        elif kind == "failed":
            self.line(f"failed: {event['error']}")
        elif kind == "task":
            self.done += 1
            self.rows += event["rows"]
            self.tell(executor)

    def tell(self, executor: Any) -> None:
        """One line with rate and ETA, at most ten times a second on a terminal, every ten seconds elsewhere."""
        now = time.monotonic()
        if now - self.said < (0.1 if self.terminal else EVERY):
            return
        self.said = now
        total = max(self.plan.tasks, self.done)
        seconds = now - self.started
        rest = seconds / self.done * (total - self.done)
        slow = max(executor.at_work(), key=lambda w: w[2], default=None) if hasattr(executor, "at_work") else None
        where = f", slowest {slow[0]} {slow[2]:.0f} s" if slow and slow[2] > 20 else ""
        text = f"{self.done:,}/{total:,} tasks, {self.rows:,} rows, {self.rows / seconds:,.0f} rows/s, ETA {clock(rest)}{where}"
        if self.terminal:
            width = os.get_terminal_size(self.out.fileno()).columns
            self.out.write(f"\r\x1b[2K{text[: width - 1]}")
            self.out.flush()
        else:
            self.line(text)

    def line(self, text: str) -> None:
        """A line that stays."""
        self.out.write(f"\r\x1b[2K{text}\n" if self.terminal else f"{text}\n")
        self.out.flush()

    def end(self) -> None:
        """Clear the progress line."""
        if self.terminal:
            self.out.write("\r\x1b[2K")
            self.out.flush()


def clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    whole = int(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
