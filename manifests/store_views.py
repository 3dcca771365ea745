"""The SQL behind the views of a whole store: steps, shards, drops, dropped, quarantine, lineage, refs and runs.

Small ones are tables, made from the heads of manifests; those that read parts are views.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from manifests.place import read_parquet
from manifests.step_views import RecipeViews, Step, literal, quoted
from manifests.store import Store

QUARANTINE = ".quarantine.parquet"
STEPS = pa.schema(
    [("recipe", pa.string()), ("position", pa.int32()), ("step", pa.string()), ("stage", pa.string()), ("shape", pa.string()),
     ("object", pa.string()), ("complete", pa.bool_()), ("rows_in", pa.int64()), ("standing", pa.int64()), ("dropped", pa.int64()),
     ("quarantined", pa.int64()), ("skipped", pa.int64()), ("bytes", pa.int64()), ("parts", pa.int64()), ("digest", pa.string())]
)  # fmt: skip
DROPS = pa.schema([("recipe", pa.string()), ("step", pa.string()), ("reason", pa.string()), ("rows", pa.int64())])
LINEAGE = pa.schema([(name, pa.string()) for name in ("recipe", "step", "object", "parent", "parent_object", "edge")])
REFS = pa.schema(
    [(n, pa.string()) for n in ("name", "recipe", "step", "object")] + [("member", pa.int32()), ("units", pa.string())]
)
RUNS = pa.schema(
    [("id", pa.string()), ("recipe", pa.string()), ("code", pa.int32()), ("seconds", pa.float64()), ("tasks", pa.int64())]
)  # fmt: skip
ANSWERS = pa.schema([(n, pa.string()) for n in ("path", "recipe", "step", "object")] + [("steps", pa.list_(pa.string()))])
SICK = pa.schema([(n, pa.string()) for n in ("path", "recipe", "label", "step", "again")])
ORIGIN = 'struct(unit varchar, "offset" bigint, length bigint)'
DROPPED = {"recipe": "varchar", "step": "varchar", "id": "varchar", "url": "varchar", "origin": ORIGIN, "drop_reason": "varchar",
           "deciding": "json"}  # fmt: skip

NAMES = ("steps", "shards", "drops", "dropped", "quarantine", "lineage", "refs", "runs", "buckets", "mixtures", "prompts")
"""Views of the store; `main.<name>` where a recipe has the same name."""

NEEDS: Mapping[str, tuple[str, ...]] = {"funnel": ("steps",), "why": ("dropped", "quarantine"), "domains": ()}
"""Macros, and the views they read."""

MACROS = {
    "funnel": """(name) as table
        select step, stage, rows_in, skipped, standing, dropped, quarantined,
               round(100.0 * standing / nullif(rows_in, 0), 2) as kept_percent
        from main.steps where recipe = name order by position""",
    "domains": r"""(view) as table
        select regexp_extract(url, '^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?([^/?#:]+)', 1) as domain, count(*) as rows
        from query_table(view) group by all order by rows desc, domain""",
    "why": """(document) as table
        select recipe, step, 'dropped' as verdict, drop_reason as reason, deciding, id, url, origin
        from main.dropped where id = document or (url = document and regexp_matches(document, '[/.:]'))
        union all by name
        select recipe, step, 'quarantined' as verdict, reason, to_json({'detail': detail}) as deciding, id, url,
               {'unit': unit, 'offset': "offset", 'length': length} as origin
        from main.quarantine q where (id = document or (url = document and regexp_matches(document, '[/.:]')))
            and not exists (from main.dropped d where d.id = q.id and d.step = q.step and d.recipe = q.recipe)
        order by recipe, step""",
}


@dataclass(frozen=True, slots=True)
class StoreViews:
    """Everything that is said about all recipes together."""

    store: Store
    recipes: Mapping[str, RecipeViews]

    def tables(self) -> dict[str, pa.Table]:
        """Views that are small enough to be made at once, by name; `@...` are for the other views."""
        return {
            "steps": pa.Table.from_pylist(list(self._steps()), schema=STEPS),
            "drops": pa.Table.from_pylist(list(self._drops()), schema=DROPS),
            "lineage": pa.Table.from_pylist(list(self._lineage()), schema=LINEAGE),
            "refs": pa.Table.from_pylist(
                [{"name": n, **_kept(r, REFS)} for n, r in self.store.records("refs").items()], schema=REFS
            ),
            "runs": pa.Table.from_pylist(list(self._runs()), schema=RUNS),
        }

    def _each(self) -> Iterator[tuple[RecipeViews, int, Step]]:
        for views in self.recipes.values():
            for position, step in enumerate(views.steps.values(), 1):
                yield views, position, step

    def _steps(self) -> Iterator[dict[str, Any]]:
        for views, position, step in self._each():
            head = views.files.head(step.object, step.units)
            known = {"recipe": step.recipe, "position": position, "step": step.name, "stage": step.uses, "shape": step.shape,
                     "object": step.object, "complete": head is not None}  # fmt: skip
            if head is None:
                yield known
                continue
            totals = views.totals(step)
            made = totals.get("made") if step.shape in ("rows", "dataset") else totals.get("standing")
            counts = {kind: sum(totals.get(kind, {}).values()) for kind in ("dropped", "skipped")}
            yield known | counts | {
                "rows_in": totals.get("records", 0) if step.shape == "base" else totals.get("in", 0), "standing": made or 0,
                "quarantined": totals.get("quarantined", 0), **{name: head[name] for name in ("bytes", "parts", "digest")},
            }  # fmt: skip

    def _drops(self) -> Iterator[dict[str, Any]]:
        for views, _, step in self._each():
            for reason, rows in sorted(views.totals(step).get("dropped", {}).items()):
                yield {"recipe": step.recipe, "step": step.name, "reason": reason, "rows": rows}

    def _lineage(self) -> Iterator[dict[str, Any]]:
        for views, _, step in self._each():
            for edge, names in (("from", step.parents), ("given", step.given)):
                for name in names:
                    above = views.steps[name].object if name in views.steps else None
                    yield {"recipe": step.recipe, "step": step.name, "object": step.object, "parent": name,
                           "parent_object": above, "edge": edge}  # fmt: skip

    def _runs(self) -> Iterator[dict[str, Any]]:
        """Runs by id; one without a result is at work or was killed, its fields are null."""
        for run in self.store.runs():
            yield {"id": run, **_kept(self.store.result(run) or {}, RUNS)}

    def answers(self) -> pa.Table:
        """Complete manifests, one row per recipe and object; `step` is the last one that the object holds."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for views, _, step in self._each():
            if views.files.head(step.object, step.units) is not None:
                path = self.store.object(step.object).table(step.units)
                fresh: dict[str, Any] = {"path": path, "recipe": step.recipe, "object": step.object, "steps": []}
                row = found.setdefault((step.recipe, step.object), fresh)
                row["steps"].append(step.name)
                row["step"] = step.name
        return pa.Table.from_pylist(list(found.values()), schema=ANSWERS)

    def shards(self) -> str:
        """One row per part of a complete answer."""
        return f"""select a.recipe, a.step, a.steps, a.object, m.unit, m.name, m.rows, m.bytes, m.files::json as files, m.seconds,
            m.counts::json as counts from read_parquet(getvariable('gristmill_answers')) m
            join main.{quoted("@answers")} a on m.filename = a.path"""

    def dropped(self) -> str:
        """One row per document and step that dropped it; `deciding` holds the small columns that the step wrote."""
        branches = []
        for views, _, step in self._each():
            if views.fells(step) and views.complete(step):
                values = views.written(step)
                rows = views.dropped(step, dict.fromkeys(["id", "url", "origin", *values]))
                held = [n for n in values if views.held(step, n)]
                deciding = f"to_json({{{', '.join(f'{literal(n)}: {quoted(n)}' for n in held)}}})" if held else "null::json"
                known = [n if n in step.columns else f"null as {n}" for n in ("id", "url", "origin")]
                names = f"{literal(step.recipe)} as recipe, {literal(step.name)} as step"
                branches.append(f"select {names}, {', '.join(known)}, drop_reason, {deciding} as deciding from ({rows})")
        return " union all by name ".join(branches) or _empty(DROPPED)

    def sick(self) -> pa.Table:
        """Files of quarantined rows, for each recipe and step (labels in the files are those of the run that wrote them)."""
        found: list[dict[str, str | None]] = []
        for views in self.recipes.values():
            for address, steps in _by_object(views.steps.values()).items():
                members = views.files.members(address)
                labels = [(s, members[s.member]["step"]) for s in steps if s.member < len(members)]
                found += [
                    {"path": path, "recipe": s.recipe, "label": label, "step": s.name, "again": _again(views, s)}
                    for path in self._sick_files(views, steps[0]) for s, label in labels
                ]  # fmt: skip
        return pa.Table.from_pylist(found, schema=SICK)

    def _sick_files(self, views: RecipeViews, step: Step) -> Iterator[str]:
        """Of an answer; of the journal where there is none, for a step over its error limit has no answer."""
        target = self.store.object(step.object)
        if (head := views.files.head(step.object, step.units)) is not None:
            if any(m.get("quarantined") for m in head.get("members", [])):
                table = read_parquet(target.table(step.units), ["unit", "files"])
                for unit, files in zip(table["unit"].to_pylist(), table["files"].to_pylist(), strict=True):
                    if QUARANTINE in files:
                        yield target.part(unit, QUARANTINE)
        else:
            for unit, receipt in target.receipts().items():
                if QUARANTINE in receipt.files:
                    yield target.part(unit, QUARANTINE)

    def quarantine(self, *, files: bool) -> str:
        """Rows and records that broke a stage, each with the place of its bytes."""
        if not files:
            texts = ("recipe", "step", "unit", "id", "url", "reason", "detail", "again")
            return _empty({n: "bigint" if n in ("offset", "length") else "varchar" for n in (*texts, "offset", "length")})
        return f"""select s.recipe, s.step, q.unit, q."offset", q.length, q.id, q.url, q.reason, q.detail,
                s.again || ' --at ' || q.unit || ':' || q."offset" as again
            from read_parquet(getvariable('gristmill_sick')) q
            join main.{quoted("@sick")} s on q.filename = s.path and q.step = s.label"""


def _again(views: RecipeViews, step: Step) -> str | None:
    """The start of the command that reads the record of a quarantined row again; null where the source has no paths."""
    while step.shape != "base" and step.parents and step.parents[0] in views.steps:
        step = views.steps[step.parents[0]]
    return f"gristmill step {step.uses} '{step.inputs}' --out record.parquet" if step.inputs else None


def _kept(record: Mapping[str, Any], schema: pa.Schema) -> dict[str, Any]:
    return {name: record.get(name) for name in schema.names if name in record}


def _by_object(steps: Iterable[Step]) -> dict[str, list[Step]]:
    found: dict[str, list[Step]] = {}
    for step in steps:
        found.setdefault(step.object, []).append(step)
    return found


def _empty(columns: Mapping[str, str]) -> str:
    return f"select {', '.join(f'null::{kind} as {quoted(name)}' for name, kind in columns.items())} where false"
