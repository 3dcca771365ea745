"""The funnel: what came into each step, what stands after it, and why the rest does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.targets import Layout


@dataclass(frozen=True, slots=True)
class Line:
    """One step of the funnel."""

    step: str
    came: int
    left: int
    size: int
    tokens: int | None
    seconds: float
    reasons: dict[str, int]


def funnel(layout: Layout) -> list[Line]:
    """A line for each step that is complete."""
    lines = []
    for name in layout.graph:
        if name not in layout.holder:
            continue
        target, member = layout.holder[name]
        units = layout.units[target.frame]
        if not layout.object(target).answered(units):
            continue
        head = layout.object(target).head(units)
        lines.append(_line(name, head, member, last=name == target.tail))
    return lines


def _line(step: str, head: dict[str, Any], member: int, *, last: bool) -> Line:
    counts = head["members"][member]
    came = counts.get("records", counts.get("in", 0))
    left = counts.get("made", counts.get("standing", 0))
    reasons = {**counts.get("skipped", {}), **counts.get("dropped", {})}
    if counts.get("quarantined"):
        reasons["quarantined"] = counts["quarantined"]
    return Line(
        step, came, left, head["bytes"] if last else 0, head.get("tokens"), head.get("seconds", 0.0) if last else 0.0, reasons
    )


def table(lines: Sequence[Line]) -> str:
    """The funnel as text, columns aligned."""
    header = ("step", "in", "out", "kept", "MB", "tokens", "rows/s", "why not")
    rows = [header]
    for line in lines:
        top = sorted(line.reasons.items(), key=lambda pair: -pair[1])
        why = ", ".join(f"{reason} {count:,}" for reason, count in top[:3]) + (f", {len(top) - 3} more" if len(top) > 3 else "")
        rate = f"{line.came / line.seconds:,.0f}" if line.seconds > 0 else ""
        kept = f"{line.left / line.came:.1%}" if line.came else "-"
        size = f"{line.size / 1e6:,.1f}" if line.size else ""
        tokens = f"{line.tokens:,}" if line.tokens is not None else ""
        rows.append((line.step, f"{line.came:,}", f"{line.left:,}", kept, size, tokens, rate, why))
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    return "\n".join(_aligned(row, widths) for row in rows)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in range(1, 7)), row[7]]
    return "  ".join(cells).rstrip()
