"""Samples for a report: rows that a step removed, with its reason, and texts before and after the steps that change them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from manifests.catalog import Catalog, plainly
from manifests.step_views import RecipeViews, Step, literal
from pipelines.reread import Rereader

REMOVED, CHANGED = 3, 2
"""Rows shown of each step."""
STEPS = 40
"""Steps shown at most."""
CHARACTERS = 3000
"""Of each text."""


def samples(catalog: Catalog, views: RecipeViews, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each step: removed rows (reason, values, text) and changed ones (before, after), the same ones every time."""
    shelf = _Shelf(catalog, views, Rereader(record, views))
    found: list[dict[str, Any]] = []
    with plainly():
        for step in [s for s in views.steps.values() if views.complete(s) and s.shape != "export"][: 4 * STEPS]:
            rows = [*shelf.removed(step), *shelf.changed(step)]
            if rows:
                found.append({"step": step.name, "stage": step.uses, "rows": rows})
            if len(found) == STEPS:
                break
    return found


class _Shelf:
    def __init__(self, catalog: Catalog, views: RecipeViews, again: Rereader) -> None:
        self.catalog, self.views, self.again = catalog, views, again

    def _rows(self, query: str) -> list[dict[str, Any]]:
        result = self.catalog.con.execute(query)
        names = [d[0] for d in result.description or ()]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]

    def removed(self, step: Step) -> Iterator[dict[str, Any]]:
        """Rows that the step dropped, of as many reasons as there is room for."""
        if not self.views.fells(step):
            return
        own = [n for n in self.views.written(step) if self.views.held(step, n) and n != "drop_reason"]
        names = [n for n in dict.fromkeys(["id", "url", "origin", "text", *own]) if n in step.columns and self.views.held(step, n)]
        picked = "row_number() over (partition by drop_reason order by hash(id)) as nth"
        inner = self.views.dropped(step, names)
        for row in self._rows(f"select * from (select *, {picked} from ({inner})) order by nth, hash(id) limit {REMOVED}"):
            text = row.get("text")
            if text is None:
                text = next((p.before or p.after for p in self.again.passages(row, step) if p.step == step.name), None)
            values = {n: row[n] for n in own if row.get(n) is not None and n != "text"}
            yield {"kind": "removed", "id": row["id"], "url": row.get("url"), "reason": row["drop_reason"],
                   "values": orjson.loads(orjson.dumps(values, default=str)), "before": _cut(text)}  # fmt: skip

    def changed(self, step: Step) -> Iterator[dict[str, Any]]:
        """Rows whose text the step wrote, with the text they had before."""
        if step.columns.get("text") != step.name or step.shape == "base":
            return
        shown = [n for n in ("id", "url", "origin", "text") if n in self.views.visible(step)]
        if "id" not in shown:
            return
        inner = self.views.standing(step, set(shown))
        for row in self._rows(f"select {', '.join(shown)} from ({inner}) order by hash(id) limit {CHANGED}"):
            if step.shape == "layer":
                passage = next((p for p in self.again.passages(row, step) if p.step == step.name), None)
                before, after = (passage.before, passage.after) if passage else (None, row.get("text"))
            else:
                before, after = self._parent_text(step, str(row["id"])), row.get("text")
            if after is not None and (before or "") != after:
                yield {"kind": "changed", "id": row["id"], "url": row.get("url"), "before": _cut(before), "after": _cut(after)}

    def _parent_text(self, step: Step, document: str) -> str | None:
        ids = f"{literal(document)}, {literal(document.rsplit('#', 1)[0])}"
        for name in step.parents:
            parent = self.views.steps[name]
            if {"id", "text"} <= set(self.views.visible(parent)):
                found = self._rows(f"select text from ({self.views.standing(parent, {'id', 'text'})}) where id in ({ids})")
                if found:
                    return str(found[0]["text"]) if found[0]["text"] is not None else None
        return None


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= CHARACTERS else f"{text[:CHARACTERS]}… ({len(text):,} characters)"
