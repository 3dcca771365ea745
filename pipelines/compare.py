"""What changed between two runs or published datasets: by step and reason, row by row, bucket by bucket, with samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from manifests.catalog import Catalog, CatalogError, plainly
from manifests.step_views import RecipeViews, Step, literal, quoted, steps_of
from manifests.store import Store
from pipelines.recipe import hint

SAMPLES = 3
"""Rows shown of each way in which rows came or went."""
MOVES = ("label", "bucket")
"""Columns whose changes are counted, the first that both sides have."""


@dataclass
class Side:
    """One of the two: a recipe as it ran, and the step that is compared."""

    label: str
    views: RecipeViews
    step: Step

    def counts(self) -> dict[str, dict[str, Any]]:
        """Accounts of each complete step."""
        found = {}
        for step in self.views.steps.values():
            if self.views.complete(step):
                totals = self.views.totals(step)
                head = self.views.files.head(step.object, step.units) or {}
                found[step.name] = {
                    "in": totals.get("records", totals.get("in", 0)), "out": totals.get("made", totals.get("standing", 0)),
                    "tokens": head.get("tokens"), "reasons": {**totals.get("skipped", {}), **totals.get("dropped", {})},
                }  # fmt: skip
        return found


@dataclass
class Difference:
    """All that is told."""

    a: str
    b: str
    steps: list[dict[str, Any]] = field(default_factory=list)
    same: int = 0
    gone: int = 0
    come: int = 0
    ways: list[dict[str, Any]] = field(default_factory=list)
    """Rows that went or came, by the step and reason of the side that does not have them, each with samples."""
    moved: list[dict[str, Any]] = field(default_factory=list)


def compare(store: Store, a: str, b: str, step: str | None = None) -> Difference:
    """Compare two runs (ids), recipes (their last run) or published names. CatalogError for what is not there."""
    catalog = Catalog(store)
    catalog.refresh()
    left, right = _side(catalog, a, step), _side(catalog, b, step)
    found = Difference(f"{left.label}: {left.step.name}", f"{right.label}: {right.step.name}")
    found.steps = list(_steps(left.counts(), right.counts()))
    with plainly():
        _rows(catalog, left, right, found)
    return found


def _side(catalog: Catalog, name: str, wanted: str | None) -> Side:
    record, label, own = record_of(catalog.store, name)
    views = views_of(catalog, record)
    chosen = wanted or own or _last(views)
    step = views.steps.get(chosen)
    if step is None:
        raise CatalogError(f"{name} has no step '{chosen}'{hint(chosen, list(views.steps))}")
    while step.shape == "export":
        step = views.steps[step.parents[0]]
    if not views.complete(step):
        raise CatalogError(
            f"{name}: step '{step.name}' has no complete answer in this store: its run did not end, or gc removed it"
        )
    return Side(label, views, step)


def views_of(catalog: Catalog, record: Mapping[str, Any]) -> RecipeViews:
    """The views of a recipe as a run left it."""
    return RecipeViews(catalog.files, record["name"], steps_of(record["name"], record), record["units"])


def record_of(store: Store, name: str) -> tuple[dict[str, Any], str, str | None]:
    """The record of a run, recipe or published name; what to call it; the step it means. Raises what says that there is none."""
    recipes, refs = store.records("recipes"), store.records("refs")
    if (record := store.run_record(name)) is not None:
        return record, f"run {name}", None
    if name in refs:
        return store.record_behind(name, refs[name]), f"published {name}", refs[name]["step"]
    if name in recipes:
        return recipes[name], f"recipe {name}", None
    known = [*(run for run, _ in store.run_records()), *recipes, *refs]
    raise CatalogError(f"'{name}' is no run, recipe or published name of {store.url}{hint(name, known)}")


def last_run(store: Store) -> str:
    """Id of the last run that wrote a record; CatalogError while there is none."""
    found = next(store.run_records(), None)
    if found is None:
        raise CatalogError(f"{store.url}: nothing has run here yet")
    return found[0]


def _last(views: RecipeViews) -> str:
    """The last step that is complete."""
    there = [s.name for s in views.steps.values() if views.complete(s)]
    if not there:
        raise CatalogError(f"{views.name} has no complete step in this store")
    return there[-1]


def _steps(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A line for each step of either side whose accounts differ."""
    for name in dict.fromkeys([*a, *b]):
        old, new = a.get(name), b.get(name)
        if old == new:
            continue
        before, after = (old or {}).get("reasons", {}), (new or {}).get("reasons", {})
        reasons = {r: [before.get(r, 0), after.get(r, 0)] for r in {**before, **after} if before.get(r, 0) != after.get(r, 0)}
        pairs = {key: [(old or {}).get(key), (new or {}).get(key)] for key in ("in", "out", "tokens")}
        yield {"step": name, **pairs, "reasons": reasons}


def _rows(catalog: Catalog, left: Side, right: Side, found: Difference) -> None:
    """Who is in both, who went, who came, who moved."""
    con = catalog.con
    moves = next((c for c in MOVES if all(c in side.views.visible(side.step) for side in (left, right))), None)
    names = {"id", "url", *([moves] if moves else [])}
    for side, table in ((left, "a"), (right, "b")):
        con.execute(f'create or replace temp table "@{table}" as {side.views.standing(side.step, names)}').fetchall()
    counts = """select count(*) filter (where a.id is not null and b.id is not null), count(*) filter (where b.id is null),
        count(*) filter (where a.id is null) from "@a" a full join "@b" b on a.id = b.id"""
    found.same, found.gone, found.come = con.execute(counts).fetchall()[0]
    if found.gone:
        found.ways += _ways(con, "a", "b", right, "went")
    if found.come:
        found.ways += _ways(con, "b", "a", left, "came")
    if moves:
        column = quoted(moves)
        query = f"""select a.{column}, b.{column}, count(*), list(a.id order by a.id)[:{SAMPLES}] from "@a" a join "@b" b
            on a.id = b.id where a.{column} is distinct from b.{column} group by 1, 2 order by 3 desc, 1, 2"""
        found.moved = [
            {"column": moves, "from": x, "to": y, "rows": n, "samples": s} for x, y, n, s in con.execute(query).fetchall()
        ]


def _ways(con: Any, has: str, lacks: str, other: Side, way: str) -> Iterator[dict[str, Any]]:
    """Why the other side does not have these rows: the step and reason where it dropped the row or the row it was cut from."""
    fells = [
        f"select {literal(s.name)} as step, {place} as place, drop_reason as reason, id from ({other.views.dropped(s, ['id'])})"
        for place, s in enumerate(other.views.steps.values()) if other.views.fells(s) and other.views.complete(s)
    ]  # fmt: skip
    nobody = "select null::varchar as step, 0 as place, null::varchar as reason, null::varchar as id where false"
    con.execute(f'create or replace temp table "@why" as {" union all ".join([nobody, *fells])}').fetchall()
    shown = "id, url" if _has_url(con, has) else "id, null as url"
    query = f"""with lost as (select {shown} from "@{has}" where id not in (select id from "@{lacks}")),
            told as (select lost.id, lost.url, min_by(w.step, w.place) as step, min_by(w.reason, w.place) as reason
                from lost left join "@why" w on w.id = lost.id or w.id = split_part(lost.id, '#', 1) group by all)
        select step, reason, count(*), list({{'id': id, 'url': url}} order by hash(id))[:{SAMPLES}] from told
        group by all order by 3 desc, 1, 2"""
    for step, reason, rows, samples in con.execute(query).fetchall():
        yield {"way": way, "step": step, "reason": reason, "rows": rows, "samples": samples}


def _has_url(con: Any, table: str) -> bool:
    return any(row[0] == "url" for row in con.execute(f'describe "@{table}"').fetchall())


def as_json(found: Difference) -> str:
    """The difference for scripts."""
    return orjson.dumps(found, option=orjson.OPT_INDENT_2).decode()


def as_text(found: Difference) -> str:
    """The difference for a reader."""
    lines = [
        f"A  {found.a}",
        f"B  {found.b}",
        "",
        f"rows in both {found.same:,}; only in A {found.gone:,}; only in B {found.come:,}",
    ]
    for way in found.ways:
        other, side = ("B", "A") if way["way"] == "went" else ("A", "B")
        why = f"{other} dropped them in {way['step']}: {way['reason']}" if way["step"] else f"{other} never had them"
        lines.append(f"  only in {side}: {way['rows']:,} rows, {why}")
        lines += [f"      {s['id']}  {s['url'] or ''}".rstrip() for s in way["samples"]]
    for move in found.moved:
        lines.append(f"  {move['column']} {move['from']} -> {move['to']}: {move['rows']:,} rows, such as {move['samples'][0]}")
    lines += ["", "steps that differ (A -> B):"] if found.steps else ["", "every step has the same accounts"]
    for step in found.steps:
        facts = [f"{key} {_arrow(*step[key])}" for key in ("in", "out", "tokens") if step[key] != [None, None]]
        reasons = [f"{reason} {_arrow(*pair)}" for reason, pair in step["reasons"].items()]
        lines.append(f"  {step['step']}: {', '.join([*facts, *reasons])}")
    return "\n".join(lines)


def _arrow(a: int | None, b: int | None) -> str:
    said = ["-" if v is None else f"{v:,}" for v in (a, b)]
    return said[0] if a == b else f"{said[0]} -> {said[1]} ({(b or 0) - (a or 0):+,})"
