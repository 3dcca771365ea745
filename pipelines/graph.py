"""The graph of a recipe: order, cycles, frames, and columns checked edge by edge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from pipelines.predicate import Predicate, parse_predicate
from pipelines.recipe import Recipe, RecipeError, Step, hint
from pipelines.resolve import bind, resolve
from stages.contract import CORE, Ask, AskParams, Export, Map, Params, Reduce, Source, Stage

Shape = Literal["base", "layer", "rows", "verdict", "dataset", "export"]
"""base: a source's frame. layer: columns on the parent's frame. rows: a new frame out of a Map or an Ask. verdict: columns that a
Reduce sent home. dataset: a new frame out of a Reduce. export: files."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column as a step sees it: its type, the step that wrote it last, and whether it is never stored."""

    type: pa.DataType
    owner: str
    transient: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """A step that has been resolved and checked."""

    step: Step
    stage: Stage
    params: Params
    shape: Shape
    frame: str
    """The step that made the frame on which this step's rows stand."""
    reads: Mapping[str, pa.DataType]
    """Columns it needs from its parents: those of the stage, less derived ones, plus those of its predicate."""
    columns: Mapping[str, Column]
    """Columns a child of this step can read."""
    where: Predicate | None = None

    @property
    def name(self) -> str:
        """The step's name."""
        return self.step.name

    @property
    def writes(self) -> dict[str, pa.DataType]:
        """Columns the stage writes."""
        return self.stage.writes_of(self.params)


Graph = dict[str, Node]
"""Nodes by step name, parents before children, otherwise in recipe order."""


def build(recipe: Recipe) -> Graph:
    """Resolve and check every step; RecipeError on the first fault."""
    for step in recipe.steps:
        names = [s.name for s in recipe.steps if s.name != step.name]
        for what, parent in [("from", p) for p in step.parents] + [("given", g) for g in step.given.values()]:
            if parent not in names:
                fault = "itself" if parent == step.name else f"unknown step '{parent}'"
                raise RecipeError(f"{step.place}: step '{step.name}': {what} names {fault}{hint(parent, names)}")
    graph: Graph = {}
    for step in _ordered(recipe):
        graph[step.name] = _node(step, recipe, graph)
    return graph


def _ordered(recipe: Recipe) -> list[Step]:
    steps = {s.name: s for s in recipe.steps}
    done: dict[str, bool] = {}
    order: list[Step] = []

    def visit(name: str, trail: tuple[str, ...]) -> None:
        if name in trail:
            circle = " -> ".join([*trail[trail.index(name) :], name])
            raise RecipeError(f"{steps[name].place}: the steps form a circle: {circle}; take one 'from' out")
        if name in done:
            return
        for parent in (*steps[name].parents, *steps[name].given.values()):
            visit(parent, (*trail, name))
        done[name] = True
        order.append(steps[name])

    for name in steps:
        visit(name, ())
    return order


def _node(step: Step, recipe: Recipe, graph: Graph) -> Node:
    stage = resolve(step.uses, step.place, recipe.folder)
    params = bind(stage, step.params, step.place, step.name)
    where = _predicate(step)
    parents = [graph[p] for p in step.parents]
    _check_wiring(step, stage, parents)
    if isinstance(stage, Ask):
        _check_model(step, stage, params, recipe)
    if isinstance(stage, Source):
        types = {**CORE, **stage.writes_of(params)}
        columns = {n: Column(t, step.name, n in stage.transient) for n, t in types.items()}
        return Node(step, stage, params, "base", step.name, {}, columns)
    seen = _overlay(step, stage, parents, graph)
    reads = _reads(step, stage, params, where, seen)
    shape, frame = _shape(step, stage, parents, graph)
    written = stage.writes_of(params)
    written.pop("drop_reason", None)
    if isinstance(stage, Reduce) and stage.result == "dataset":
        inherited = {"id": Column(pa.string(), step.name, False)}
    elif shape == "verdict":
        inherited = dict(graph[_home(step, parents, graph)].columns)
    elif shape == "rows":
        inherited = {n: c for n, c in seen.items() if not c.transient}
    else:
        inherited = dict(seen)
    written.pop("row", None) if shape == "verdict" else None
    transient = stage.transient if isinstance(stage, Map) else frozenset()
    columns = inherited | {n: Column(t, step.name, n in transient) for n, t in written.items()}
    return Node(step, stage, params, shape, frame, reads, columns, where)


def _predicate(step: Step) -> Predicate | None:
    if step.where is None:
        return None
    try:
        return parse_predicate(step.where)
    except ValueError as error:
        raise RecipeError(f"{step.place}: step '{step.name}': {error}") from error


def _check_wiring(step: Step, stage: Stage, parents: list[Node]) -> None:
    if isinstance(stage, Source):
        if parents:
            raise RecipeError(f"{step.place}: step '{step.name}': {stage.name} is a source; take its 'from' out")
        if step.where is not None:
            raise RecipeError(
                f"{step.place}: step '{step.name}': {stage.name} is a source and reads all its rows; put 'where' into a step "
                "behind it, such as stages.compact.keep"
            )
        return
    if not parents:
        raise RecipeError(f"{step.place}: step '{step.name}' has no 'from'; {stage.name} reads the rows of another step")
    for parent in parents:
        if parent.shape == "export":
            raise RecipeError(f"{step.place}: step '{step.name}': '{parent.name}' writes files and has no rows to read")
    missing = set(stage.given) - set(step.given)
    unknown = set(step.given) - set(stage.given)
    if missing or unknown:
        fault = f"needs given: {sorted(missing)}" if missing else f"takes no given {sorted(unknown)}"
        raise RecipeError(f"{step.place}: step '{step.name}': {stage.name} {fault}")


def _check_model(step: Step, stage: Ask, params: Params, recipe: Recipe) -> None:
    """A model that is served nowhere, or a prompt file that cannot be read, is refused before anything runs."""
    from synthetic.room import check_served

    assert isinstance(params, AskParams)
    try:
        check_served(params.model, recipe.run.models)
        stage.prompts(params)
    except ValueError as error:
        raise RecipeError(f"{step.place}: step '{step.name}': {error}") from error


def ancestors(name: str, graph: Graph) -> set[str]:
    """Every step that a step's rows have passed, through `from`."""
    found: set[str] = set()
    pending = [name]
    while pending:
        for parent in graph[pending.pop()].step.parents:
            if parent not in found:
                found.add(parent)
                pending.append(parent)
    return found


def _later(a: str, b: str, graph: Graph) -> str | None:
    """The one of two steps that comes after the other on the same path; None when they are side by side."""
    if a == b or (b in graph and a in ancestors(b, graph)):
        return b
    return a if a in graph and b in ancestors(a, graph) else None


def _overlay(step: Step, stage: Stage, parents: list[Node], graph: Graph) -> dict[str, Column]:
    """The columns a step sees: an overlay on one frame, or what all have in common across frames."""
    frames = {p.frame for p in parents}
    if len(frames) > 1:
        if not getattr(stage, "union", False):
            where = ", ".join(f"{p.name} on {p.frame}" for p in parents)
            raise RecipeError(
                f"{step.place}: step '{step.name}': its parents stand on different frames ({where}) and {stage.name} takes one"
            )
        return _union(step, parents)
    seen: dict[str, Column] = {}
    for parent in parents:
        for name, column in parent.columns.items():
            before = seen.setdefault(name, column)
            winner = _later(before.owner, column.owner, graph)
            if winner is None:
                raise RecipeError(
                    f"{step.place}: step '{step.name}': the column '{name}' is written by '{before.owner}' and by "
                    f"'{column.owner}'; give one of them another column name, or read from one of them"
                )
            seen[name] = column if winner == column.owner else before
    return seen


def _union(step: Step, parents: list[Node]) -> dict[str, Column]:
    common = set.intersection(*(set(p.columns) for p in parents))
    seen: dict[str, Column] = {}
    for name in (n for n in parents[0].columns if n in common):
        types = {str(p.columns[name].type) for p in parents}
        if len(types) > 1:
            raise RecipeError(f"{step.place}: step '{step.name}': the column '{name}' has types {sorted(types)} in its parents")
        if not any(p.columns[name].transient for p in parents):
            seen[name] = Column(parents[0].columns[name].type, "+".join(p.columns[name].owner for p in parents))
    return seen | {"step": Column(pa.string(), step.name)}


def _reads(step: Step, stage: Stage, params: Params, where: Predicate | None, seen: Mapping[str, Column]) -> dict[str, pa.DataType]:
    """What must come from the parents, checked column by column with types."""
    wanted = stage.reads_of(params)
    for name, provider_name in getattr(stage, "derived", {}).items():
        if wanted.pop(name, None) is None:
            continue
        provider = resolve(provider_name, step.place)
        wanted |= provider.reads_of(provider.params())
    if "row" not in seen:
        wanted.pop("row", None)
    reads: dict[str, pa.DataType] = {}
    for name, kind in wanted.items():
        if name not in seen:
            if name in stage.optional:
                continue
            raise RecipeError(f"{step.place}: step '{step.name}': {stage.name} reads the column '{name}'{_known(name, seen)}")
        if not compatible(seen[name].type, kind):
            raise RecipeError(
                f"{step.place}: step '{step.name}': the column '{name}' is {seen[name].type} (from '{seen[name].owner}'), "
                f"{stage.name} reads it as {kind}"
            )
        reads[name] = kind
    for name in where.columns if where else ():
        if name not in seen:
            raise RecipeError(f"{step.place}: step '{step.name}': 'where' reads the column '{name}'{_known(name, seen)}")
        reads.setdefault(name, seen[name].type)
    return reads


def _known(name: str, seen: Mapping[str, Any]) -> str:
    return f", which no step before it writes{hint(name, list(seen))}"


def compatible(have: pa.DataType, want: pa.DataType) -> bool:
    """Whether a cast between the two loses nothing but width: equal, both text, both bytes, both integers, both floats."""
    if have == want:
        return True
    families = (
        lambda t: pa.types.is_string(t) or pa.types.is_large_string(t),
        lambda t: pa.types.is_binary(t) or pa.types.is_large_binary(t) or pa.types.is_fixed_size_binary(t),
        pa.types.is_integer,
        lambda t: pa.types.is_floating(t) or pa.types.is_integer(t),
    )
    return any(f(have) and f(want) for f in families)


def _shape(step: Step, stage: Stage, parents: list[Node], graph: Graph) -> tuple[Shape, str]:
    if isinstance(stage, Map):
        return ("layer", parents[0].frame) if stage.rows == "same" else ("rows", step.name)
    if isinstance(stage, Ask):
        return "rows", step.name
    if isinstance(stage, Export):
        return "export", step.name
    assert isinstance(stage, Reduce)
    if stage.result == "dataset":
        return "dataset", step.name
    return "verdict", graph[_home(step, parents, graph)].frame


def _home(step: Step, parents: list[Node], graph: Graph) -> str:
    """The step onto whose frame a verdict goes: `onto`, or the rows that the first Reduce of the chain read."""
    if step.onto is not None:
        if step.onto not in graph:
            raise RecipeError(f"{step.place}: step '{step.name}': onto names '{step.onto}'{hint(step.onto, list(graph))}")
        return step.onto
    parent = parents[0]
    while parent.shape == "dataset" and "row" in parent.columns:
        parent = graph[parent.step.parents[0]]
    return parent.name


def home(node: Node, graph: Graph) -> Node:
    """The step whose rows a verdict judges."""
    return graph[_home(node.step, [graph[p] for p in node.step.parents], graph)]
