"""Say the plan: the same list of actions that `run` does, in words."""

from __future__ import annotations

from typing import Any

from pipelines.exchange import exchanges
from pipelines.plan import Plan
from pipelines.program import Program, Work
from pipelines.targets import Target


def describe(plan: Plan) -> list[str]:
    """A line for each object that is reused or made, with the reason, then the totals."""
    lines = [f"{plan.layout.recipe.name} -> {plan.layout.store.url}"]
    previous = plan.layout.store.records("recipes").get(plan.layout.recipe.name, {}).get("steps", {})
    lines += ["  " + _line(plan, target, previous) for target in plan.layout.targets]
    if not plan.actions:
        lines.append("nothing to do")
    else:
        lines += ["  " + one.line() for one in exchanges(plan)]
        passes = sum(1 for a in plan.actions if a.do == "pass")
        lines.append(f"{plan.tasks} tasks in {len(plan.actions)} actions ({passes} passes over rows)")
        free = free_bytes(plan)
        room = f"; {free / 1e9:,.1f} GB are free for the store" if free is not None else ""
        lines.append(f"reads {input_bytes(plan) / 1e6:,.1f} MB of input{room}")
    return lines


def input_bytes(plan: Plan) -> int:
    """Bytes of source units that will be read; a unit counts once for each pass that reads it."""
    sources = [t.unit.source for a in plan.actions if a.do == "pass" for t in a.tasks if _reads_source(a.work[t.program])]
    return sum((u.size if u.stop is None else u.stop) - u.start for u in sources if u is not None)


def _reads_source(work: Work) -> bool:
    return isinstance(work, Program) and work.mode == "source"


def free_bytes(plan: Plan) -> int | None:
    """Free space on the store's disk; None where the store is in an object store."""
    return plan.layout.store.place.free()


def _line(plan: Plan, target: Target, previous: dict[str, Any]) -> str:
    steps = " + ".join(target.steps)
    if target in plan.reused:
        head = plan.layout.object(target).head(plan.layout.units[target.frame])
        return f"reuse  {steps}: {head['rows']:,} rows in {head['parts']:,} parts"
    actions = [a for a in plan.actions if set(target.steps) & set(a.steps)]
    tasks = max((len(a.tasks) for a in actions), default=0)
    total = max((a.total for a in actions), default=0)
    what = "finish" if tasks < total else "make"
    fill = [s for s in target.steps if s in plan.layout.fills]
    known = f"; fill {', '.join(fill)} from what is known" if fill else ""
    return f"{what:6} {steps}: {tasks:,} of {total:,} parts ({reason(plan, target, previous)}{known})"


def reason(plan: Plan, target: Target, previous: dict[str, Any]) -> str:
    """Why an object has to be made: new, or which fact of which step changed since the last run of this recipe."""
    ids = plan.layout.ids
    if plan.layout.object(target).asked():
        return "began before, or has new units"
    for step in target.steps:
        before = previous.get(step)
        if before is None:
            return f"'{step}' is new"
        if before["value"] != ids.value[step]:
            return f"'{step}': {changed(before['facts'], ids.facts[step])}"
        if before["question"] != ids.question[step]:
            return f"other rows stand before '{step}'"
    return "not in the store"


def changed(before: dict[str, Any], now: dict[str, Any], path: str = "") -> str:
    """The first difference between two sets of facts, as `with.min_words: 50 -> 80`."""
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        if old == new:
            continue
        name = f"{path}.{key}" if path else {"params": "with"}.get(key, key)
        if isinstance(old, dict) and isinstance(new, dict):
            return changed(old, new, name)
        if name.startswith("reads.") or name in ("standing", "units", "given"):
            return f"what it reads has changed ({name.removeprefix('reads.')})"
        return f"{name}: {'default' if old is None else old} -> {'default' if new is None else new}"
    return "the same facts"


def as_json(plan: Plan) -> dict[str, Any]:
    """The plan for scripts."""
    return {
        "recipe": plan.layout.recipe.name,
        "reused": [{"object": t.address, "steps": list(t.steps)} for t in plan.reused],
        "actions": [
            {"do": a.do, "steps": list(a.steps), "tasks": len(a.tasks), "of": a.total, "needs": list(a.needs)} for a in plan.actions
        ],
        "exchanges": [
            {"step": e.step, "requests": e.requests, "rows": e.rows, "bytes": e.bytes, "memory": e.memory, "measured": e.measured}
            for e in exchanges(plan)
        ],
        "tasks": plan.tasks,
    }
