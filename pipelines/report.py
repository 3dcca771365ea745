"""What a run says at its end."""

from __future__ import annotations

import sys
from typing import Any

from pipelines import funnel
from pipelines.plan import Plan
from pipelines.run import Result


def finish(plan: Plan, result: Result, command: str) -> None:
    """The funnel and what was published on stdout; what went wrong and how to go on, on stderr."""
    lines = funnel.funnel(plan.layout)
    if lines:
        print(funnel.table(lines))  # noqa: T201
    for name, step in plan.layout.recipe.publish.items() if result.code == 0 else ():
        if step in plan.layout.holder:  # a run of selected steps publishes what is among them
            target, _ = plan.layout.holder[step]
            print(f"published {name}: {plan.layout.object(target).url}/parts")  # noqa: T201
    for message in complaints(plan, result, command):
        print(f"gristmill: {message}", file=sys.stderr)  # noqa: T201
    if result.code == 0:
        print(f"done in {result.seconds:.1f} s", file=sys.stderr)  # noqa: T201


def complaints(plan: Plan, result: Result, command: str) -> list[str]:
    """A line for each fault, and the way on."""
    found = [*result.errors[:10], *(f"{r} (its shard is resource_limited)" for r in result.limited[:10]), *result.over_limit]
    if len(result.errors) > 10:
        found.insert(10, f"and {len(result.errors) - 10} more; all are in the run's events.jsonl")
    if result.setbacks:
        more = f" (and {len(result.setbacks) - 3} more; all are in the run's events.jsonl)" if len(result.setbacks) > 3 else ""
        found.append(f"tried again: {'; '.join(result.setbacks[:3])}{more}")
    empty = [line.step for line in funnel.funnel(plan.layout) if plan.layout.graph[line.step].shape == "base" and line.came == 0]
    found += [f"step '{step}': its input holds no records at all; check its paths" for step in empty]
    if result.blocked:
        found.append(f"not run, because they need what failed: {', '.join(dict.fromkeys(result.blocked))}")
    if result.interrupted:
        found.append("interrupted; what was finished is kept")
    if result.code:
        missing = plan.tasks - result.tasks
        found.append(f"{missing:,} of {plan.tasks:,} tasks are left; to go on:  {_again(command)}")
    return found


def _again(command: str) -> str:
    program, *rest = command.split(" ", 1)
    return " ".join([program.rsplit("/", 1)[-1], *rest])


def summary(plan: Plan, result: Result) -> dict[str, Any]:
    """The run for scripts."""
    steps = [
        {"step": line.step, "in": line.came, "out": line.left, "bytes": line.size, "tokens": line.tokens, "reasons": line.reasons}
        for line in funnel.funnel(plan.layout)
    ]
    return {
        "recipe": plan.layout.recipe.name, "code": result.code, "seconds": round(result.seconds, 3), "tasks": result.tasks,
        "errors": result.errors, "over_limit": result.over_limit, "resource_limited": result.limited, "setbacks": result.setbacks,
        "steps": steps,
    }  # fmt: skip
