"""What there is to say about one stage: parameters, columns, cost, an example. `stages show` and the guide print it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args

import orjson
import yaml

from pipelines.recipe import load
from pipelines.resolve import resolve
from stages.contract import Declared, Stage

HERE = Path(__file__).parent
COSTS = HERE / "stage_costs.json"
"""CPU time per document, measured by `benchmarks/stage_costs.py`."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A stage for a reader."""

    name: str
    kind: str
    version: int
    doc: str
    params: list[tuple[str, str, str, str]]
    """Name, type, default, description."""
    reads: str
    writes: str
    cost: str
    example: str


def entry(name: str) -> Entry:
    """Everything about a stage; RecipeError for an unknown one."""
    stage = resolve(name, "gristmill stages show")
    return Entry(stage.name, type(stage).__name__, stage.version, stage.doc, _params(stage), _columns(stage.reads),
                 _columns(stage.writes), cost(stage.name), example(stage))  # fmt: skip


def _params(stage: Stage) -> list[tuple[str, str, str, str]]:
    found = []
    for name, info in stage.params.model_fields.items():
        default = "required" if info.is_required() else repr(info.get_default(call_default_factory=True))
        found.append((name, _kind(info.annotation), default, info.description or ""))
    return found


def _kind(annotation: Any) -> str:
    """A type as a user writes it: `int`, `list of str`, `'a' or 'b'`."""
    if annotation is type(None):
        return "null"
    arguments = get_args(annotation)
    if not arguments:
        return str(getattr(annotation, "__name__", annotation))
    origin = str(getattr(annotation, "__origin__", ""))
    if "Literal" in origin or "Literal" in str(annotation).split("[")[0]:
        return " or ".join(repr(a) for a in arguments)
    parts = [_kind(a) for a in arguments if a is not ...]
    outer = getattr(getattr(annotation, "__origin__", None), "__name__", "")
    if outer in ("list", "tuple", "set", "frozenset", "Sequence"):
        return f"list of {' or '.join(dict.fromkeys(parts))}"
    return f"mapping of {' to '.join(parts)}" if outer in ("dict", "Mapping") else " or ".join(dict.fromkeys(parts))


def _columns(declared: Declared) -> str:
    if callable(declared):
        return "depends on the parameters"
    return ", ".join(f"{name} {kind}" for name, kind in declared.items()) or "nothing"


@cache
def _costs() -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(COSTS.read_bytes()) if COSTS.exists() else {}
    return found


def cost(name: str) -> str:
    """What a document costs, as it was measured; says so where it was not."""
    found = _costs().get("stages", {}).get(name)
    if found is None:
        return "not measured: it works on more than one document, or needs a model or files of yours"
    about = _costs()["about"]
    micros = found["us_per_document"]
    rate = f"{1e6 / micros:,.0f} documents a second on one core"
    return f"{micros:,.0f} µs per document ({rate}; {about})"


@cache
def _packaged() -> dict[str, tuple[str, str]]:
    """Stage to the recipe and the text of a step of the packaged recipes that uses it."""
    found: dict[str, tuple[str, str]] = {}
    for path in sorted((HERE / "recipes").glob("*.yaml")):
        for step in load(path).steps:
            parents = {"from": step.parents[0] if len(step.parents) == 1 else list(step.parents)} if step.parents else {}
            more = {key: value for key, value in (("given", step.given), ("with", step.params), ("where", step.where)) if value}
            body = {"uses": step.uses, **parents, **orjson.loads(orjson.dumps(more, default=str))}
            text = _written({step.name: body}).replace(str(HERE / "recipes"), "${here}")
            found.setdefault(step.uses, (path.stem, text))
    return found


def _written(steps: dict[str, Any]) -> str:
    return str(yaml.safe_dump({"steps": steps}, sort_keys=False, allow_unicode=True, width=110)).rstrip()


def example(stage: Stage) -> str:
    """A step that uses the stage: one of a packaged recipe, else the shortest one that is valid."""
    if stage.name in _packaged():
        recipe, text = _packaged()[stage.name]
        return f"# from the recipe {recipe}\n{text}"
    needed = {name: f"<{info.description or name}>" for name, info in stage.params.model_fields.items() if info.is_required()}
    step: dict[str, Any] = {"uses": stage.name}
    if type(stage).__name__ != "Source":
        step["from"] = "before"
    return _written({stage.name.rsplit(".", 1)[-1]: {**step, **({"with": needed} if needed else {})}})


def describe(name: str) -> str:
    """The entry as text for a terminal."""
    found = entry(name)
    lines = [f"{found.name}  ({found.kind}, version {found.version})", "", *found.doc.splitlines(), "", "parameters:"]
    lines += [f"  {n} ({kind}, {default if default == 'required' else f'default {default}'}): {about}"
              for n, kind, default, about in found.params] or ["  none"]  # fmt: skip
    return "\n".join([*lines, f"reads: {found.reads}", f"writes: {found.writes}", f"cost: {found.cost}", "", "example:",
                      *(f"  {line}" for line in found.example.splitlines())])  # fmt: skip
