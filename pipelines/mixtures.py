"""What the mixtures of a recipe ask for against what there is: said by the plan, and refused before a byte is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.place import open_url
from pipelines.graph import Node
from pipelines.recipe import RecipeError
from pipelines.targets import Layout
from stages.contract import Unusable
from stages.mixture import SIZES, Demand, Mixture, stocks

BUDGET = "stages.blend.budget"


def demands(layout: Layout) -> Iterator[tuple[Node, Demand | None]]:
    """Every step that decides a mixture, with its demand; None while the sizes of its sources are not counted."""
    for name, node in layout.graph.items():
        if node.stage.name == BUDGET and name in layout.holder:
            yield node, _demand(layout, node)


def _demand(layout: Layout, node: Node) -> Demand | None:
    assert isinstance(node.params, Mixture)
    target, _ = layout.holder[node.step.given["sizes"]]
    folder = layout.object(target)
    if not folder.answered(layout.units[target.frame]):
        return None
    try:
        return Demand(
            node.params, stocks(_table_of([folder.part(unit.key) for unit in layout.frames[target.frame]]), node.params.seed)
        )
    except Unusable as error:
        raise RecipeError(f"{node.step.place}: step '{node.name}': {error}") from error


def _table_of(parts: Sequence[str]) -> pa.Table:
    tables = []
    for part in parts:
        with open_url(part) as file:
            tables.append(pq.read_table(file, columns=SIZES.names, use_threads=False))
    return pa.concat_tables(tables)


def refuse(layout: Layout) -> None:
    """RecipeError for a mixture that cannot be made from what is there."""
    for node, demand in demands(layout):
        refusal = demand.refusal() if demand is not None else None
        if refusal:
            raise RecipeError(f"{node.step.place}: step '{node.name}': {refusal}")


def describe(layout: Layout) -> list[str]:
    """A table for each mixture: available against wanted, epochs, shortfall; or how to have the sources counted."""
    lines: list[str] = []
    for node, demand in demands(layout):
        if demand is None:
            sizes = node.step.given["sizes"]
            lines.append(
                f"mixture '{node.name}': the sizes of its sources are not known; `gristmill run ... --select {sizes}` counts them"
            )
        else:
            lines += [f"mixture '{node.name}':", *("  " + line for line in _table(demand)), *_verdict(demand)]
    return lines


def _table(demand: Demand) -> list[str]:
    rows = demand.table()
    names = list(rows[0]) if rows else []
    cells = [[name.replace("wanted_", "in ") for name in names], *([_cell(row[name]) for name in names] for row in rows)]
    sums = {
        name: sum(row[name] for row in rows) for name in names if name.startswith(("documents", "available", "wanted", "short"))
    }
    cells.append(["all", *(_cell(sums[name]) if name in sums else "" for name in names[1:])])
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    return [_aligned(line, widths) for line in cells]


def _cell(value: Any) -> str:
    return (
        ""
        if value is None
        else f"{value:,}"
        if isinstance(value, int)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = cells
    return "  ".join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))]).rstrip()


def _verdict(demand: Demand) -> list[str]:
    refusal = demand.refusal()
    if refusal:
        return [f"  cannot be made: {refusal}"]
    often = [f"{row['source']} {row['epochs']:g}" for row in demand.table() if (row["epochs"] or 0) > 1]
    return [f"  can be made; seen more than once (epochs): {', '.join(often) or 'nothing'}"]


def as_json(layout: Layout) -> list[dict[str, Any]]:
    """The mixtures for scripts; `sources` is null while nothing is counted."""
    return [
        {
            "step": node.name,
            "sources": demand.table() if demand else None,
            "refusal": demand.refusal() if demand else None,
        }
        for node, demand in demands(layout)
    ]
