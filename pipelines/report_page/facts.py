"""What a report says, gathered from manifests and views: plain records, no HTML. A section without data is absent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from manifests.catalog import Catalog, plainly
from manifests.step_views import RecipeViews, Step, literal, quoted
from manifests.store import Store
from pipelines.compare import record_of, views_of

SAMPLE = 200_000
"""Rows at most that one histogram looks at; a reservoir sample with a fixed seed beyond."""
BINS = 40
COLUMNS = 24
"""Histograms of score columns at most, in recipe order."""
DOMAINS = 1000
NUMBER = ("int", "uint", "float", "double", "halffloat")
NOT_SCORES = frozenset(("bucket", "cluster_size", "row", "status", "copy", "parent", "k", "step", "drop_step"))
DOMAIN = r"regexp_extract(url, '^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?([^/?#:]+)', 1)"


@dataclass
class Facts:
    """Everything but the samples."""

    name: str
    run: dict[str, Any]
    steps: list[dict[str, Any]]
    drops: list[dict[str, Any]]
    languages: list[dict[str, Any]] = field(default_factory=list)
    lengths: list[dict[str, Any]] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)
    buckets: list[dict[str, Any]] = field(default_factory=list)
    domains: list[dict[str, Any]] = field(default_factory=list)
    clusters: list[dict[str, Any]] = field(default_factory=list)
    mixtures: list[dict[str, Any]] = field(default_factory=list)
    prompts: list[dict[str, Any]] = field(default_factory=list)
    quarantine: list[dict[str, Any]] = field(default_factory=list)


def gather(store: Store, name: str) -> tuple[Facts, Catalog, RecipeViews]:
    """Facts of a run, of a recipe's last run, or of the run behind a published name. CatalogError when there is none."""
    catalog = Catalog(store)
    catalog.refresh()
    record, _, _ = record_of(store, name)
    views = views_of(catalog, record)
    catalog.views[views.name] = views
    look = _Look(catalog, views)
    with plainly():
        facts = Facts(views.name, _run(store, name, views.name), list(look.steps()), list(look.drops()))
        facts.languages, facts.lengths, facts.scores = look.languages(), look.lengths(), list(look.scores())
        facts.domains, facts.clusters = look.domains(), list(look.clusters())
        facts.buckets = look.about("buckets", "step, bucket, label, rows", "step, bucket, label")
        facts.mixtures = look.about("mixtures", "* exclude (recipe)", "step, phase, tokens desc")
        facts.prompts = _priced(look.about("prompts", "* exclude (recipe)", "step, model, prompt"), record.get("prices", {}))
        facts.quarantine = look.about("quarantine", 'step, unit, "offset", reason, detail, url', "step, unit, 3", most=1000)
    return facts, catalog, views


def _priced(prompts: list[dict[str, Any]], prices: Mapping[str, list[float]]) -> list[dict[str, Any]]:
    """With the cost of the tokens; null where the recipe says no price. An answer that two rows share counts twice."""
    for row in prompts:
        price = prices.get(row["model"]) or prices.get(row["model"].partition("@")[0])
        tokens = [row["prompt_tokens"] or 0, row["completion_tokens"] or 0]
        row["cost"] = round(sum(p * t for p, t in zip(price, tokens, strict=True)) / 1e6, 6) if price else None
    return prompts


def _run(store: Store, name: str, recipe: str) -> dict[str, Any]:
    """The run of this id, or the last one of the recipe."""
    runs = store.runs()
    ids = [name] if name in runs else [r for r in reversed(runs) if f"-{recipe}-" in r]
    for run in ids:
        result = store.result(run)
        if result is not None and result.get("recipe") == recipe:
            return {"id": run, **result}
    return {"id": ids[0] if ids else None}


@dataclass
class _Look:
    """Questions about one recipe."""

    catalog: Catalog
    views: RecipeViews

    def rows(self, query: str) -> list[dict[str, Any]]:
        """All rows of a query as mappings."""
        result = self.catalog.con.execute(query)
        names = [d[0] for d in result.description or ()]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]

    def about(self, view: str, columns: str, order: str, most: int = 100_000) -> list[dict[str, Any]]:
        """This recipe's rows of a view of the store."""
        query = f"select {columns} from main.{view} where recipe = {literal(self.views.name)} order by {order} limit {most}"
        self.catalog.prepare(query)
        return self.rows(query)

    def complete(self) -> list[Step]:
        """Steps with an answer, in order."""
        return [s for s in self.views.steps.values() if self.views.complete(s)]

    def steps(self) -> Iterator[dict[str, Any]]:
        """Accounts, size and time of every step; size and time stand at the last step of an object."""
        last = {s.object: s.name for s in self.views.steps.values()}
        for position, step in enumerate(self.views.steps.values(), 1):
            head, totals = self.views.files.head(step.object, step.units) or {}, self.views.totals(step)
            tail = last[step.object] == step.name
            yield {
                "position": position, "step": step.name, "stage": step.uses, "shape": step.shape,
                "parents": list(step.parents), "given": list(step.given), "complete": bool(head),
                "in": totals.get("records", totals.get("in")), "out": totals.get("made", totals.get("standing")),
                "dropped": sum(totals.get("dropped", {}).values()), "skipped": sum(totals.get("skipped", {}).values()),
                "quarantined": totals.get("quarantined", 0), "tokens": head.get("tokens") if tail else None,
                "bytes": head.get("bytes") if tail else None, "seconds": head.get("seconds") if tail else None,
                "parts": head.get("parts"), "with": [s.name for s in self.views.steps.values() if s.object == step.object],
            }  # fmt: skip

    def drops(self) -> Iterator[dict[str, Any]]:
        """Every reason of every step, and what sources skipped."""
        for step in self.complete():
            totals = self.views.totals(step)
            came = totals.get("records", totals.get("in", 0))
            for kind in ("skipped", "dropped"):
                for reason, count in sorted(totals.get(kind, {}).items(), key=lambda pair: (-pair[1], pair[0])):
                    share = round(100 * count / came, 3) if came else None
                    yield {"step": step.name, "reason": reason, "kind": kind, "rows": count, "percent": share}

    def languages(self) -> list[dict[str, Any]]:
        """Rows by language where it was decided, kept and dropped there."""
        step = next((s for s in self.complete() if s.columns.get("language") == s.name and s.shape == "layer"), None)
        if step is None or "language" not in self.views.visible(step):
            return []
        query = f"""select coalesce(language, '(none)') as language,
            count(*) filter (where dropped_by is null and drop_reason is null) as kept,
            count(*) filter (where dropped_by = {literal(step.name)}) as dropped
            from ({self.views.everything(step, {"language", "drop_reason", "dropped_by"})})
            where drop_reason is null or dropped_by = {literal(step.name)} group by 1 order by kept + dropped desc, 1"""
        return self.rows(query)

    def lengths(self) -> list[dict[str, Any]]:
        """Characters of the text at the last step that shows it, in tenths of powers of ten."""
        step = next((s for s in reversed(self.complete()) if s.shape != "export" and "text" in self.views.visible(s)), None)
        if step is None:
            return []
        inner = f"select length(text) as size from ({self.views.standing(step, {'text'})}) where text <> '' {_sampled()}"
        query = f"select floor(log10(size) * 10) / 10 as low, count(*) as rows from ({inner}) group by 1 order by 1"
        return [
            {"step": step.name, "from": round(10 ** r["low"]), "to": round(10 ** (r["low"] + 0.1)), "rows": r["rows"]}
            for r in self.rows(query)
        ]

    def scores(self) -> Iterator[dict[str, Any]]:
        """Histograms of the numbers that steps wrote: rows that passed and rows that this step dropped."""
        left = COLUMNS
        for step in self.complete():
            if step.shape not in ("layer", "verdict"):
                continue
            shown = self.views.visible(step)
            names = [n for n in self.views.written(step) if n in shown and n not in NOT_SCORES and step.types[n].startswith(NUMBER)]
            for name in names[:left]:
                left -= 1
                yield from self._histogram(step, name)

    def _histogram(self, step: Step, name: str) -> Iterator[dict[str, Any]]:
        column = quoted(name)
        whole = "greatest(1, ceil((hi - lo + 1) / {0}))" if step.types[name].startswith(("int", "uint")) else "(hi - lo) / {0}"
        query = f"""with r as (select {column}::double as v, drop_reason is null as kept
                from ({self.views.everything(step, {name.lower(), "drop_reason", "dropped_by"})})
                where {column} is not null and isfinite({column}::double)
                    and (drop_reason is null or dropped_by = {literal(step.name)}) {_sampled()}),
            m as (select min(v) as lo, max(v) as hi from r), e as (select lo, {whole.format(BINS)} as width from m)
            select least(floor((v - lo) / nullif(width, 0)), {BINS - 1}) as bin, kept, any_value(lo) as lo,
                any_value(width) as width, count(*) as rows from r, e group by all order by 1, 2"""
        for row in self.rows(query):
            low = row["lo"] + (row["bin"] or 0) * row["width"]
            yield {"step": step.name, "column": name, "from": low, "to": low + row["width"], "kept": row["kept"],
                   "rows": row["rows"]}  # fmt: skip

    def domains(self) -> list[dict[str, Any]]:
        """The domains with most rows at the last step that shows URLs, and how many rows their source had."""
        having = [s for s in self.complete() if s.shape != "export" and "url" in self.views.visible(s)]
        if not having:
            return []

        first, last = (self._by_domain(step) for step in (having[0], having[-1]))
        query = f"""select l.domain, f.n as read, l.n as rows from ({last}) l left join ({first}) f using (domain)
            order by l.n desc, 1 limit {DOMAINS}"""
        return [{"step": having[-1].name, **row} for row in self.rows(query)]

    def _by_domain(self, step: Step) -> str:
        rows = self.views.standing(step, {"url"})
        return f"select {DOMAIN} as domain, count(*) as n from ({rows}) where url is not null group by 1"

    def clusters(self) -> Iterator[dict[str, Any]]:
        """Sizes of duplicate clusters: the kept row and those that name it as their twin."""
        for step in self.complete():
            if step.columns.get("twin") == step.name and "twin" in self.views.visible(step) and self.views.fells(step):
                twins = self.views.dropped(step, ["twin"])
                inner = f"select twin, count(*) + 1 as size from ({twins}) where twin is not null group by 1"
                for row in self.rows(f"select size, count(*) as clusters from ({inner}) group by 1 order by 1"):
                    yield {"step": step.name, **row}


def _sampled() -> str:
    return f"using sample reservoir({SAMPLE} rows) repeatable (7)"
