"""What `gristmill peek` prints: documents of a step."""

from __future__ import annotations

import difflib
import shutil
import textwrap
from bisect import bisect_right
from collections.abc import Collection, Sequence
from itertools import accumulate, zip_longest
from random import Random
from typing import Any

from manifests.catalog import Catalog, CatalogError, plainly
from manifests.step_views import AT, UNIT, Step, literal, quoted
from manifests.store import Store
from pipelines.answers import cell, fit

LINES = 12
"""Lines of text that are shown of a document."""


def peek(
    store: Store, recipe_name: str, step: str, n: int = 5, *, dropped: bool = False, before: bool = False,
    seed: int | None = None, offset: int = 0, width: int | None = None,
) -> str:  # fmt: skip
    """Documents of a step: the first `n` from `offset` on, or a sample by `seed`; `dropped` shows what the step itself dropped.

    Only the parts that hold these documents are read. `before` sets the text of the parent step beside.
    """
    width = width or min(shutil.get_terminal_size((100, 24)).columns, 160)
    with plainly():
        return _Peek(Catalog(store, recipes=[recipe_name]), step, dropped, width).show(n, offset, seed, before=before)


class _Peek:
    """Some documents of one step."""

    def __init__(self, catalog: Catalog, name: str, dropped: bool, width: int) -> None:
        catalog.refresh()
        (self.views,) = catalog.views.values()
        self.catalog, self.dropped, self.width = catalog, dropped, width
        self.step = self._complete(name)

    def _complete(self, name: str) -> Step:
        step = self.views.steps.get(name)
        if step is None or not self.views.complete(step):
            fault = "has no complete answer yet; run the recipe to its end" if step else "is not a step of this recipe"
            there = ", ".join(s.name for s in self.views.steps.values() if self.views.complete(s))
            raise CatalogError(f"{self.views.name}.{name} {fault}; steps to look at: {there or 'none'}")
        return step

    def show(self, n: int, offset: int, seed: int | None, *, before: bool) -> str:
        """The whole page."""
        what = f"{self.views.name}.{self.step.name}"
        if self.step.shape == "export":
            return f"{what} writes files: `gristmill sql 'from {what}'` lists them"
        counts = self._counts()
        total = sum(counts)
        kind = "dropped here" if self.dropped else "standing"
        if not total:
            return f"{what}: no row is {kind}"
        chosen = range(offset, min(offset + n, total)) if seed is None else sorted(Random(seed).sample(range(total), min(n, total)))
        rows = self._rows(chosen, counts) if chosen else []
        older = self._before(rows) if before and rows else {}
        pages = [self._page(row, f"{at + 1:,} of {total:,} {kind}", older) for at, row in zip(chosen, rows, strict=True)]
        return "\n\n".join([what, *pages])

    def _counts(self) -> list[int]:
        """Rows that qualify in each part, from the accounts."""
        step, counts = self.step, []
        manifest = self.catalog.store.object(step.object).manifest(step.units)
        for part in manifest.parts if manifest else ():
            tally: dict[str, Any] = part.counts["members"][step.member]
            if not self.dropped:
                counts.append(tally.get("made" if step.shape in ("rows", "dataset") else "standing", 0))
            else:
                fell = sum(tally.get("dropped", {}).values()) + tally.get("quarantined", 0)
                counts.append(fell if step.shape in ("layer", "verdict") else 0)
        return counts

    def _rows(self, chosen: Sequence[int], counts: list[int]) -> list[dict[str, Any]]:
        """The rows of these ordinals, in order; only their parts are opened."""
        ends = list(accumulate(counts))
        places = [bisect_right(ends, at) for at in chosen]
        parts = sorted(set(places))
        every = self.catalog.files.keys(self.step.object, self.step.units)
        self.keys = [every[i] for i in parts]
        query = self._select((), self.keys)
        found: dict[int, list[int]] = {}
        for unit, at in self._fetch(f"select {quoted(UNIT)}, {quoted(AT)} from ({query}) order by all"):
            found.setdefault(unit, []).append(at)
        wanted = [(u, found[u][at - ends[p] + counts[p]]) for at, p in zip(chosen, places, strict=True) for u in [parts.index(p)]]
        where = " or ".join(f"({quoted(UNIT)} = {unit} and {quoted(AT)} = {at})" for unit, at in wanted)
        columns = f"select * from ({self._select(None, self.keys)}) where {where} order by {quoted(UNIT)}, {quoted(AT)}"
        return self._dicts(columns)

    def _select(self, columns: Collection[str] | None, keys: Sequence[str]) -> str:
        if self.dropped:
            return self.views.dropped(self.step, self.step.columns if columns is None else columns, address=True, keys=keys)
        return self.views.standing(self.step, columns, address=True, keys=keys)

    def _fetch(self, query: str) -> list[Any]:
        return self.catalog.con.execute(query).fetchall()

    def _dicts(self, query: str) -> list[dict[str, Any]]:
        result = self.catalog.con.execute(query)
        names = [d[0] for d in result.description or ()]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]

    def _before(self, rows: list[dict[str, Any]]) -> dict[str, str | None]:
        """Text of the parent rows, by their id."""
        ids = ", ".join(literal(i) for row in rows for i in (str(row["id"]), _parent(str(row["id"]))))
        found: dict[str, str | None] = {}
        for index, name in enumerate(self.step.parents):
            parent = self.views.steps[name]
            keys = self._keys_above(parent, index)
            if "text" in parent.columns and keys != []:
                query = self.views.standing(parent, {"id", "text"}, keys=keys)
                found |= {row["id"]: row["text"] for row in self._dicts(f"select id, text from ({query}) where id in ({ids})")}
        return found

    def _keys_above(self, parent: Step, index: int) -> list[str] | None:
        """Units of a parent that can hold the rows: the same ones, those behind a union's prefix, or (None) any."""
        if parent.frame == self.step.frame or (self.step.shape == "rows" and not self.views.is_union(self.step.frame)):
            return self.keys
        if self.step.shape == "rows":
            return [k.removeprefix(f"{index}-") for k in self.keys if k.startswith(f"{index}-")]
        return None

    def _page(self, row: dict[str, Any], place: str, older: dict[str, str | None]) -> str:
        apart = {UNIT, AT, "text", "drop_reason", "url", "id", "origin"}
        small = [n for n in row if n not in apart and not self.step.types[n].startswith(("large_", "struct", "list", "binary"))]
        facts = [f"{n}={fit(' '.join(str(cell(row[n])).split()), 48).strip()}" for n in small if row[n] not in (None, "")]
        lines = [f"── {place} ── {row.get('url') or ''}".rstrip(), f"id {row.get('id')}"]
        lines += [f"dropped: {row['drop_reason']}"] if self.dropped else []
        lines += shorten("  ".join(facts), self.width, 4)
        text, origin, own = row.get("text"), row.get("origin"), str(row.get("id"))
        parent = own if own in older else _parent(own)
        if parent in older:
            lines += ["", *_beside(older[parent], text, self.width)]
        elif text is not None:
            lines += ["", *shorten(text, self.width, LINES)]
        elif "text" in self.step.columns:
            lines.append("(text is not stored here" + (f"; its bytes: {origin['unit']}:{origin['offset']})" if origin else ")"))
        return "\n".join(lines)


def _parent(document: str) -> str:
    """Id of the row that a child was cut from."""
    return document.rsplit("#", 1)[0]


def shorten(text: str, width: int, lines: int) -> list[str]:
    """The first lines of a text, wrapped to the width; the last one says how long it is."""
    shown: list[str] = []
    for paragraph in text.splitlines():
        shown += textwrap.wrap(paragraph, width) or ([""] if shown and shown[-1] else [])
        if len(shown) > lines:
            return [*shown[:lines], f"… ({len(text):,} characters)"]
    return shown


def _beside(before: str | None, after: str | None, width: int) -> list[str]:
    """Two texts side by side, from the first line that differs; `|` marks lines that do."""
    if before is None or after is None:
        which = " and ".join(name for name, text in (("before", before), ("after", after)) if text is None)
        return [f"(the text {which} is not stored)", *shorten(before or after or "", width, LINES)]
    if before == after:
        return ["(the text is the same before and after)", *shorten(after, width, LINES)]
    half = (width - 3) // 2
    left, right = ([line for p in text.splitlines() for line in textwrap.wrap(p, half) or [""]][:400] for text in (before, after))
    pairs: list[tuple[str, str, str]] = []
    for tag, a, b, c, d in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        mark = " " if tag == "equal" else "|"
        pairs += [(x, mark, y) for x, y in zip_longest(left[a:b], right[c:d], fillvalue="")]
    first = max(next((i for i, pair in enumerate(pairs) if pair[1] == "|"), 0) - 2, 0)
    body = [f"{fit(x, half)} {mark} {y}".rstrip() for x, mark, y in pairs[first : first + 2 * LINES]]
    return [f"{fit('before', half)}   after", *body]
