"""The live display of a run on a terminal: a line for each action, what is slow, and how long it will take.

It takes the whole screen and is drawn anew four times a second, so that a window of another size is right at the next
drawing; when the run ends the terminal is as it was, and everything that was said is printed.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from pipelines.plan import Action, Plan
from pipelines.watch import pulses

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from synthetic.pulse import Pulse

SLOW = 10.0
"""Seconds at one place after which a worker is shown."""


def clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    whole = int(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


@dataclass
class Tally:
    """How far an action is."""

    action: Action
    tasks: int = 0
    rows: int = 0
    dropped: int = 0
    tokens: int = 0
    began: float | None = None
    ended: float | None = None
    failed: int = 0

    def rate(self, now: float) -> float:
        """Rows a second since its first task began."""
        return self.rows / max((self.ended or now) - self.began, 1e-6) if self.began is not None else 0.0


@dataclass
class Board:
    """What is known of a run, fed by its events; `__rich_console__` draws it to any size."""

    plan: Plan
    tallies: dict[str, Tally] = field(init=False)
    messages: deque[str] = field(default_factory=lambda: deque(maxlen=4))
    slow: list[tuple[str, str, float]] = field(default_factory=list)
    """Unit, step and seconds of workers that are long at one place, the slowest first."""
    asked: list[Pulse] = field(default_factory=list)
    """How the requests to language models stand."""
    busy: int = 0
    executor: Any = None
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.tallies = {action.name: Tally(action) for action in self.plan.actions}

    def hear(self, event: Mapping[str, Any]) -> None:
        """Take in one event of the run."""
        tally, now = self.tallies.get(event.get("action", "")), time.monotonic()
        if tally is None:
            return
        if event["event"] == "task":
            # The first outcome tells when the work began only roughly: the run's start, or the end of what it needed.
            tally.began = tally.began if tally.began is not None else self._ready(tally.action)
            tally.tasks += 1
            tally.rows += event["rows"]
            tally.dropped += event.get("dropped", 0)
            tally.tokens += event.get("tokens", 0)
        elif event["event"] == "failed":
            tally.failed += 1
        elif event["event"] == "done":
            tally.ended = now

    def _ready(self, action: Action) -> float:
        ends = [t.ended for n, t in self.tallies.items() if n in action.needs and t.ended is not None]
        return max(ends, default=self.started)

    def watch(self) -> None:
        """Look at who is at work, where the executor can tell."""
        working = self.executor.at_work() if hasattr(self.executor, "at_work") else []
        self.busy = len(working)
        found = [(unit, getattr(mark, "step", "") or "", seconds) for unit, mark, seconds in working if seconds > SLOW]
        self.slow = sorted(found, key=lambda w: -w[2])[:3]
        self.asked = pulses(self.executor)

    @property
    def tasks(self) -> tuple[int, int]:
        """Tasks done, and all of them."""
        done = sum(t.tasks for t in self.tallies.values())
        return done, max(self.plan.tasks, done)

    def eta(self, now: float) -> str:
        """Time left at the pace so far; a dash before the first task is done."""
        done, total = self.tasks
        return clock((now - self.started) / done * (total - done)) if done else "-"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Totals, a line per action, slow shards, the last messages: as many as the window holds."""
        from rich.text import Text

        self.watch()
        now, (done, total) = time.monotonic(), self.tasks
        rows, tokens = (sum(getattr(t, name) for t in self.tallies.values()) for name in ("rows", "tokens"))
        seconds = max(now - self.started, 1e-6)
        told = f" · {tokens:,} tokens, {tokens / seconds:,.0f}/s" if tokens else ""
        height = options.height or console.size.height
        bottom = [
            *(p.line() for p in self.asked[:3]),
            *(f"slow: {unit} in {step or '?'} for {clock(s)}" for unit, step, s in self.slow),
        ]
        bottom = [*bottom, *self.messages][: max(height - 6, 1)]
        yield Text(f"{self.plan.layout.recipe.name}  {done:,}/{total:,} shards  {rows:,} rows, {rows / seconds:,.0f}/s{told}",
                   style="bold", no_wrap=True, overflow="ellipsis")  # fmt: skip
        yield Text(f"{clock(seconds)} so far, ETA {self.eta(now)}, {self.busy} at work; Ctrl-C finishes what is at work",
                   no_wrap=True, overflow="ellipsis")  # fmt: skip
        yield self._table(now, max(height - 4 - len(bottom), 3))
        for line in bottom:
            yield Text(line, style="yellow", no_wrap=True, overflow="ellipsis")

    def _table(self, now: float, room: int) -> Any:
        from rich.table import Table

        table = Table(box=None, padding=(0, 1), expand=True)
        table.add_column("steps", ratio=1, no_wrap=True, overflow="ellipsis")
        for name in ("shards", "rows", "dropped", "rows/s", "ETA"):
            table.add_column(name, justify="right", no_wrap=True)
        for tally in self._shown(room):
            table.add_row(*self._cells(tally, now), style="dim" if tally.ended or tally.began is None else None)
        return table

    def _shown(self, room: int) -> Iterator[Tally]:
        """Actions that fit: those at work first, then those that wait, then those that are done; in the plan's order."""
        order = list(self.tallies.values())
        ranked = sorted(order, key=lambda t: (t.ended is not None, t.began is None))[:room]
        yield from (t for t in order if t in ranked)

    def _cells(self, tally: Tally, now: float) -> tuple[str, ...]:
        steps, total = tally.action.steps, len(tally.action.tasks)
        name = f"{steps[0]} … {steps[-1]}" if len(steps) > 2 else " + ".join(steps)
        left = "done" if tally.ended else ""
        if tally.began is not None and not tally.ended and tally.tasks:
            left = clock((now - tally.began) / tally.tasks * (total - tally.tasks))
        failed = f" ({tally.failed} failed)" if tally.failed else ""
        return (f"{tally.action.do} {name}", f"{tally.tasks:,}/{total:,}{failed}", f"{tally.rows:,}", f"{tally.dropped:,}",
                f"{tally.rate(now):,.0f}" if tally.rows else "", left)  # fmt: skip


class Screen:
    """A board on a terminal, kept up to date by a thread of its own."""

    def __init__(self, board: Board, out: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        # rich takes COLUMNS and LINES for the size where a shell exports them, also after the window has changed
        said = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        console = Console(file=out, force_terminal=True, highlight=False, _environ=said)
        self.live = Live(board, console=console, screen=True, auto_refresh=True, refresh_per_second=4)
        self.live.start()

    def close(self) -> None:
        """Give the terminal back as it was."""
        self.live.stop()
