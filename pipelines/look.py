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
from pipelines.reread import Rereader

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
        return Documents(Catalog(store, recipes=[recipe_name]), step, dropped=dropped).show(n, offset, seed, width, before=before)


class Documents:
    """The documents of one step: those that stand, or those that it dropped."""

    def __init__(self, catalog: Catalog, name: str, *, dropped: bool = False) -> None:
        catalog.refresh()
        (self.views,) = catalog.views.values()
        self.catalog, self.dropped = catalog, dropped
        self.step = self._complete(name)
        record = catalog.store.records("recipes")[self.views.name]
        self.again = Rereader(record, self.views)

    def _complete(self, name: str) -> Step:
        step = self.views.steps.get(name)
        if step is None or not self.views.complete(step):
            fault = "has no complete answer yet; run the recipe to its end" if step else "is not a step of this recipe"
            there = ", ".join(s.name for s in self.views.steps.values() if self.views.complete(s))
            raise CatalogError(f"{self.views.name}.{name} {fault}; steps to look at: {there or 'none'}")
        return step

    def show(self, n: int, offset: int, seed: int | None, width: int, *, before: bool) -> str:
        """Some documents as text."""
        what = f"{self.views.name}.{self.step.name}"
        if self.step.shape == "export":
            return f"{what} writes files: `gristmill sql 'from {what}'` lists them"
        total = self.total()
        if not total:
            return f"{what}: no row is {self.kind}"
        chosen = range(offset, min(offset + n, total)) if seed is None else sorted(Random(seed).sample(range(total), min(n, total)))
        rows = self.rows(self.places(chosen)) if chosen else []
        older = self.before(rows) if before and rows else {}
        pages = [
            "\n".join(page(self, row, f"{at + 1:,} of {total:,} {self.kind}", width, older))
            for at, row in zip(chosen, rows, strict=True)
        ]
        return "\n\n".join([what, *pages])

    @property
    def kind(self) -> str:
        """What these documents are."""
        return "dropped here" if self.dropped else "standing"

    def total(self) -> int:
        """How many there are, from the accounts."""
        return sum(self._counts())

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
                fell = part.rows - tally.get("made", 0) if step.shape == "rows" else fell
                counts.append(fell if step.shape in ("layer", "verdict", "rows") else 0)
        return counts

    def places(self, chosen: Sequence[int]) -> list[tuple[str, int]]:
        """Unit and position of these ordinals, in order; only their parts are opened."""
        counts = self._counts()
        ends = list(accumulate(counts))
        parts = [bisect_right(ends, at) for at in chosen]
        every = self._every()
        opened = sorted(set(parts))
        query = self._select((), [every[i] for i in opened])
        found: dict[int, list[int]] = {}
        for unit, at in self._fetch(f"select {quoted(UNIT)}, {quoted(AT)} from ({query}) order by all"):
            found.setdefault(opened[unit], []).append(at)
        return [(every[part], found[part][at - ends[part] + counts[part]]) for at, part in zip(chosen, parts, strict=True)]

    def where(self, condition: str, most: int) -> list[tuple[str, int]]:
        """Places of the first documents that meet an SQL condition. CatalogError when it cannot be understood."""
        every = self._every()
        columns = f"select {quoted(UNIT)}, {quoted(AT)} from ({self._select(None, every)}) where ({condition})"
        with plainly():
            return [(every[unit], at) for unit, at in self._fetch(f"{columns} order by all limit {most}")]

    def rows(self, places: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
        """The rows at these places, in the order of the step."""
        wanted = {key for key, _ in places}
        self.keys = [key for key in self._every() if key in wanted]
        index = {key: i for i, key in enumerate(self.keys)}
        where = " or ".join(f"({quoted(UNIT)} = {index[key]} and {quoted(AT)} = {at})" for key, at in places)
        columns = f"select * from ({self._select(None, self.keys)}) where {where} order by {quoted(UNIT)}, {quoted(AT)}"
        return self._dicts(columns)

    def _every(self) -> list[str]:
        return self.catalog.files.keys(self.step.object, self.step.units)

    def text(self, row: dict[str, Any]) -> str | None:
        """A row's text; read again from its source where it is not stored."""
        if row.get("text") is not None or "text" not in self.step.columns:
            return row.get("text")
        passages = self.again.passages(row, self.step)
        return next((p.before if self.dropped else p.after for p in passages if p.step == self.step.name), None)

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

    def before(self, rows: list[dict[str, Any]]) -> dict[str, str | None]:
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


def facts(documents: Documents, row: dict[str, Any], width: int) -> list[str]:
    """The small columns of a row, wrapped."""
    apart = {UNIT, AT, "text", "drop_reason", "url", "id", "origin"}
    kinds = documents.step.types
    small = [n for n in row if n not in apart and not kinds[n].startswith(("large_", "struct", "list", "binary"))]
    told = [f"{n}={fit(' '.join(str(cell(row[n])).split()), 48).strip()}" for n in small if row[n] not in (None, "")]
    return shorten("  ".join(told), width, 4)


def page(documents: Documents, row: dict[str, Any], place: str, width: int, older: dict[str, str | None]) -> list[str]:
    """One document: where it stands, its facts, and its text, beside the text before where there is one."""
    lines = [f"── {place} ── {row.get('url') or ''}".rstrip(), f"id {row.get('id')}"]
    lines += [f"dropped: {row['drop_reason']}"] if documents.dropped else []
    lines += facts(documents, row, width)
    text, origin, own = documents.text(row), row.get("origin"), str(row.get("id"))
    parent = own if own in older else _parent(own)
    if parent in older:
        lines += ["", *beside(older[parent], text, width)]
    elif text is not None:
        lines += ["", *shorten(text, width, LINES)]
    elif "text" in documents.step.columns:
        lines.append("(text is not stored here" + (f"; its bytes: {origin['unit']}:{origin['offset']})" if origin else ")"))
    return lines


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


def beside(before: str | None, after: str | None, width: int, most: int = 2 * LINES) -> list[str]:
    """Two texts side by side, from shortly before the first line that differs; `|` marks lines that do."""
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
    body = [f"{fit(x, half)} {mark} {y}".rstrip() for x, mark, y in pairs[first : first + most]]
    return [f"{fit('before', half)}   after", *body]
