"""The SQL behind `<recipe>.<step>`: the rows of a frame, put together from the objects that hold its columns.

All objects on one frame have one part per unit, with the same rows in the same order: they are joined by (unit, position).
A selection holds its parent's positions (`parent_at`) and reads everything else through the parent. Only objects whose
columns are wanted are joined, so that `count(*)` over a frame opens one object.

What a view cannot show, because it is not stored, is null: the version of a column that a later step of the same object
writes again, and the text of rows that a step of the same object drops.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from manifests.place import read_parquet
from manifests.store import Store

PARENT_AT = "parent_at"
ANY_ROW = '1 as "@row"'
UNIT, AT = "@unit", "@at"
"""Address of a row within its frame: index of the unit and position; no stage can write columns of these names in SQL."""


class Connection(Protocol):
    """The little of DuckDB that is needed here."""

    def execute(self, query: str, parameters: object = None, /) -> Any:
        """Run a statement."""
        ...


def quoted(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """An SQL string."""
    return "'" + text.replace("'", "''") + "'"


@dataclass(frozen=True, slots=True)
class Step:
    """A step as the record of a recipe has it."""

    recipe: str
    name: str
    uses: str
    shape: str
    frame: str
    parents: tuple[str, ...]
    object: str
    member: int
    units: str
    columns: Mapping[str, str]
    """Column to the step that wrote it last (`a+b` in a union)."""
    types: Mapping[str, str]
    stored: frozenset[str]
    given: tuple[str, ...] = ()
    inputs: str | None = None
    """Paths of a source, as written in the recipe."""


def steps_of(recipe: str, record: Mapping[str, Any]) -> dict[str, Step]:
    """Steps of a recipe record, parents before children, otherwise in the record's `order` (or as they lie there)."""
    raw: Mapping[str, Any] = record["steps"]
    order = [name for name in record.get("order", raw) if name in raw]
    found: dict[str, Step] = {}

    def visit(name: str) -> None:
        if name in found or name not in raw:
            return
        for parent in raw[name]["parents"]:
            visit(parent)
        found[name] = _step(recipe, name, raw[name])

    for name in order:
        visit(name)
    return found


def _step(recipe: str, name: str, raw: Mapping[str, Any]) -> Step:
    columns: Mapping[str, Mapping[str, str]] = raw["columns"]
    given = raw.get("given", ())
    return Step(
        recipe, name, raw["uses"], raw["shape"], raw["frame"], tuple(raw["parents"]), raw["object"], raw["member"], raw["units"],
        {n: c["owner"] for n, c in columns.items()}, {n: c["type"] for n, c in columns.items()}, frozenset(raw["stored"]),
        tuple(given.values() if isinstance(given, Mapping) else given), raw.get("inputs"),
    )  # fmt: skip


@dataclass
class Files:
    """Lists of part files, handed to DuckDB as variables: ten thousand names stay out of the text of a view."""

    con: Connection
    store: Store
    _keys: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    _heads: dict[tuple[str, str], dict[str, Any] | None] = field(default_factory=dict)
    _questions: dict[str, dict[str, Any]] = field(default_factory=dict)
    _variables: dict[tuple[str, tuple[str, ...]], str] = field(default_factory=dict)

    def head(self, address: str, units: str) -> dict[str, Any] | None:
        """Totals of an answer; None while it is not complete."""
        if self._heads.get((address, units)) is None:
            target = self.store.object(address)
            self._heads[address, units] = target.head(units) if target.answered(units) else None
        return self._heads[address, units]

    def members(self, address: str) -> list[dict[str, Any]]:
        """What was asked of an object, member by member."""
        if address not in self._questions:
            target = self.store.object(address)
            self._questions[address] = target.question() if target.asked() else {}
        members: list[dict[str, Any]] = self._questions[address].get("members", [])
        return members

    def keys(self, address: str, units: str) -> list[str]:
        """Unit keys of an answer, in order."""
        if (address, units) not in self._keys:
            path = self.store.object(address).table(units)
            self._keys[address, units] = read_parquet(path, ["unit"])["unit"].to_pylist()
        return self._keys[address, units]

    def scan(self, address: str, keys: Sequence[str]) -> str:
        """A table function over these parts."""
        name = self._variables.get((address, tuple(keys)))
        if name is None:
            name = f"gristmill_files_{len(self._variables)}"
            folder = f"{self.store.url}/objects/{address}/parts/"
            self.con.execute(f"set variable {name} = ?", [[f"{folder}{key}.parquet" for key in keys]]).fetchall()
            self._variables[address, tuple(keys)] = name
        return f"read_parquet(getvariable('{name}'))"


@dataclass
class RecipeViews:
    """The views of one recipe."""

    files: Files
    name: str
    steps: dict[str, Step]
    units: Mapping[str, str]
    """Frame to the name of its manifest."""

    def complete(self, step: Step) -> bool:
        """Whether a step has an answer, and its frame as well."""
        frame = self.steps.get(step.frame)
        if self.files.head(step.object, step.units) is None or frame is None:
            return False
        return self.files.head(frame.object, frame.units) is not None

    def totals(self, step: Step) -> dict[str, Any]:
        """Accounting of a step over all parts; empty while it is not complete."""
        head = self.files.head(step.object, step.units)
        members: list[dict[str, Any]] = (head or {}).get("members", [])
        return members[step.member] if step.member < len(members) else {}

    def fells(self, step: Step) -> bool:
        """Whether a step has dropped or quarantined rows of its frame."""
        totals = self.totals(step)
        if step.shape == "rows":  # a conversation of which nothing came is a row with a reason; other new frames have none
            head = self.files.head(step.object, step.units) or {}
            return bool(totals.get("made", 0) < head.get("rows", 0))
        return step.shape in ("layer", "verdict") and bool(totals.get("dropped") or totals.get("quarantined"))

    def visible(self, step: Step) -> dict[str, str]:
        """Columns that a view can show, with their owners."""
        return {n: o for n, o in step.columns.items() if self.hidden(step.frame, n, o, step) is None}

    def hidden(self, frame: str, column: str, owner: str, step: Step | None = None) -> str | None:
        """Why a column cannot be shown; None when it can."""
        if frame not in self.steps:
            return "its frame is not in the record of the recipe"
        place = self._place(frame, column, owner)
        if place is None:
            above = list(self._above(frame, {column: owner}))
            if not above:
                return "it is not stored"
            return next((why for f, more in above for n, o in more.items() if (why := self.hidden(f, n, o))), None)
        address, member = place
        if column not in self._stored(address) and not self._named(frame, column):
            return "it is not stored"
        if self.files.head(address, self.units[frame]) is None:
            return f"the object that holds it has no complete answer ({address})"
        again = [m["step"] for m in self.files.members(address)[member + 1 :] if column in m["writes"]]
        if again:
            keep = f"set `keep: true` on '{step.name if step is not None else owner}' to store its own"
            return f"'{again[-1]}' writes it again and only the last version is stored; {keep}"
        return None

    def _stored(self, address: str) -> frozenset[str]:
        return frozenset().union(*(s.stored for s in self.steps.values() if s.object == address))

    def _place(self, frame: str, column: str, owner: str) -> tuple[str, int] | None:
        """Object on this frame that holds a column, and the member that wrote it; None when it is read from above."""
        base, first = self.steps[frame], self.steps.get(owner.split("+", maxsplit=1)[0])
        here = first is not None and first.frame == frame
        if base.shape == "rows" and column in base.stored and not here:
            return base.object, 0
        return (first.object, first.member) if here and first is not None else None

    def _named(self, frame: str, column: str) -> bool:
        """The column that tells from which step a row of a union came; a selection does not store it."""
        return column == "step" and self.is_union(frame) and column not in self.steps[frame].stored

    def is_union(self, frame: str) -> bool:
        """Whether a selection takes rows of several frames: the keys of its units then begin with `<parent>-`."""
        base = self.steps[frame]
        return base.shape == "rows" and len({self.steps[p].frame for p in base.parents}) > 1

    def _above(self, frame: str, columns: Mapping[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
        """Parent frames of a selection, each with the columns and owners to read there."""
        base = self.steps[frame]
        if base.shape != "rows":
            return
        if not self.is_union(frame):
            yield self.steps[base.parents[0]].frame, dict(columns)
            return
        for parent in base.parents:
            known = self.steps[parent]
            yield known.frame, {n: known.columns[n] for n in columns if n in known.columns}

    def relation(
        self, frame: str, columns: Mapping[str, str], books: Iterable[str] = (), keys: Sequence[str] | None = None
    ) -> str:  # fmt: skip
        """All rows of a frame: address, columns, and `drop_step`, `drop_reason` of the objects in `books` as `@step:<object>`.

        `keys` are the units to read, all by default; the unit's index is its place among them.
        """
        here: dict[str, dict[str, str]] = {}
        far: dict[str, str] = {}
        for name, owner in columns.items():
            place = self._place(frame, name, owner)
            if place is None:
                far[name] = owner
            elif not self._named(frame, name):
                here.setdefault(place[0], {})[name] = name
        for address in books:
            here.setdefault(address, {}).update({f"@step:{address}": "drop_step", f"@reason:{address}": "drop_reason"})
        keys = self.files.keys(self.steps[frame].object, self.units[frame]) if keys is None else keys
        tells = "step" in columns and self._named(frame, "step")
        if self.is_union(frame) and (far or tells):
            return self._branches(frame, here, far, keys, tells=tells)
        above = next(self._above(frame, far)) if far else None
        return self._joined(frame, here, above, keys)

    def _branches(
        self, frame: str, here: Mapping[str, Mapping[str, str]], far: Mapping[str, str], keys: Sequence[str], *, tells: bool
    ) -> str:  # fmt: skip
        """A union, parent by parent: the key of a unit begins with the number of its parent."""
        pieces, offset = [], 0
        for index, (above, theirs) in enumerate(self._above(frame, far)):
            some = [k for k in keys if k.startswith(f"{index}-")]
            named = f"{literal(self.steps[frame].parents[index])} as {quoted('step')}" if tells else ""
            if some:
                pieces.append(self._joined(frame, here, (above, theirs), some, f"{index}-", offset, named))
            offset += len(some)
        return " union all by name ".join(f"({piece})" for piece in pieces)

    def _joined(
        self, frame: str, here: Mapping[str, Mapping[str, str]], far: tuple[str, Mapping[str, str]] | None, keys: Sequence[str],
        branch: str = "", offset: int = 0, more: str = "",
    ) -> str:  # fmt: skip
        """Objects on a frame joined by position, and the parent's rows through `parent_at`."""
        base = self.steps[frame].object
        addresses = list(here)
        if far is not None or not addresses:
            addresses = [base, *(a for a in addresses if a != base)]
        at = {address: f"s{i}" for i, address in enumerate(addresses)}
        out = [f"s0.file_index + {offset} as {quoted(UNIT)}", f"s0.file_row_number as {quoted(AT)}", *([more] if more else [])]
        out += [f"{at[a]}.{quoted(c)} as {quoted(alias)}" for a, cs in here.items() for alias, c in cs.items()]
        tables = f"{self.files.scan(addresses[0], keys)} s0"
        for address in addresses[1:]:
            same = f"{at[address]}.file_index = s0.file_index and {at[address]}.file_row_number = s0.file_row_number"
            tables += f" join {self.files.scan(address, keys)} {at[address]} on {same}"
        if far is not None and far[1]:
            above, theirs = far
            out += [f"p.{quoted(n)}" for n in theirs]
            same = f"p.{quoted(UNIT)} = s0.file_index and p.{quoted(AT)} = s0.{PARENT_AT}"
            tables += f" join ({self.relation(above, theirs, keys=[k.removeprefix(branch) for k in keys])}) p on {same}"
        return f"select {', '.join(out)} from {tables}"

    def path(self, step: Step) -> list[Step]:
        """A step and the steps before it on its frame, in recipe order: those that may have dropped its rows."""
        seen, pending = {step.name}, [step.name]
        while pending:
            for parent in self.steps[pending.pop()].parents:
                if parent in self.steps and parent not in seen:
                    seen.add(parent)
                    pending.append(parent)
        return [s for name, s in self.steps.items() if name in seen and s.frame == step.frame]

    def stands(self, step: Step) -> str | None:
        """The condition on `@step:<object>`; None when every row of the frame stands at the step."""
        head = self.files.head(step.object, step.units) or {}
        if step.shape == "rows":
            everyone = not self.fells(step)
        else:
            everyone = step.shape not in ("layer", "verdict") or self.totals(step).get("standing", 0) == head.get("rows")
        if everyone:
            return None
        book = quoted(f"@step:{step.object}")
        return f"({book} is null or {book} > {step.member})"

    def standing(
        self, step: Step, wanted: Collection[str] | None = None, *, address: bool = False, keys: Sequence[str] | None = None
    ) -> str:  # fmt: skip
        """The rows that stand at a step."""
        columns = _chosen(self.visible(step), wanted)
        condition = self.stands(step)
        inner = self.relation(step.frame, columns, [step.object] if condition else [], keys)
        shown = [*([quoted(UNIT), quoted(AT)] if address else []), *self._shown(step, columns, wanted)]
        return f"select {', '.join(shown or [ANY_ROW])} from ({inner}) where {condition or 'true'}"

    def _shown(self, step: Step, columns: Mapping[str, str], wanted: Collection[str] | None) -> list[str]:
        """Select list in the order of the record; null stands for what is not stored."""
        names = _chosen(step.columns, wanted)
        return [quoted(n) if n in columns else f"null::{sql_type(step.types[n])} as {quoted(n)}" for n in names]

    def everything(self, step: Step, wanted: Collection[str] | None = None) -> str:
        """All rows of a step's frame, with `drop_reason` and `dropped_by`: the first step on the path that dropped the row."""
        columns = _chosen(self.visible(step), wanted)
        condition = self.stands(step)
        reason, by, books = "null::varchar", "null::varchar", dict[str, None]()
        if condition is not None and (wanted is None or {"drop_reason", "dropped_by"} & set(wanted)):
            path = [s for s in self.path(step) if self.fells(s) and self.complete(s)]
            books = dict.fromkeys([step.object, *(s.object for s in path)])
            felled = [(f"{quoted(f'@step:{s.object}')} = {s.member}", quoted(f"@reason:{s.object}"), literal(s.name)) for s in path]
            reasons = " ".join(f"when {fell} then {why}" for fell, why, _ in felled)
            names = " ".join(f"when {fell} then {name}" for fell, _, name in felled)
            reason = f"case when {condition} then null {reasons} else 'not_standing' end"
            by = f"case when {condition} then null {names} else null end"
        inner = self.relation(step.frame, columns, books)
        shown = [*self._shown(step, columns, wanted), f"{reason} as drop_reason", f"{by} as dropped_by"]
        return f"select {', '.join(shown)} from ({inner})"

    def dropped(
        self, step: Step, columns: Iterable[str], *, address: bool = False, keys: Sequence[str] | None = None
    ) -> str:  # fmt: skip
        """The rows that a step itself dropped, with `drop_reason`; columns hold what they held then."""
        known = {n: step.columns[n] for n in columns if n in step.columns and self.held(step, n)}
        inner = self.relation(step.frame, known, [step.object], keys)
        names = [*([UNIT, AT] if address else []), *known]
        reason = f"{quoted(f'@reason:{step.object}')} as drop_reason"
        where = f"{quoted(f'@step:{step.object}')} = {step.member}"
        return f"select {', '.join([*map(quoted, names), reason])} from ({inner}) where {where}"

    def held(self, step: Step, column: str) -> bool:
        """Whether rows that a step dropped keep this column: a later member of the same object cannot have rewritten it."""
        place = self._place(step.frame, column, step.columns[column])
        if place is not None and place[0] == step.object:
            return column in self._stored(step.object)
        return self.hidden(step.frame, column, step.columns[column]) is None

    def written(self, step: Step) -> list[str]:
        """Small columns that a step wrote itself: for a filter, the values that decided."""
        return [n for n, o in step.columns.items() if o == step.name and not step.types[n].startswith("large_")]

    def files_of_export(self, step: Step) -> str:
        """One row per shard of an export: its files, its rows, and what `encode` told about it."""
        target = self.files.store.object(step.object)
        manifest = f"read_parquet({literal(target.table(step.units))})"
        paths = f"""list_transform(json_keys(files), lambda k: {{'file': {literal(f"{target.url}/parts/")} || unit || k,
            'bytes': (files -> ('$."' || k || '"') ->> 0)::bigint, 'sha256': files -> ('$."' || k || '"') ->> 1}})"""
        tokens = "(counts ->> '$.summary.tokens')::bigint as tokens, counts -> '$.summary' as summary"
        return f"select unit, name, rows, {tokens}, bytes, {paths} as files, seconds from {manifest}"


def _chosen(columns: Mapping[str, str], wanted: Collection[str] | None) -> dict[str, str]:
    return {n: o for n, o in columns.items() if wanted is None or n.lower() in wanted}


def sql_type(arrow: str) -> str:
    """The SQL type of a column that is null throughout; nested ones come as text."""
    plain = {"large_string": "varchar", "string": "varchar", "float": "float", "double": "double", "bool": "boolean",
             "binary": "blob", "large_binary": "blob"}  # fmt: skip
    return plain.get(arrow) or (arrow if re.fullmatch(r"u?int(8|16|32|64)", arrow) else "varchar")
