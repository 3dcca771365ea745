"""From a checked graph to what has to exist: frames with their units, and the object that holds each step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from manifests.fingerprint import fingerprint
from manifests.manifest import units_hash
from manifests.store import Object, Store, at_hand
from pipelines.gather import PARENT_AT
from pipelines.graph import Graph, Node, home
from pipelines.identity import Identities
from pipelines.layer import is_bulk
from pipelines.program import FrameUnit, FrameView, Standing
from pipelines.recipe import Recipe, RecipeError
from stages.contract import Ask, Map, Reduce, Source


@dataclass(frozen=True, slots=True)
class Target:
    """An object: a chain of Maps, a verdict, a dataset or an export."""

    address: str
    steps: tuple[str, ...]
    shape: str
    """Of its first step."""
    frame: str
    stored: Mapping[str, pa.DataType] = field(default_factory=dict)

    @property
    def tail(self) -> str:
        """Its last step."""
        return self.steps[-1]


@dataclass
class Layout:
    """Everything that is decided about names and places before any action."""

    recipe: Recipe
    graph: Graph
    store: Store
    ids: Identities
    frames: dict[str, tuple[FrameUnit, ...]] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    """Frame to the hash of its list of units."""
    targets: list[Target] = field(default_factory=list)
    holder: dict[str, tuple[Target, int]] = field(default_factory=dict)
    """Step to the object that holds it, and its place in it."""
    fills: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Step to an object and member that answered the same question for other standing rows."""

    def standing(self, step: str) -> Standing:
        """Where to see which rows stand at a step."""
        target, member = self.holder[step]
        return Standing(target.address, member)

    def view(self, frame: str, columns: Mapping[str, str]) -> FrameView:
        """Where columns (name to owner) of a frame are stored."""
        node = self.graph[frame]
        objects: dict[str, str] = {}
        far: dict[str, str] = {}
        for name, owner in columns.items():
            first = owner.split("+")[0]
            copied = node.shape == "rows" and name in self.holder[frame][0].stored
            if copied and (first not in self.graph or self.graph[first].frame != frame):
                objects[name] = self.holder[frame][0].address
            elif first in self.graph and self.graph[first].frame == frame:
                objects[name] = self.holder[first][0].address
            else:
                far[name] = owner
        if node.shape != "rows":
            return FrameView(objects)
        above = self.above(frame, far)
        return FrameView(objects, self.holder[frame][0].address, above.parents, above.steps)

    def above(self, frame: str, columns: Mapping[str, str]) -> FrameView:
        """Columns of the rows that a frame is made of."""
        parents = [self.graph[p] for p in self.graph[frame].step.parents]
        views = tuple(self.view(p.frame, {n: p.columns[n].owner for n in columns if n in p.columns}) for p in parents)
        views = views if len({p.frame for p in parents}) > 1 else (self.view(parents[0].frame, columns),)
        return FrameView({}, None, views, tuple(p.name for p in parents))

    def object(self, target: Target) -> Object:
        """Its folder."""
        return self.store.object(target.address)


def lay_out(
    recipe: Recipe, graph: Graph, store: Store, *, select: Sequence[str] = (), limit_units: int | None = None,
    sample: float | None = None,
) -> Layout:  # fmt: skip
    """Name everything: units of each frame, questions of each step, the object of each chain."""
    layout = Layout(recipe, graph, store, Identities(graph, sample))
    wanted = _wanted(recipe, graph, select)
    known = store.addresses()
    for name, node in graph.items():
        if name not in wanted:
            continue
        if node.shape == "base":
            layout.ids.add(node, layout.units)
            _add_frame(layout, name, _source_units(node, limit_units, store))
        else:
            layout.ids.add(node, layout.units)
            if node.shape in ("rows", "dataset", "export"):
                _add_frame(layout, name, tuple(_derived_units(node, layout)))
    for chain in _chains(layout, wanted):
        _place(layout, chain, known)
    _find_fills(layout)
    return layout


def _wanted(recipe: Recipe, graph: Graph, select: Sequence[str]) -> set[str]:
    if not select:
        return set(graph)
    found: set[str] = set()
    pending = [recipe.step(name).name for name in select]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            node = graph[name]
            pending += [*node.step.parents, *node.step.given.values()]
            if node.shape == "verdict":
                pending.append(home(node, graph).name)
    return found


def _add_frame(layout: Layout, frame: str, units: tuple[FrameUnit, ...]) -> None:
    layout.frames[frame] = units
    layout.units[frame] = units_hash(u.key for u in units)


def _source_units(node: Node, limit: int | None, store: Store) -> tuple[FrameUnit, ...]:
    assert isinstance(node.stage, Source)
    try:
        with at_hand(store):
            units = list(node.stage.units(node.params))
    except (ValueError, OSError) as error:
        raise RecipeError(f"{node.step.place}: step '{node.name}': {error}") from error
    units = units if limit is None else units[:limit]
    if not units:
        raise RecipeError(f"{node.step.place}: step '{node.name}': there is nothing to read; check its paths")
    found: dict[str, FrameUnit] = {}
    for unit in units:
        span = "" if unit.start == 0 and unit.stop is None else f"[{unit.start}:{'' if unit.stop is None else unit.stop}]"
        key = unit.key
        made = FrameUnit(key, f"{unit.name}{span}", source=unit)
        if found.setdefault(key, made) is not made:
            raise RecipeError(f"{node.step.place}: step '{node.name}': {unit.name} is listed twice; take it out of 'paths' once")
    return tuple(found.values())


def _derived_units(node: Node, layout: Layout) -> Iterable[FrameUnit]:
    if isinstance(node.stage, Reduce):
        count = node.stage.partitions(node.params)
        return [FrameUnit(f"part-{i:05d}-of-{count:05d}", f"part {i} of {count}") for i in range(count)]
    frames = [layout.graph[p].frame for p in node.step.parents]
    if len(set(frames)) == 1:
        return [FrameUnit(u.key, u.name, parent=u) for u in layout.frames[frames[0]]]
    return [
        FrameUnit(f"{i}-{u.key}", f"{node.step.parents[i]}/{u.name}", parent=u, parent_frame=i)
        for i, frame in enumerate(frames)
        for u in layout.frames[frame]
    ]


def _chains(layout: Layout, wanted: set[str]) -> list[list[str]]:
    """Maximal runs of Maps on one frame with a single consumer each; everything else stands alone."""
    graph = layout.graph
    consumers: dict[str, int] = dict.fromkeys(graph, 0)
    for node in graph.values():
        for used in (*node.step.parents, *node.step.given.values()):
            consumers[used] += 1
    for published in layout.recipe.publish.values():
        consumers[published] += 2
    chains: dict[str, list[str]] = {}
    for name, node in graph.items():
        if name not in wanted:
            continue
        parent: str | None = node.step.parents[0] if len(node.step.parents) == 1 else None
        extends = parent is not None and parent in chains and consumers[parent] == 1 and _joins(node, graph[parent])
        if extends and parent is not None:
            chains[name] = [*chains.pop(parent), name]
        else:
            chains[name] = [name]
    return sorted(chains.values(), key=lambda chain: list(graph).index(chain[0]))


def _joins(node: Node, parent: Node) -> bool:
    """Whether a layer may be stored together with the step before it; what a language model was paid for stands alone."""
    if parent.step.keep or isinstance(parent.stage, Ask) or node.step.given:
        return False
    return node.shape == "layer" and parent.shape in ("base", "rows", "layer")


def _place(layout: Layout, chain: list[str], known: Mapping[str, str]) -> None:
    """Give a chain its object; where a stored object already holds the first steps of it, only the rest is new."""
    address = address_of(layout, chain)
    if address.rsplit("-", 1)[-1] in known or layout.graph[chain[0]].shape not in ("base", "rows", "layer"):
        _hold(layout, chain, known.get(address.rsplit("-", 1)[-1], address))
        return
    for length in range(len(chain) - 1, 0, -1):
        stored = _stored_prefix(layout, chain[:length], chain[length:], known)
        if stored is not None:
            _hold(layout, chain[:length], stored)
            _hold(layout, chain[length:], address_of(layout, chain[length:]))
            return
    _hold(layout, chain, address)


def _stored_prefix(layout: Layout, head: list[str], rest: list[str], known: Mapping[str, str]) -> str | None:
    """A complete object that begins with these steps and keeps all that the rest of the chain reads from them."""
    if any(_reads_transient(layout, name, head) for name in rest):
        return None
    questions = [layout.ids.question[name] for name in head]
    units = layout.units[layout.graph[head[0]].frame]
    for address in known.values():
        target = layout.store.object(address)
        if not target.answered(units):
            continue
        record = target.question()
        members = record.get("members", [])
        if [m["question"] for m in members[: len(head)]] != questions:
            continue
        later = members[len(head) :]
        rewritten = {c for m in later for c in m["writes"]} & {c for name in head for c in layout.graph[name].columns}
        if not rewritten - {"drop_reason"} and (record["keep_text"] or not any("drop_reason" in m["writes"] for m in later)):
            return address
    return None


def _reads_transient(layout: Layout, name: str, head: list[str]) -> bool:
    columns = layout.graph[head[-1]].columns
    return any(c in columns and columns[c].transient for c in layout.graph[name].reads)


def address_of(layout: Layout, chain: Sequence[str]) -> str:
    """`<label>-<question>`; the label is that of the last step."""
    keep = layout.recipe.run.keep_text_of_dropped
    name = fingerprint([*(layout.ids.question[s] for s in chain), *(["keep_text"] if keep else [])])
    return f"{chain[-1]}-{name}"


def _hold(layout: Layout, chain: list[str], address: str) -> None:
    first = layout.graph[chain[0]]
    target = Target(address, tuple(chain), first.shape, first.frame, stored_columns(layout.graph, chain))
    layout.targets.append(target)
    for index, name in enumerate(chain):
        layout.holder[name] = (target, index)


def stored_columns(graph: Graph, chain: Sequence[str]) -> dict[str, pa.DataType]:
    """Columns of the object of a chain: what its members write and may be stored, and the id."""
    first = graph[chain[0]]
    stored: dict[str, pa.DataType] = {"id": pa.string()}
    if first.shape == "base":
        stored |= {n: c.type for n, c in first.columns.items() if not c.transient}
    elif first.shape == "rows":
        stored[PARENT_AT] = pa.int64()
        if len({graph[p].frame for p in first.step.parents}) > 1:
            stored["step"] = pa.string()
        if isinstance(first.stage, Map) and first.stage.copies(first.params):
            stored |= {n: c.type for n, c in first.columns.items() if not c.transient}
    if first.shape in ("verdict", "dataset", "export"):
        stored = {} if first.shape != "dataset" else {n: c.type for n, c in first.columns.items()}
    for name in chain:
        node = graph[name]
        transient = node.stage.transient if isinstance(node.stage, Map | Source) else frozenset()
        stored |= {n: t for n, t in node.writes.items() if n not in transient and n not in ("drop_reason", "parent", "row")}
    return stored


def _find_fills(layout: Layout) -> None:
    """For every Map that is still to be answered: an object with the same value and other standing rows."""
    open_steps = [
        name for name, (target, _) in layout.holder.items()
        if layout.graph[name].shape == "layer" and not layout.object(target).answered(layout.units[target.frame])
    ]  # fmt: skip
    if not open_steps:
        return
    by_value: dict[str, tuple[str, int]] = {}
    for target in layout.store.objects():
        if not target.asked() or not target.answers():
            continue
        record = target.question()
        members = record.get("members", [])
        for index, member in enumerate(members):
            later = members[index + 1 :]
            shadowed = {c for m in later for c in m["writes"]} & set(member["writes"]) - {"drop_reason"}
            lost = any(c in record["bulk"] for c in member["writes"]) and any("drop_reason" in m["writes"] for m in later)
            if member.get("row_wise") and not shadowed and (not lost or record["keep_text"]):
                by_value[member["value"]] = (target.address, index)
    for name in open_steps:
        place = by_value.get(layout.ids.value[name])
        if place is not None and place[0] != layout.holder[name][0].address:
            layout.fills[name] = place


def question_record(layout: Layout, target: Target) -> dict[str, Any]:
    """What is written into the object's question.json."""
    return {
        "members": [
            {
                "step": name,
                "question": layout.ids.question[name],
                "value": layout.ids.value[name],
                "facts": layout.ids.facts[name],
                "writes": {n: str(t) for n, t in layout.graph[name].writes.items()},
                "row_wise": layout.graph[name].shape == "layer" and layout.graph[name].where is None,
            }
            for name in target.steps
        ],
        "shape": target.shape,
        "bulk": [n for n, t in target.stored.items() if is_bulk(t)],
        "keep_text": layout.recipe.run.keep_text_of_dropped,
    }
