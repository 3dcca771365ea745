"""What `gristmill sql` and `gristmill peek` print."""

from __future__ import annotations

import contextlib
import csv
import datetime as dt
import difflib
import io
import os
import shutil
import sys
import textwrap
import time
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from decimal import Decimal
from itertools import accumulate, zip_longest
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import orjson

from manifests.catalog import Catalog, CatalogError, plainly
from manifests.step_views import AT, UNIT, Step, literal, quoted
from manifests.store import Store
from manifests.store_views import NAMES

if TYPE_CHECKING:
    import duckdb

MAX_ROWS = 200
"""Rows of a printed table; files and JSON hold all."""
LINES = 12
"""Lines of text that are shown of a document."""
CELLS = (60, 40, 24)
"""Widths of a cell that are tried until a row fits the terminal."""
NUMBERS = ("INT", "FLOAT", "DOUBLE", "DECIMAL")
HELP = """End a query with ;  .tables   views   .schema NAME   columns of a view   .quit   leave (or Ctrl-D)
Views: recipe.step, recipe.step_all, published."name", steps, shards, drops, dropped, quarantine, lineage, refs, runs
Macros: from funnel('recipe'), from domains('recipe.step'), from why('id or url')"""


def sql(
    store: Store, query: str, as_json: bool = False, as_csv: bool = False, parquet: Path | None = None
) -> str | None:  # fmt: skip
    """The result of a query as a table, a JSON array of objects (ISO dates, null) or CSV; or written to a Parquet file.

    CatalogError when the query cannot be answered or the file cannot be written.
    """
    catalog = Catalog(store)
    with plainly():
        if parquet is not None:
            rows = _to_parquet(catalog.relation(query), parquet)
            return orjson.dumps({"file": str(parquet), "rows": rows}).decode() if as_json else f"{parquet}: {rows} rows"
        result = catalog.run(query)
        return _json(result) if as_json else _csv(result) if as_csv else _table(result)


def _columns(result: duckdb.DuckDBPyConnection) -> tuple[list[str], list[str]]:
    described = result.description or []
    return [str(d[0]) for d in described], [str(d[1]) for d in described]


def _to_parquet(relation: duckdb.DuckDBPyRelation | None, path: Path) -> int:
    """Stream into a draft and rename it: the file is whole or absent."""
    import pyarrow.parquet as pq

    if relation is None:
        raise CatalogError("the last statement has no result to write")
    reader: Any = relation.to_arrow_reader(65_536)
    draft, rows = path.with_name(f".{path.name}.{os.getpid()}"), 0
    try:
        with pq.ParquetWriter(draft, reader.schema, compression="zstd") as writer:
            for batch in reader:
                writer.write_batch(batch)
                rows += batch.num_rows
        draft.replace(path)
    except OSError as error:
        raise CatalogError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        draft.unlink(missing_ok=True)
    return rows


def _json(result: duckdb.DuckDBPyConnection) -> str:
    names, types = _columns(result)
    rows = [dict(zip(names, map(_plain, row, types), strict=True)) for row in result.fetchall()]
    return orjson.dumps(rows, default=_said, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode()


def _plain(value: Any, kind: str) -> Any:
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value)
    return orjson.loads(value) if kind == "JSON" and value is not None else value


def _said(value: Any) -> Any:
    """What JSON has no word for: exact decimals and everything else as text, bytes as hex digits."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value.hex() if isinstance(value, bytes | bytearray | memoryview) else str(value)


def _csv(result: duckdb.DuckDBPyConnection) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_columns(result)[0])
    while rows := result.fetchmany(1000):
        writer.writerows([_cell(value, None) for value in row] for row in rows)
    return out.getvalue().rstrip("\n")


def _cell(value: Any, missing: str | None = "null") -> str | None:
    if value is None:
        return missing
    if isinstance(value, dict | list | tuple):
        return orjson.dumps(value, default=_said, option=orjson.OPT_NON_STR_KEYS).decode()
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}" if missing else repr(value)
    return str(_said(value)) if isinstance(value, Decimal | bytes) else str(value)


def _table(result: duckdb.DuckDBPyConnection) -> str:
    names, types = _columns(result)
    rows = result.fetchmany(MAX_ROWS + 1)
    if not names:
        return "done"
    cells = [[" ".join(str(_cell(v)).split()) for v in row] for row in rows[:MAX_ROWS]]
    more = f"\nthe first {MAX_ROWS} rows; all of them with --json, --csv or --parquet" if len(rows) > MAX_ROWS else ""
    return _layout(names, [t.startswith(NUMBERS) or t in ("BIGINT", "HUGEINT") for t in types], cells) + more


def _layout(names: list[str], right: list[bool], rows: list[list[str]]) -> str:
    """Aligned columns where they fit the terminal, else one line per value."""
    from rich.cells import cell_len

    room = shutil.get_terminal_size((132, 24)).columns
    for limit in CELLS:
        widths = [min(limit, max(map(cell_len, column))) for column in zip(names, *rows, strict=True)]
        if sum(widths) + 2 * len(widths) <= room:
            lines = [names, ["-" * w for w in widths], *rows]
            cells = ([_fit(c, w, right=r) for c, w, r in zip(line, widths, right, strict=True)] for line in lines)
            return "\n".join("  ".join(line).rstrip() for line in cells)
    wide = max(map(cell_len, names))
    blocks = [[f"{n:>{wide}}  {_fit(v, max(room - wide - 2, 24)).rstrip()}" for n, v in zip(names, r, strict=True)] for r in rows]
    return "\n\n".join("\n".join(block) for block in blocks) or "  ".join(names)


def _fit(text: str, width: int, *, right: bool = False) -> str:
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) > width:
        return set_cell_size(text, width - 1).rstrip() + "…"
    return " " * (width - cell_len(text)) + text if right else set_cell_size(text, width)


def shell(
    store: Store, ask: Callable[[str], str] = input, say: Callable[[str], object] | None = None
) -> None:  # fmt: skip
    """Ask and answer until `.quit`: queries end with `;`, commands begin with a dot, Ctrl-C forgets what was typed."""
    say = say or (lambda text: sys.stdout.write(text + "\n"))
    catalog, typed = Catalog(store), ""
    catalog.refresh()
    say(f"{store.root}: recipes {', '.join(catalog.views) or 'none'}; .help for help")
    with _history():
        while True:
            try:
                line = ask("   ...> " if typed else "grist> ")
            except EOFError:
                return
            except KeyboardInterrupt:
                typed = ""
                say("")
                continue
            typed = f"{typed}\n{line}".strip()
            if typed in (".quit", ".exit"):
                return
            if typed.startswith(".") or typed.endswith(";"):
                _answer(catalog, say, typed)
                typed = ""


def _answer(catalog: Catalog, say: Callable[[str], object], line: str) -> None:
    started = time.monotonic()
    try:
        with plainly():
            say(_command(catalog, line) if line.startswith(".") else _table(catalog.run(line)))
        if not line.startswith("."):
            say(f"{time.monotonic() - started:.2f} s")
    except CatalogError as error:
        say(str(error))
    except KeyboardInterrupt:
        catalog.con.interrupt()
        say("stopped")


def _command(catalog: Catalog, line: str) -> str:
    name, *rest = line.split()
    if name == ".help":
        return HELP
    if name == ".tables":
        catalog.refresh()
        lines = [f"{n}: {', '.join(s.name for s in v.steps.values() if v.complete(s))}" for n, v in catalog.views.items()]
        return "\n".join([*lines, f"store: {', '.join(NAMES)}"])
    if name == ".schema" and rest:
        return _table(catalog.run(f"select column_name, column_type from (describe {rest[0].rstrip(';')})"))
    return f"no command {name}\n{HELP}"


@contextlib.contextmanager
def _history() -> Iterator[None]:
    """Line editing with a history of former shells, where the terminal has it."""
    try:
        import readline
    except ImportError:
        yield
        return
    state = os.environ.get("XDG_STATE_HOME")
    path = (Path(state) if state else Path.home() / ".local" / "state") / "gristmill" / "sql_history"
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    try:
        yield
    finally:
        readline.set_history_length(1000)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(path)


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
        facts = [f"{n}={_fit(' '.join(str(_cell(row[n])).split()), 48).strip()}" for n in small if row[n] not in (None, "")]
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
    body = [f"{_fit(x, half)} {mark} {y}".rstrip() for x, mark, y in pairs[first : first + 2 * LINES]]
    return [f"{_fit('before', half)}   after", *body]
