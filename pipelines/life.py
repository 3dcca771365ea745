"""The whole life of a document: where its bytes lie, what each step decided and by which values, where it went."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from manifests.catalog import Catalog, CatalogError, plainly
from manifests.place import read_parquet
from manifests.step_views import AT, UNIT, RecipeViews, Step, literal
from manifests.store import Store
from pipelines.answers import cell
from pipelines.trace import token_place, trace_token

MOST = 5
"""Documents told of one URL, and rows told of one step; the rest is counted."""
PLAIN = frozenset(("id", "url", "origin", "source", "date", "drop_reason", "row"))
"""Columns that decide nothing."""
DOCS = ".docs.parquet"
"""The table beside a token shard: which document begins where."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A row at a step: `verdict` is read, kept, made, dropped, quarantined or written."""

    step: str
    stage: str
    id: str
    verdict: str
    reason: str | None = None
    values: dict[str, Any] = field(default_factory=dict)


@dataclass
class Life:
    """What one recipe did with a document."""

    recipe: str
    id: str
    url: str | None
    origin: dict[str, Any] | None
    moments: list[Moment] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    """The document and every row that was cut or written from it."""


def lives(store: Store, wanted: str, recipes: Collection[str] | None = None) -> list[Life]:
    """The lives of a document id, a URL or TOKEN-SHARD:OFFSET in every recipe that read it.

    CatalogError says where an unknown one was looked for.
    """
    if (place := token_place(wanted)) is not None:
        wanted = trace_token(store, *place)
    catalog = Catalog(store, recipes=recipes or None)
    catalog.refresh()
    with plainly():
        found = [life for views in catalog.views.values() for life in _Reader(catalog, views).lives(wanted)]
    if not found:
        raise CatalogError(_unknown(catalog, wanted))
    return found


def _unknown(catalog: Catalog, wanted: str) -> str:
    looked = [
        f"{v.name}.{s.name} ({(v.files.head(s.object, s.units) or {}).get('rows', 0):,} rows)"
        for v in catalog.views.values() for s in v.steps.values() if s.name == s.frame and s.shape != "export" and v.complete(s)
    ]  # fmt: skip
    what = "URL" if "://" in wanted else "id"
    return (
        f"no document has the {what} {wanted}; looked in {', '.join(looked) or 'no step: nothing is complete'}, and in quarantine. "
        "A document that its source skipped (not HTML, a redirect) never had a row: `gristmill sql 'from steps'` counts those"
    )


@dataclass
class _Reader:
    """Reads one recipe's frames."""

    catalog: Catalog
    views: RecipeViews

    def lives(self, wanted: str) -> Iterator[Life]:
        """One life for each source row of this id or URL."""
        root, seen = wanted.split("#", 1)[0], set[str]()
        for base in self._bases():
            shown = self.views.visible(base)
            columns: dict[str, str] = {n: shown[n] for n in ("id", "url", "origin") if n in shown}
            match = " or ".join(f"{c} = {literal(w)}" for c, w in (("id", root), ("url", wanted)) if c in columns)
            if not match:
                continue
            for row in self._rows(f"select * from ({self.views.relation(base.frame, columns)}) where {match} order by id"):
                if row["id"] not in seen and len(seen) < MOST:
                    seen.add(row["id"])
                    yield self._life(base, row)
        if not seen:
            yield from self._broken(wanted)

    def _bases(self) -> list[Step]:
        """Sources first; frames made from them only where no source has the row (an imported index, a dataset)."""
        frames = [s for s in self.views.steps.values() if s.name == s.frame and s.shape != "export" and self.views.complete(s)]
        return [s for s in frames if s.shape == "base"] or frames

    def _broken(self, wanted: str) -> Iterator[Life]:
        query = f"""select step, id, url, reason, detail, unit, "offset", length, again from quarantine
            where recipe = {literal(self.views.name)} and (id = {literal(wanted)} or url = {literal(wanted)})"""
        if not any(self.views.totals(s).get("quarantined") for s in self.views.steps.values()):
            return
        for row in self._rows_of(self.catalog.run(query)):
            step = self.views.steps[row["step"]]
            origin = {"unit": row["unit"], "offset": row["offset"], "length": row["length"]}
            moment = Moment(step.name, step.uses, row["id"], "quarantined", row["reason"], _said(row, "detail", "again"))
            yield Life(self.views.name, row["id"], row["url"], origin, [moment])

    def _life(self, base: Step, row: dict[str, Any]) -> Life:
        life = Life(self.views.name, row["id"], row.get("url"), row.get("origin"), ids={row["id"]})
        key = self.views.files.keys(base.object, base.units)[row[UNIT]]
        for step in self.views.steps.values():
            if self.views.complete(step):
                life.moments += self._export(step, life) if step.shape == "export" else self._at(step, life, base.frame, key)
        return life

    def _at(self, step: Step, life: Life, frame: str, key: str) -> list[Moment]:
        """The document's rows at a step: those that stand and those that it dropped itself."""
        shown = self.views.visible(step)
        names = [n for n in ("id", "parent_id", *self.views.written(step)) if n in step.columns]
        known = {n: step.columns[n] for n in names if n in shown or self.views.held(step, n)}
        if "id" not in known:
            return []
        inner = self.views.relation(step.frame, known, [step.object], self._keys(step, frame, key))
        ids = ", ".join(literal(i) for i in sorted(life.ids))
        match = f"id in ({ids}) or starts_with(id, {literal(life.id + '#')})"
        match += f" or parent_id in ({ids})" if "parent_id" in known else ""
        moments = []
        for row in self._rows(f"select * from ({inner}) where {match} order by id"):
            moment = self._moment(step, row, shown)
            if moment is not None:
                life.ids.add(row["id"])
                moments.append(moment)
        return moments

    def _keys(self, step: Step, frame: str, key: str) -> list[str] | None:
        """Units that can hold the document's rows: its own on the source's frame and on selections of it."""
        while step.frame != frame:
            base = self.views.steps[step.frame]
            if base.shape != "rows" or self.views.is_union(step.frame):
                return None
            step = self.views.steps[base.parents[0]]
        return [key]

    def _moment(self, step: Step, row: dict[str, Any], shown: Collection[str]) -> Moment | None:
        book, reason = row[f"@step:{step.object}"], row[f"@reason:{step.object}"]
        fell = book == step.member
        if book is not None and book < step.member:
            return None
        values = [n for n in self.views.written(step) if n in row and (self.views.held(step, n) if fell else n in shown)]
        verdict = "dropped" if fell else {"base": "read", "rows": "made", "dataset": "made", "ask": "made"}.get(step.shape, "kept")
        told = _said(row, *(n for n in values if n not in PLAIN))
        if told.get("twin"):
            told["twin_url"] = self._url(step, str(told["twin"]))
        return Moment(step.name, step.uses, row["id"], verdict, reason if fell else None, told)

    def _url(self, step: Step, document: str) -> str | None:
        """Where the kept twin came from."""
        if "url" not in self.views.visible(step):
            return None
        query = self.views.relation(step.frame, {n: step.columns[n] for n in ("id", "url")})
        return next((r["url"] for r in self._rows(f"select * from ({query}) where id = {literal(document)}")), None)

    def _export(self, step: Step, life: Life) -> list[Moment]:
        """Where the rows of the document lie in the files of an export, by the table beside each shard."""
        target = self.views.files.store.object(step.object)
        manifest = target.manifest(step.units)
        tables = [(p, s) for p in manifest.parts for s in p.files if s.endswith(DOCS)] if manifest else []
        found = []
        for part, docs in tables:
            table = read_parquet(target.part(part.unit, docs))
            table = table.filter(pc.is_in(table["id"], pa.array(sorted(life.ids))))
            own = [s for s in part.files if s.startswith(docs.removesuffix(DOCS) + ".") and not s.endswith(DOCS)]
            file = str(target.part(part.unit, own[0])) if own else part.unit
            rows = table.to_pylist()
            found += [Moment(step.name, step.uses, row["id"], "written", None, {"file": file, **_said(row, *row)}) for row in rows]
        return found

    def _rows(self, query: str) -> list[dict[str, Any]]:
        return self._rows_of(self.catalog.con.execute(query))

    @staticmethod
    def _rows_of(result: Any) -> list[dict[str, Any]]:
        names = [d[0] for d in result.description or ()]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def _said(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {n: row[n] for n in names if row.get(n) is not None and n not in (UNIT, AT, "id")}


def as_text(found: Sequence[Life], width: int) -> str:
    """Lives for a reader."""
    return "\n\n".join("\n".join(_lines(life, width)) for life in found)


def _lines(life: Life, width: int) -> Iterator[str]:
    yield f"{life.id}  {life.url or ''}".rstrip()
    if life.origin:
        yield f"  bytes: {life.origin['unit']} from {life.origin['offset']:,}, {life.origin['length']:,} long"
    yield f"  recipe {life.recipe}:"
    wide = max((len(m.step) for m in life.moments), default=0)
    for moments in _by_step(life.moments):
        for moment in moments[:MOST]:
            own = "" if moment.id == life.id else f" {moment.id.removeprefix(life.id)}"
            facts = "  ".join(f"{n}={' '.join(str(cell(v)).split())}" for n, v in moment.values.items())
            why = f" {moment.reason}" if moment.reason else ""
            line = f"    {moment.step.ljust(wide)}  {moment.verdict}{own}{why}  {facts}".rstrip()
            yield line if len(line) <= width or "file=" in line or "again=" in line else line[: width - 1] + "…"
        if len(moments) > MOST:
            yield f"    {moments[0].step.ljust(wide)}  and {len(moments) - MOST:,} more rows"
    yield f"  {_end(life)}"


def _by_step(moments: Sequence[Moment]) -> Iterator[list[Moment]]:
    steps = dict.fromkeys(m.step for m in moments)
    for step in steps:
        yield [m for m in moments if m.step == step]


def _end(life: Life) -> str:
    """The last word on a document."""
    written = [m for m in life.moments if m.verdict == "written"]
    if written:
        steps = ", ".join(dict.fromkeys(m.step for m in written))
        return f"in {len(written)} place{'s' if len(written) != 1 else ''} of the files of {steps}"
    fell = [m for m in life.moments if m.verdict in ("dropped", "quarantined")]
    if fell:
        return f"{fell[-1].verdict} by {fell[-1].step}: {fell[-1].reason}"
    return f"stands at {life.moments[-1].step}" if life.moments else "read and not seen again"


def as_json(found: Sequence[Life]) -> str:
    """Lives for scripts."""
    records = [
        {"recipe": life.recipe, "id": life.id, "url": life.url, "origin": life.origin, "end": _end(life),
         "steps": [{"step": m.step, "stage": m.stage, "id": m.id, "verdict": m.verdict, "reason": m.reason, "values": m.values}
                   for m in life.moments]}
        for life in found
    ]  # fmt: skip
    return orjson.dumps(records, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode()
