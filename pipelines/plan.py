"""The plan: a list of frozen actions, a pure function of recipe and manifests. `explain` says it, `run` does it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from manifests.fingerprint import fingerprint
from manifests.manifest import Receipt
from pipelines.graph import Node, home
from pipelines.passes import Item, PassBuilder
from pipelines.program import Call, Finish, FrameUnit, Home, Merge, Seat, Settle, Task, Work
from pipelines.recipe import RecipeError
from pipelines.targets import Layout, Target
from stages.contract import Ask, AskParams, Export, Reduce

MANY = 1000
"""Spills that settle tasks read as they are; each reads a slice of every spill, so requests are spills times partitions."""
FAN_IN = 256
"""Spills that are merged into one where there are more."""


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do: tasks that may run in any order, after all actions it needs."""

    do: Literal["pass", "merge", "settle", "home", "finish"]
    name: str
    targets: tuple[Target, ...]
    """Objects that are complete when the tasks are done and their receipts are there."""
    needs: tuple[str, ...]
    tasks: tuple[Task, ...]
    work: Mapping[str, Work] = field(repr=False)
    spills: tuple[str, ...] = ()
    """Addresses of spills that it writes."""
    drops: tuple[str, ...] = ()
    """Spills that are not needed once it is done."""
    steps: tuple[str, ...] = ()
    total: int = 0
    """Tasks there would be if nothing had been done before."""
    exports: tuple[str, ...] = ()
    """Addresses of exports whose shards it writes."""


@dataclass(frozen=True)
class Plan:
    """What to do, and what is there already."""

    layout: Layout
    reused: tuple[Target, ...]
    actions: tuple[Action, ...]

    @property
    def tasks(self) -> int:
        """Tasks to run."""
        return sum(len(a.tasks) for a in self.actions)


def make_plan(layout: Layout) -> Plan:
    """Compare what has to exist with what the store holds."""
    return _Planner(layout).plan()


class _Planner:
    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.receipts: dict[tuple[str, int], tuple[str, dict[str, Receipt]]] = {}
        self.levels: dict[tuple[str, int], int] = {}
        self.maker: dict[str, str] = {}
        """Step to the action that completes it."""
        self.feeders: dict[str, list[str]] = {}
        """Reduce or Export to the passes that read its rows."""
        self.pending = [t for t in layout.targets if not self._answered(t)]
        self.open = {s for t in self.pending for s in t.steps}
        self.actions: list[Action] = []

    def plan(self) -> Plan:
        """Actions in an order in which each comes after all it needs."""
        groups: dict[tuple[int, str], list[Item]] = {}
        for target in self.pending:
            for index, frame in enumerate(self._read_frames(target)):
                groups.setdefault((self._level(target, index), frame), []).append(Item(target, index))
        fed: dict[str, int] = {}
        for (_, frame), items in sorted(groups.items(), key=lambda pair: pair[0][0]):
            self._passes(frame, items)
            for item in items:
                fed[item.target.tail] = fed.get(item.target.tail, 0) + 1
                if not item.is_piece and fed[item.target.tail] == len(self._read_frames(item.target)):
                    self._finish(item.target) if item.target.shape == "export" else self._settle(item.target)
        reused = tuple(t for t in self.layout.targets if t not in self.pending)
        return Plan(self.layout, reused, tuple(self.actions))

    def _answered(self, target: Target) -> bool:
        return self.layout.object(target).answered(self.layout.units[target.frame])

    def _read_frames(self, target: Target) -> list[str]:
        """Frames over which a target passes: its own for pieces, those of its parents for Reduce and Export."""
        if target.shape in ("base", "rows", "layer"):
            return [target.frame]
        frames = [self.layout.graph[p].frame for p in self.layout.graph[target.tail].step.parents]
        return frames if len(set(frames)) > 1 else frames[:1]

    def _level(self, target: Target, index: int = 0) -> int:
        """Which round of passes an item belongs to: one after everything that it reads from outside its pass."""
        known = self.levels.get((target.tail, index))
        if known is not None:
            return known
        graph = self.layout.graph
        frames = self._read_frames(target)
        first = graph[target.steps[0]]
        parents = [first.step.parents[index]] if len(frames) > 1 else first.step.parents
        level = max((self._done(g) + 1 for s in target.steps for g in graph[s].step.given.values()), default=0)
        for parent in parents:
            holder = self.layout.holder[parent][0]
            live = holder.shape in ("base", "rows", "layer") and holder.frame == frames[index] and parent in self.open
            level = max(level, self._level(holder) if live else self._done(parent) + 1)
        self.levels[target.tail, index] = level
        return level

    def _done(self, step: str) -> int:
        """The round after which a step is there; -1 for what is there already."""
        if step not in self.open:
            return -1
        holder = self.layout.holder[step][0]
        return max(self._level(holder, i) for i in range(len(self._read_frames(holder))))

    def _passes(self, frame: str, items: list[Item]) -> None:
        """One pass over a frame, or several where two items read different versions of a column.

        What reads the rows of an item that has to wait for the next pass waits with it.
        """
        order = list(self.layout.graph)
        waiting = sorted(items, key=lambda item: order.index(item.target.steps[0]))
        while waiting:
            builder = PassBuilder(self.layout, frame, call_of)
            left: list[Item] = []
            for item in waiting:
                later = {step for other in left if other.is_piece for step in other.target.steps}
                if later & set(builder.parents(item)) or not builder.takes(item):
                    left.append(item)
            self._pass(frame, builder)
            waiting = left

    def _pass(self, frame: str, builder: PassBuilder) -> None:
        units = self.layout.frames[frame]
        tasks, work = builder.tasks(units, partial(self._missing, units=units))
        name = f"pass:{frame}:{len(self.actions)}"
        pieces = tuple(i.target for i in builder.items if i.is_piece)
        spills = tuple(spill_of(i.target) for i in builder.items if i.target.shape in ("verdict", "dataset"))
        steps = tuple(s for i in builder.items for s in i.target.steps)
        needs = self._needs(builder)
        exports = tuple(i.target.address for i in builder.items if i.target.shape == "export")
        self.actions.append(Action("pass", name, pieces, needs, tuple(tasks), work, spills, (), steps, len(units), exports))
        for item in builder.items:
            self.maker |= dict.fromkeys(item.target.steps, name)
            if not item.is_piece:
                self.feeders.setdefault(item.target.tail, []).append(name)

    def _needs(self, builder: PassBuilder) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for item in builder.items:
            given = [g for s in item.target.steps for g in self.layout.graph[s].step.given.values()]
            for step in (*builder.parents(item), *given):
                if step in self.maker:
                    found[self.maker[step]] = None
        return tuple(found)

    def _missing(self, item: Item, units: Sequence[FrameUnit]) -> Sequence[bool]:
        """Unit by unit, whether a part of an item has no receipt yet."""
        place = (item.target.address, item.index)
        if place not in self.receipts:
            self.receipts[place] = self._receipts(item)
        prefix, have = self.receipts[place]
        return [prefix + unit.key not in have for unit in units] if have else [True] * len(units)

    def _receipts(self, item: Item) -> tuple[str, dict[str, Receipt]]:
        """What stands before the key of an item's parts, and the receipts there are: looked up once, not once a unit."""
        target = item.target
        if target.shape in ("verdict", "dataset"):
            folder, prefix = self.layout.store.spill(spill_of(target)), f"{item.index}-"
        else:
            folder, prefix = self.layout.object(target), f"{item.index}-" if len(self._read_frames(target)) > 1 else ""
        return prefix, folder.receipts()

    def _settle(self, target: Target) -> None:
        layout, node = self.layout, self.layout.graph[target.tail]
        assert isinstance(node.stage, Reduce)
        verdict = target.shape == "verdict"
        count = node.stage.partitions(node.params)
        keys = tuple(f"part-{i:05d}-of-{count:05d}" for i in range(count))
        frames = [layout.graph[p].frame for p in node.step.parents]
        frames = frames if len(set(frames)) > 1 else frames[:1]
        parts = tuple(f"{i}-{u.key}" for i, f in enumerate(frames) for u in layout.frames[f])
        address = f"{target.address}-verdicts" if verdict else target.address
        spill, parts, needs = self._merge(target, node, parts, count)
        work = Settle(
            call_of(layout, node), layout.store.url, str(layout.recipe.folder), address, spill, parts,
            node.stage.emits_of(node.params), verdict,
        )  # fmt: skip
        ident = fingerprint([target.address, "settle", layout.units[frames[0]]])
        folder = layout.store.spill(address) if verdict else layout.store.object(address)
        have = folder.receipts()
        tasks = tuple(Task(ident, FrameUnit(k, f"part {i} of {count}"), i) for i, k in enumerate(keys) if k not in have)
        name = f"settle:{target.tail}"
        self.actions.append(
            Action(
                "settle",
                name,
                () if verdict else (target,),
                needs,
                tasks,
                {ident: work},
                (address,) if verdict else (),
                () if verdict else tuple(dict.fromkeys((spill_of(target), spill))),
                target.steps,
                count,
            )
        )
        self.maker[target.tail] = name
        if verdict:
            self._home(target, node, keys, address, spill)

    def _merge(
        self, target: Target, node: Node, parts: tuple[str, ...], partitions: int
    ) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
        """Spill and parts that settle reads, and the actions before it: those emitted, or above MANY of them, merged ones."""
        feeders = tuple(self.feeders[target.tail])
        if len(parts) <= MANY or partitions == 1:
            return spill_of(target), parts, feeders
        layout, address, name = self.layout, f"{target.address}-merged", f"merge:{target.tail}"
        assert isinstance(node.stage, Reduce)
        groups = tuple(parts[i : i + FAN_IN] for i in range(0, len(parts), FAN_IN))
        keys = tuple(f"merged-{i:05d}-of-{len(groups):05d}" for i in range(len(groups)))
        emits = node.stage.emits_of(node.params)
        work = Merge(call_of(layout, node), layout.store.url, str(layout.recipe.folder), address, spill_of(target), groups, emits)
        ident = fingerprint([target.address, "merge", parts])
        have = layout.store.spill(address).receipts()
        tasks = tuple(Task(ident, FrameUnit(k, f"spills {i} of {len(groups)}"), i) for i, k in enumerate(keys) if k not in have)
        self.actions.append(Action("merge", name, (), feeders, tasks, {ident: work}, (address,), (), target.steps, len(groups)))
        return address, keys, (name,)

    def _home(self, target: Target, node: Node, keys: tuple[str, ...], settled: str, spill: str) -> None:
        layout = self.layout
        onto = home(node, layout.graph)
        writes = {n: t for n, t in node.writes.items() if n != "row"}
        work = Home(call_of(layout, node, writes), layout.store.url, target.address, settled, keys, (layout.standing(onto.name),))
        units = layout.frames[onto.frame]
        ident = fingerprint([target.address, "home", layout.units[onto.frame]])
        have = layout.object(target).receipts()
        tasks = tuple(Task(ident, u, i) for i, u in enumerate(units) if u.key not in have)
        name = f"home:{target.tail}"
        self.actions.append(
            Action(
                "home",
                name,
                (target,),
                (f"settle:{target.tail}",),
                tasks,
                {ident: work},
                (),
                tuple(dict.fromkeys((spill_of(target), spill, settled))),
                target.steps,
                len(units),
            )
        )
        self.maker[target.tail] = name

    def _finish(self, target: Target) -> None:
        layout, node = self.layout, self.layout.graph[target.tail]
        assert isinstance(node.stage, Export)
        units = layout.units[target.frame]
        keys = tuple(u.key for u in layout.frames[target.frame])
        work = Finish(call_of(layout, node), layout.store.url, str(layout.recipe.folder), target.address, units, keys)
        ident = fingerprint([target.address, "finish", units])
        task = Task(ident, FrameUnit(f"dataset-{units}", "dataset"), 0)
        self.actions.append(
            Action(
                "finish",
                f"finish:{target.tail}",
                (target,),
                tuple(self.feeders[target.tail]),
                (task,),
                {ident: work},
                (),
                (),
                target.steps,
                1,
            )
        )
        self.maker[target.tail] = f"finish:{target.tail}"


def spill_of(target: Target) -> str:
    """Address of the emits of a Reduce."""
    return f"{target.address}-emits"


def call_of(layout: Layout, node: Node, writes: Mapping[str, object] | None = None) -> Call:
    """A node as it is shipped."""
    given = {k: tuple(_files(layout, s)) for k, s in node.step.given.items()}
    return Call(
        step=node.name,
        stage=node.stage.name,
        params=node.params.model_dump(mode="json"),
        reads=node.stage.reads_of(node.params),
        writes=dict(writes) if writes is not None else node.writes,
        where=node.where.text if node.where else None,
        given=given,
        sample=layout.ids.sample if node.shape == "base" else None,
        fill=layout.fills.get(node.name),
        seat=_seat(layout, node),
    )


def _seat(layout: Layout, node: Node) -> Seat | None:
    if not isinstance(node.stage, Ask):
        return None
    from synthetic.room import check_served

    assert isinstance(node.params, AskParams)
    if not layout.store.place.local:
        raise RecipeError(
            f"{node.step.place}: step '{node.name}' asks a model, and its answers are kept in a ledger that is appended to and "
            f"claimed by locks: {layout.store.url} has neither; run this recipe with --store FOLDER (a local disk or NFSv4)"
        )
    run = layout.recipe.run
    return Seat(check_served(node.params.model, run.models), str(layout.store.root), run.workers or len(os.sched_getaffinity(0)))


def _files(layout: Layout, step: str) -> Iterator[str]:
    target, _ = layout.holder[step]
    for unit in layout.frames[layout.graph[step].frame]:
        yield layout.object(target).part(unit.key)
