"""The graph of a recipe as SVG: one row of boxes for each depth, edges from parents and (dashed) from side tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT, GAP, RISE = 200, 44, 24, 66


def dag(steps: Sequence[Mapping[str, Any]]) -> str:
    """Boxes with name, rows, tokens, bytes and time; each leads to its row of the steps table."""
    depth = _depths(steps)
    rows: dict[int, list[str]] = {}
    for step in steps:
        rows.setdefault(depth[step["step"]], []).append(step["step"])
    widest = max((len(r) for r in rows.values()), default=1)
    width, height = widest * (WIDTH + GAP) + GAP, len(rows) * RISE + GAP
    at = {
        name: (width / 2 + (i - (len(names) - 1) / 2) * (WIDTH + GAP), GAP / 2 + level * RISE)
        for level, names in rows.items() for i, name in enumerate(names)
    }  # fmt: skip
    edges = [_edge(at[p], at[s["step"]], kind) for s in steps for kind, names in (("from", s["parents"]), ("given", s["given"]))
             for p in names if p in at]  # fmt: skip
    boxes = [_box(step, *at[step["step"]]) for step in steps]
    return (
        f'<svg class="dag" role="img" aria-label="Graph of {len(steps)} steps" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}">{"".join(edges)}{"".join(boxes)}</svg>'
    )


def _depths(steps: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Longest way from a source; steps come parents first."""
    found: dict[str, int] = {}
    for step in steps:
        above = [found[p] for p in (*step["parents"], *step["given"]) if p in found]
        found[step["step"]] = max(above, default=-1) + 1
    return found


def _edge(a: tuple[float, float], b: tuple[float, float], kind: str) -> str:
    (x, y), (u, v) = (a[0], a[1] + HEIGHT), b
    bend = max((v - y) / 2, 8)
    return f'<path class="edge {kind}" d="M{x:.0f} {y:.0f}C{x:.0f} {y + bend:.0f} {u:.0f} {v - bend:.0f} {u:.0f} {v:.0f}"/>'


def _box(step: Mapping[str, Any], x: float, y: float) -> str:
    name, left = escape(step["step"]), x - WIDTH / 2
    came, out = step["in"] or 0, step["out"]
    share = min(out / came, 1.0) if came and out is not None else (1.0 if out else 0.0)
    facts = [f"{out:,} rows" if out is not None else "not complete"]
    facts += [f"{short(step['tokens'])} tokens"] if step["tokens"] else []
    facts += [f"{step['seconds']:,.0f} s"] if step["seconds"] and step["seconds"] >= 0.5 else []
    told = f"{name}: {escape(step['stage'])}, {', '.join(facts)}"
    return (
        f'<a href="#steps" data-step="{name}" aria-label="{told}"><title>{told}</title>'
        f'<rect class="box" x="{left:.0f}" y="{y:.0f}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
        f'<rect class="kept" x="{left:.0f}" y="{y + HEIGHT - 4:.0f}" width="{WIDTH * share:.0f}" height="4"/>'
        f'<text class="name" x="{x:.0f}" y="{y + 17:.0f}">{name}</text>'
        f'<text class="facts" x="{x:.0f}" y="{y + 33:.0f}">{escape(" · ".join(facts))}</text></a>'
    )


def short(number: float) -> str:
    """12,345,678 as 12.3 M."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g} {unit}"
    return f"{number:,.0f}"
