"""What the store remembers of a recipe: where each step is, on which frame, and how the columns are joined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.graph import Node
from pipelines.targets import Layout


def recipe_record(layout: Layout) -> dict[str, Any]:
    """For `recipes/<name>.json`: the catalog reads it to make the views, the next plan to say what changed."""
    steps = {name: _step(layout, layout.graph[name]) for name in layout.graph if name in layout.holder}
    return {
        "name": layout.recipe.name, "file": layout.recipe.file, "order": list(steps), "steps": steps, "units": dict(layout.units),
        "prices": prices(layout.recipe.run.models),
    }  # fmt: skip


def prices(models: Mapping[str, Any]) -> dict[str, list[float]]:
    """What a million tokens of the prompt and of the completion cost, by model, where that was said: nothing else of an entry."""
    names = ("price_prompt", "price_completion")
    told = {model: entry for model, entry in models.items() if isinstance(entry, Mapping)}
    found = {model: [float(entry.get(name) or 0) for name in names] for model, entry in told.items()}
    return {model: both for model, both in found.items() if any(both)}


def _step(layout: Layout, node: Node) -> dict[str, Any]:
    target, member = layout.holder[node.name]
    return {
        "uses": node.stage.name,
        "shape": node.shape,
        "frame": node.frame,
        "parents": list(node.step.parents),
        "given": dict(node.step.given),
        "inputs": _inputs(node),
        "object": target.address,
        "member": member,
        "units": layout.units[node.frame] if node.frame in layout.units else layout.units[target.frame],
        "columns": {n: {"type": str(c.type), "owner": c.owner} for n, c in node.columns.items() if not c.transient},
        "stored": list(target.stored),
        "facts": layout.ids.facts[node.name],
        "value": layout.ids.value[node.name],
        "question": layout.ids.question[node.name],
    }


def _inputs(node: Node) -> str | None:
    """Where a source reads, as it was written: for the command that reads one record again. No value of the environment."""
    paths = node.step.params.get("paths")
    if paths is None:
        return None
    return ",".join(str(getattr(p, "reference", p)) for p in ([paths] if isinstance(paths, str) else paths))
