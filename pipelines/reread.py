"""Texts that are not stored, read again from their source: a record at its offset, then the steps of its frame one by one.

What the store keeps of a dropped row is its reason and its place. When somebody looks, the few rows asked for are made again
with the parameters that the recipe had.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from manifests.step_views import RecipeViews, Step
from pipelines.chain import Opened, checked, make_ids, open_call, stage_input
from pipelines.program import Call
from pipelines.recipe import load
from pipelines.resolve import bind, resolve
from stages.contract import Map, Params, Source, Unit

MOST_UNITS = 2000
"""Inputs of more units are not searched for one record: listing them can take minutes on an object store."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A row's text before and after a step."""

    step: str
    before: str | None
    after: str | None


@dataclass
class Rereader:
    """Reads rows of one source again. `record` is what the store remembers of the recipe."""

    record: Mapping[str, Any]
    views: RecipeViews
    _opened: dict[str, Opened] = field(default_factory=dict)

    def passages(self, row: Mapping[str, Any], upto: Step) -> list[Passage]:
        """The text of a row before and after each step of its frame up to `upto`; empty when it cannot be read again."""
        base = self.views.steps[upto.frame]
        origin = row.get("origin")
        if base.shape != "base" or not origin or base.inputs is None:
            return []
        try:
            return self._along(self._record(base, origin, str(row["id"])), upto)
        except Exception as error:  # a source may be gone and a stage may raise anything: the look goes on without this text
            return [Passage(upto.name, None, f"(cannot be read again: {error})")]

    def _along(self, table: pa.Table | None, upto: Step) -> list[Passage]:
        found: list[Passage] = []
        for step in self.views.path(upto)[1:] if table is not None else []:
            before = _text(table)
            if step.shape == "layer" and not step.given:
                table = self._step(step, table)
            found.append(Passage(step.name, before, _text(table)))
        return found

    def _step(self, step: Step, table: pa.Table) -> pa.Table:
        opened = self._open(step)
        if not isinstance(opened.stage, Map) or opened.stage.rows != "same":
            return table
        given = table
        for column, provider in opened.providers.items():
            given = given.append_column(column, checked(provider, provider.call.writes, stage_input(given, provider))[column])
        made = checked(opened, opened.call.writes, stage_input(given, opened))
        columns = {n: table[n] for n in table.column_names} | {n: made[n] for n in made.column_names if n != "drop_reason"}
        return pa.table(columns)

    def _open(self, step: Step) -> Opened:
        if step.name not in self._opened:
            stage = resolve(step.uses, self.views.name, self._folder)
            params = bind(stage, self._values(step), self.views.name, step.name)
            call = Call(step.name, stage.name, params.model_dump(mode="json"), stage.reads_of(params), stage.writes_of(params))
            self._opened[step.name] = open_call(call)
        return self._opened[step.name]

    @cached_property
    def _folder(self) -> Path:
        return Path(self.record["file"]).parent

    @cached_property
    def _written(self) -> dict[str, Any]:
        """Parameters as the recipe file has them; none when it is gone."""
        path = Path(self.record["file"])
        return {s.name: dict(s.params) for s in load(path).steps} if path.exists() else {}

    def _values(self, step: Step) -> dict[str, Any]:
        """What the run used: the file's values, overlaid by those in the record; a model file is known by its path only."""
        recorded = self.record["steps"][step.name]["facts"].get("params", {})
        plain = {n: v for n, v in recorded.items() if not (isinstance(v, dict) and "file" in v)}
        return {**self._written.get(step.name, {}), **plain}

    def _record(self, base: Step, origin: Mapping[str, Any], document: str) -> pa.Table | None:
        stage = resolve(base.uses, self.views.name, self._folder)
        assert isinstance(stage, Source)
        assert base.inputs is not None
        paths = base.inputs.split(",")
        params = bind(stage, {**self._values(base), "paths": paths}, self.views.name, base.name)
        if len(self.views.files.keys(base.object, base.units)) > MOST_UNITS:
            return None
        for unit in stage.units(params):
            if (
                unit.name == origin["unit"]
                and unit.start <= origin["offset"]
                and (unit.stop is None or origin["offset"] < unit.stop)
            ):
                return self._read(stage, unit, params, origin, document)
        return None

    def _read(self, stage: Source, unit: Unit, params: Params, origin: Mapping[str, Any], document: str) -> pa.Table | None:
        """The row at an offset. A record of an archive is read alone; of other files what stands before it is read as well."""
        alone = replace(unit, start=origin["offset"], stop=origin["offset"] + 1) if "warc" in stage.name else unit
        for chunk in stage.read(alone, params):
            table = chunk.rows
            if "id" not in table.column_names:
                table = table.append_column("id", make_ids(table["origin"]))
            mine = table.filter(pc.equal(table["id"], document))
            if mine.num_rows:
                return mine.slice(0, 1)
        return None


def _text(table: pa.Table) -> str | None:
    """The text of the one row; before there is any, the page it will come from."""
    for name in ("text", "html"):
        if name in table.column_names:
            value = table[name][0].as_py()
            return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return None
