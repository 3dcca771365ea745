"""One pass over a frame: which members run live, what is read from the store, what is read again from the source."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from pipelines.graph import Node
from pipelines.program import Call, Emit, Encode, FrameUnit, FrameView, Inputs, Piece, Program, Task, Work
from pipelines.targets import Layout, Target
from stages.contract import Map, Reduce


@dataclass(frozen=True, slots=True)
class Item:
    """A target's part in a pass: a piece, or the emit or encode of one of the frames it reads."""

    target: Target
    index: int = 0
    """Which of the read frames."""

    @property
    def is_piece(self) -> bool:
        """Whether it writes a layer on the frame of the pass."""
        return self.target.shape in ("base", "rows", "layer")


@dataclass
class PassBuilder:
    """Programs and tasks for the members of one pass."""

    layout: Layout
    frame: str
    call_of: Callable[[Layout, Node], Call]
    items: list[Item] = field(default_factory=list)
    loads: dict[str, str] = field(default_factory=dict)
    """Column to owner, for what may be read from the store: one column name has one owner in a pass."""

    def takes(self, item: Item) -> bool:
        """Add an item unless it would read another version of a column that the pass already reads."""
        wanted = self._columns(item)
        if any(self.loads.get(name, owner) != owner for name, owner in wanted.items()):
            return False
        self.loads |= wanted
        self.items.append(item)
        return True

    def tasks(self, units: Sequence[FrameUnit], missing: Callable[[Item], Sequence[bool]]) -> tuple[list[Task], dict[str, Work]]:
        """A task for every unit that lacks something; units that lack the same share a program.

        `missing` says of an item, unit by unit, whether its part is not there.
        """
        programs: dict[tuple[bool, ...], Program] = {}
        tasks: list[Task] = []
        for shard, (unit, lacks) in enumerate(zip(units, zip(*map(missing, self.items), strict=True), strict=True)):
            if True not in lacks:
                continue
            if lacks not in programs:
                programs[lacks] = self._program([item for item, lack in zip(self.items, lacks, strict=True) if lack])
            tasks.append(Task(programs[lacks].id, unit, shard))
        return tasks, {p.id: p for p in programs.values()}

    def _node(self, name: str) -> Node:
        return self.layout.graph[name]

    def parents(self, item: Item) -> list[str]:
        """Steps whose rows an item reads on this pass's frame (or, for a piece that makes it, on the parent's)."""
        first = self._node(item.target.steps[0])
        several = len({self._node(p).frame for p in first.step.parents}) > 1
        return [first.step.parents[item.index]] if several and not item.is_piece else list(first.step.parents)

    def _columns(self, item: Item) -> dict[str, str]:
        """Columns an item reads from before itself, with their owners; transient ones left out."""
        if item.target.shape == "base":
            return {}
        found: dict[str, str] = {}
        for step in item.target.steps:
            for name in self._reads(step):
                for parent in self.parents(item) if self._common(item, name) else ():
                    column = self._node(parent).columns.get(name)
                    if column is not None and not column.transient:
                        found[name] = column.owner
        if item.target.shape == "rows":
            for name in (n for n in item.target.stored if n in self._node(item.target.steps[0]).columns):
                column = self._node(item.target.steps[0]).columns[name]
                if column.owner not in item.target.steps:
                    found[name] = column.owner
            found |= {"id": "", "origin": "", "url": ""}
            found = {n: self._owner(item, n) or o for n, o in found.items() if self._owner(item, n)}
        return found

    def _common(self, item: Item, name: str) -> bool:
        """Whether all frames that a union joins have a column: one that only some have is none of the union's."""
        parents = [self._node(parent) for parent in self.parents(item)]
        return len({p.frame for p in parents}) == 1 or all(name in p.columns for p in parents)

    def _owner(self, item: Item, name: str) -> str | None:
        for parent in self.parents(item):
            column = self._node(parent).columns.get(name)
            if column is not None and not column.transient:
                return column.owner
        return None

    def _reads(self, step: str) -> set[str]:
        node = self._node(step)
        derived = set(node.stage.derived) if isinstance(node.stage, Map | Reduce) else set()
        return (set(node.reads) | set(node.where.columns if node.where else ())) - derived

    def _program(self, lacking: list[Item]) -> Program:
        live = self._closure(lacking)
        written = {item.target.tail for item in lacking}
        pieces = [item for item in self._in_order(live) if item.is_piece]
        others = [item for item in lacking if not item.is_piece]
        tails = [p.target.tail for p in pieces]
        mode = pieces[0].target.shape if pieces and pieces[0].target.shape in ("base", "rows") else "stored"
        replayed = mode == "base" and pieces[0].target.tail not in written
        loads = self._loads(pieces, others, tails)
        body = Program(
            id="", root=self.layout.store.url, folder=str(self.layout.recipe.folder), frame=self.frame,
            view=self._view(loads, mode), mode="source" if mode == "base" else mode,
            pieces=tuple(self._piece(p, tails, p.target.tail in written, mode) for p in pieces),
            emits=tuple(self._emit(o, tails) for o in others if o.target.shape != "export"),
            exports=tuple(self._encode(o, tails) for o in others if o.target.shape == "export"),
            loads=tuple(sorted(loads)), check=pieces[0].target.address if replayed else None,
        )  # fmt: skip
        return _named(body)

    def _closure(self, lacking: list[Item]) -> list[Item]:
        """The items that run: those that lack a part, and stored pieces that must run again for transient columns."""
        live = list(lacking)
        pieces = {i.target.tail: i for i in self.items if i.is_piece}
        stored = {t.tail: Item(t) for t in self.layout.targets if t.frame == self.frame and t.shape in ("base", "rows", "layer")}
        pending = list(lacking)
        while pending:
            item = pending.pop()
            if item.target.shape in ("base", "rows"):
                continue
            for parent in self.parents(item):
                source = pieces.get(parent) or stored.get(parent)
                if source is None or source in live or not self._needs_transient(item, live, parent):
                    continue
                live.append(source)
                pending.append(source)
        return live

    def _needs_transient(self, item: Item, live: list[Item], parent: str) -> bool:
        transient = {n for n, c in self._node(parent).columns.items() if c.transient}
        seen: set[str] = set()
        pending = [item]
        while pending:
            current = pending.pop()
            if any(self._reads(step) & transient for step in current.target.steps):
                return True
            if current.is_piece and current.target.tail not in seen:
                seen.add(current.target.tail)
                pending += [other for other in live if current.target.tail in self.parents(other)]
        return False

    def _in_order(self, items: list[Item]) -> list[Item]:
        order = list(self.layout.graph)
        return sorted(items, key=lambda item: order.index(item.target.steps[0]))

    def _loads(self, pieces: list[Item], others: list[Item], tails: list[str]) -> dict[str, str]:
        if pieces and pieces[0].target.shape == "rows":
            return {n: o for item in (*pieces, *others) for n, o in self._columns(item).items() if not self._made_here(o)}
        loads: dict[str, str] = {}
        made = {step for p in pieces for step in p.target.steps}
        for item in (*pieces, *others):
            if not pieces or pieces[0].target.shape != "base" or self._stored_input(item, tails):
                loads |= {name: owner for name, owner in self._columns(item).items() if owner not in made}
        return loads

    def _made_here(self, owner: str) -> bool:
        return owner in self.layout.graph and self._node(owner).frame == self.frame

    def _stored_input(self, item: Item, tails: list[str]) -> bool:
        return any(p not in tails for p in self.parents(item)) and item.target.shape != "base"

    def _view(self, loads: dict[str, str], mode: str) -> FrameView:
        if mode == "rows":
            return self.layout.above(self.frame, loads)
        return self.layout.view(self.frame, {"id": self._id_owner(), **loads})

    def _id_owner(self) -> str:
        return self._node(self.frame).columns["id"].owner if "id" in self._node(self.frame).columns else self.frame

    def _inputs(self, item: Item, tails: list[str]) -> Inputs:
        parents = self.parents(item)
        live = [t for t in tails if t in parents]
        stored = [self.layout.standing(p) for p in parents if p not in tails]
        return Inputs(tuple(live), tuple(stored))

    def _piece(self, item: Item, tails: list[str], write: bool, mode: str) -> Piece:
        target = item.target
        calls = tuple(self.call_of(self.layout, self._node(s)) for s in target.steps)
        if target.shape == "base":
            inputs = Inputs()
        elif target.shape == "rows":
            inputs = Inputs((), tuple(self.layout.standing(p) for p in self._node(target.steps[0]).step.parents))
        else:
            inputs = self._inputs(item, tails)
        del mode
        return Piece(target.address, target.tail, calls, inputs, target.stored, self.layout.recipe.run.keep_text_of_dropped, write)

    def _emit(self, item: Item, tails: list[str]) -> Emit:
        node = self._node(item.target.tail)
        assert isinstance(node.stage, Reduce)
        union = len({self._node(p).frame for p in node.step.parents}) > 1
        return Emit(
            self.call_of(self.layout, node), self._inputs(item, tails), f"{item.target.address}-emits",
            node.stage.partitions(node.params), node.stage.emits_of(node.params), item.index,
            node.step.parents[item.index] if union else "",
        )  # fmt: skip

    def _encode(self, item: Item, tails: list[str]) -> Encode:
        node = self._node(item.target.tail)
        several = len({self._node(p).frame for p in node.step.parents}) > 1
        return Encode(
            self.call_of(self.layout, node), self._inputs(item, tails), item.target.address, f"{item.index}-" if several else ""
        )


def _named(program: Program) -> Program:
    """A program is known to workers by its content: another store, knob or model path is another program."""
    return replace(program, id=hashlib.blake2b(pickle.dumps(program), digest_size=12).hexdigest())
