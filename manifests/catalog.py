"""SQL over a store: every step of every recipe is a view.

    <recipe>.<step>       the rows that stand at the step
    <recipe>.<step>_all   dropped ones as well, with `drop_reason` and `dropped_by` (the first step that dropped the row)
    published."<name>"    the rows behind a published name
    steps, shards, drops, dropped, quarantine, lineage, refs, runs, buckets, mixtures, prompts
    funnel('recipe'), domains('recipe.step'), why('<id or url>')

A view shows what is stored and null for the rest. Text of dropped rows is null unless the recipe keeps it, also in the
views of earlier steps of the same object. A column that a later step of the same object writes again is null, and asking
for it by name is an error that tells who has it. Values of dropped rows are those they had when they fell. Only complete
answers are read, so a run may write meanwhile.

A connection is closed to everything but the store: no other file, no network, no settings. `Catalog.run` also refuses the
statements that write files; a bare connection of `connect` could still write into the store with COPY.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from manifests import summary_views
from manifests.step_views import Files, RecipeViews, Step, literal, quoted, steps_of
from manifests.store import Store, StoreError
from manifests.store_views import MACROS, NAMES, NEEDS, StoreViews

if TYPE_CHECKING:
    import duckdb

ALLOWED = ("SELECT", "EXPLAIN", "CREATE", "DROP", "INSERT", "UPDATE", "DELETE", "ALTER", "SET", "PREPARE", "EXECUTE", "TRANSACTION",
           "MULTI", "RELATION")  # fmt: skip
"""Statements that change nothing outside the connection's own memory."""
SUMMARIES = {"buckets": summary_views.buckets, "mixtures": summary_views.mixtures, "prompts": summary_views.prompts}
WORD = re.compile(r"[a-z_][a-z0-9_]*")


class CatalogError(Exception):
    """A query that cannot be answered; the message has DuckDB's words, the place, and the names there are."""


def connect(
    store: Store, *, recipes: Iterable[str] | None = None, query: str | None = None, unlocked: bool = False
) -> duckdb.DuckDBPyConnection:  # fmt: skip
    """An in-memory DuckDB with the views of these recipes (all by default), or of what a query names.

    `unlocked` leaves files, extensions and settings open to SQL.
    """
    catalog = Catalog(store, recipes=recipes, unlocked=unlocked)
    catalog.prepare(query, narrow=False)
    return catalog.con


@contextmanager
def plainly() -> Iterator[None]:
    """DuckDB's errors as CatalogError, also those that come while a result is fetched."""
    import duckdb

    try:
        yield
    except (duckdb.Error, ValueError) as error:
        raise CatalogError(str(error)) from error


@dataclass
class Catalog:
    """A connection whose views are made when a query names them, joined from no more objects than it reads."""

    store: Store
    recipes: Iterable[str] | None = None
    unlocked: bool = False
    threads: int | None = None
    con: duckdb.DuckDBPyConnection = field(init=False)
    files: Files = field(init=False)
    views: dict[str, RecipeViews] = field(default_factory=dict, init=False)
    _pinned: set[tuple[str, str]] = field(default_factory=set, init=False)
    """Views that statements of the user's own depend on: they keep every column."""

    def __post_init__(self) -> None:
        import duckdb

        self.recipes = None if self.recipes is None else set(self.recipes)
        self.con = duckdb.connect(config={"python_enable_replacements": "false", "allow_persistent_secrets": "false"})
        if not self.store.place.local:
            from manifests.credentials import filesystem

            self.con.register_filesystem(filesystem(self.store.url))
        spill = os.path.join(tempfile.gettempdir(), f"gristmill-sql-{os.getpid()}")  # noqa: PTH118
        self._do("set enable_progress_bar = false")  # it would be written into the answer on stdout
        self._do(f"set temp_directory = {literal(spill)}")
        if self.threads is not None:
            self._do(f"set threads = {self.threads}")
        if not self.unlocked:
            self._do(f"set allowed_directories = [{literal(self.store.url)}, {literal(spill)}]")
            self._do("set enable_external_access = false")
            self._do("set lock_configuration = true")
        self.files = Files(self.con, self.store)

    def _do(self, statement: str, parameters: object = None) -> list[Any]:
        """A statement of our own, fetched to its end: an open result would keep the connection busy."""
        return self.con.execute(statement, parameters).fetchall()

    def refresh(self) -> None:
        """Read the records of recipes again: a run may have written them since."""
        records = self.store.records("recipes")
        missing = sorted(set(self.recipes or ()) - set(records))
        if missing:
            raise CatalogError(f"{self.store.url}: no recipe '{missing[0]}' has run here{_listed('recipes', records)}")
        chosen = {name: record for name, record in records.items() if self.recipes is None or name in self.recipes}
        self.views = {name: RecipeViews(self.files, name, steps_of(name, r), r["units"]) for name, r in chosen.items()}

    def prepare(self, query: str | None = None, *, narrow: bool = True) -> None:
        """Make the views that a query names (all when None); `narrow` leaves out columns that it does not."""
        self.refresh()
        words = None if query is None else set(WORD.findall(query.lower()))
        wanted = self._wanted(query) if query is not None and narrow else None
        if query is not None and narrow:
            self._refuse_hidden(query)
        self._make_store_views(words)
        for views in self.views.values():
            if words is None or views.name in words:
                self._do(f"create schema if not exists {quoted(views.name)}")
                for step in views.steps.values():
                    if views.complete(step):
                        self._make_step(views, step, words, wanted)
        if words is None or "published" in words:
            self._make_published()

    def _make_step(self, views: RecipeViews, step: Step, words: Collection[str] | None, wanted: Collection[str] | None) -> None:
        pinned = {name for recipe, name in self._pinned if recipe == step.recipe}
        if words is None or (step.name in words and step.name not in pinned):
            if step.shape == "export":
                self._view(step.recipe, step.name, views.files_of_export(step))
            else:
                self._view(step.recipe, step.name, views.standing(step, wanted))
        name = f"{step.name}_all"
        if step.shape != "export" and name not in views.steps and (words is None or (name in words and name not in pinned)):
            self._view(step.recipe, name, views.everything(step, wanted))

    def _view(self, schema: str, name: str, body: str) -> None:
        self._do(f"create or replace view {quoted(schema)}.{quoted(name)} as {body}")

    def _make_published(self) -> None:
        self._do("create schema if not exists published")
        for name, ref in self.store.records("refs").items():
            views = self._views_behind(name, ref)
            step = views.steps.get(ref["step"]) if views else None
            if views is not None and step is not None and views.complete(step):
                self._view("published", name, views.files_of_export(step) if step.shape == "export" else views.standing(step))

    def _views_behind(self, name: str, ref: Mapping[str, Any]) -> RecipeViews | None:
        """The recipe as it ran when a name was published; None when no run remembers that."""
        views = self.views.get(ref["recipe"])
        step = views.steps.get(ref["step"]) if views else None
        if step is not None and (step.object, step.units) == (ref["object"], ref["units"]):
            return views
        if self.recipes is not None and ref["recipe"] not in self.recipes:
            return None
        try:
            record = self.store.record_behind(name, ref)
        except StoreError:
            return None
        return RecipeViews(self.files, record["name"], steps_of(record["name"], record), record["units"])

    def _make_store_views(self, words: Collection[str] | None) -> None:
        named = set(NAMES) if words is None else {n for n in NAMES if n in words}
        macros = [m for m in MACROS if words is None or m in words]
        named |= {need for m in macros for need in NEEDS[m]}
        whole = StoreViews(self.store, self.views)
        if named & {"steps", "drops", "lineage", "refs", "runs"}:
            for name, table in whole.tables().items():
                self._table(name, table)
        if "shards" in named:
            answers = whole.answers()
            self._table("@answers", answers)
            self._do("set variable gristmill_answers = ?", [sorted(set(answers["path"].to_pylist()))])
            self._view("main", "shards", whole.shards() if answers.num_rows else "select 1 as recipe where false")
        if "quarantine" in named:
            sick = whole.sick()
            self._table("@sick", sick)
            self._do("set variable gristmill_sick = ?", [sorted(set(sick["path"].to_pylist()))])
            self._view("main", "quarantine", whole.quarantine(files=sick.num_rows > 0))
        if "dropped" in named:
            self._view("main", "dropped", whole.dropped())
        for name in named & set(SUMMARIES):
            self._view("main", name, SUMMARIES[name](self.views))
        for macro in macros:
            self._do(f"create or replace macro {macro}{MACROS[macro]}")

    def _table(self, name: str, table: pa.Table) -> None:
        self.con.register("gristmill_rows", table)
        self._do(f"create or replace table main.{quoted(name)} as from gristmill_rows")
        self.con.unregister("gristmill_rows")

    def _scan(self, query: str) -> _Scan | None:
        query = re.sub(r"^\s*explain\s+(analyze\s+)?", "", query, flags=re.IGNORECASE)
        tree = orjson.loads(self._do("select json_serialize_sql(?)", [query])[0][0])
        if tree.get("error"):
            return None
        scan = _Scan()
        scan.walk(tree["statements"])
        return scan

    def _wanted(self, query: str) -> set[str] | None:
        """Columns that a query can mean, in lower case; None when that cannot be told (a star, a whole row, no SELECT)."""
        scan = self._scan(query)
        if scan is None or (scan.star and (scan.tables or "query_table" in query.lower())):
            return None
        if any(self._is_row(ref[-1], scan) for ref in scan.references):
            return None
        named = {name for ref in scan.references for name in ref} | scan.using
        return named | ({"url"} if "domains" in query.lower() else set())

    def _is_row(self, name: str, scan: _Scan) -> bool:
        """Whether a reference means the whole row of a table: a table has this name and no column of it has."""
        return any(
            name not in (self._columns_of(schema, table) or ()) for schema, table, alias in scan.tables if name in (table, alias)
        )

    def _columns_of(self, schema: str, table: str) -> set[str] | None:
        found = self._step(schema, table)
        return {n.lower() for n in found[1].columns} if found is not None else None

    def _refuse_hidden(self, query: str) -> None:
        """Say who has a column instead of showing null for it, when a query names it and no view that it reads has it."""
        scan = self._scan(query)
        if scan is None:
            return
        labels = {label for table in scan.tables for label in table}
        named = {n for ref in scan.references for i, n in enumerate(ref) if i == len(ref) - 1 or n not in labels}
        for column in sorted(named):
            read = [self._step(schema, table) for schema, table, _ in scan.tables]
            steps = [(v, s) for v, s in (found for found in read if found is not None) if column in s.columns and v.complete(s)]
            if steps and not any(column in v.visible(s) for v, s in steps):
                views, step = steps[0]
                why = views.hidden(step.frame, column, step.columns[column], step)
                raise CatalogError(f"{step.recipe}.{step.name} does not show '{column}': {why}")

    def _step(self, schema: str, table: str) -> tuple[RecipeViews, Step] | None:
        views = self.views.get(schema)
        step = views.steps.get(table) or views.steps.get(table.removesuffix("_all")) if views else None
        return (views, step) if views is not None and step is not None else None

    def _named(self, words: Collection[str]) -> list[RecipeViews]:
        return [v for name, v in self.views.items() if name in words]

    def run(self, query: str) -> duckdb.DuckDBPyConnection:
        """Run one or several statements; the connection with the result of the last. CatalogError when it cannot be answered."""
        self._each(query, self.con.execute)
        return self.con

    def relation(self, query: str) -> duckdb.DuckDBPyRelation | None:
        """The same as a relation, for Arrow; None when the last statement has no result."""
        found: duckdb.DuckDBPyRelation | None = self._each(query, self.con.sql)
        return found

    def _each(self, query: str, do: Callable[[str], Any]) -> Any:
        import duckdb

        with plainly():
            statements = self.con.extract_statements(query)
        done: Any = None
        for statement in statements:
            lasting = self._check(statement) not in ("SELECT", "EXPLAIN")
            try:
                done = self._run(statement.query, do, lasting=lasting)
            except duckdb.Error as error:
                self.con.abort()
                raise CatalogError(self._explained(error, statement.query)) from error
        return done

    def _run(self, query: str, do: Callable[[str], Any], *, lasting: bool) -> Any:
        """`lasting`: what the statement makes may read these views later, so they keep every column."""
        import duckdb

        self.con.abort()
        self.prepare(query, narrow=not lasting)
        if lasting:
            words = set(WORD.findall(query.lower()))
            self._pinned |= {(v.name, w) for v in self._named(words) for w in words if self._columns_of(v.name, w) is not None}
        try:
            return do(query)
        except duckdb.BinderException:
            # A column that the scan of the query missed, or one that is not there: the whole views tell which.
            self.prepare(query, narrow=False)
            return do(query)

    def _check(self, statement: Any) -> str:
        kind = str(statement.type).rsplit(".", 1)[-1]
        inner = statement.query.lower()
        writes = kind in ("EXPLAIN", "PREPARE") and re.search(r"\b(copy|export|attach|install|load)\b", inner)
        if not self.unlocked and (kind not in ALLOWED or writes):
            raise CatalogError(f"{kind} is not for reading the store; to write a result use --parquet, --csv or --json")
        return kind

    def _explained(self, error: Exception, query: str) -> str:
        """DuckDB's message with the names that there are."""
        message = re.sub(r"\nDid you mean \"(pg_|sqlite_|duckdb_|information_schema)[^\n]*", "", str(error))
        words = set(WORD.findall(query.lower()))
        named = self._named(words)
        if "schema" in message and "does not exist" in message and not named:
            return message + _listed("recipes here", self.views)
        if re.search(r"Table with name \S+ does not exist", message):
            all_names = _listed("views here", [*NAMES, *_all_names(self.views)], words)
            return message + ("".join(self._steps_there(v, words) for v in named) or all_names)
        return message

    def _steps_there(self, views: RecipeViews, words: set[str]) -> str:
        there = [s.name for s in views.steps.values() if views.complete(s)]
        waiting = [s.name for s in views.steps.values() if s.name not in there]
        rest = f"\nwithout a complete answer yet: {', '.join(waiting)}; run the recipe again to finish them" if waiting else ""
        return f"{_listed(f'steps of {views.name} (each also with _all)', there, words - {views.name})}{rest}"


@dataclass
class _Scan:
    """Names in the serialized tree of a query, in lower case."""

    references: list[list[str]] = field(default_factory=list)
    """Column references, part by part."""
    using: set[str] = field(default_factory=set)
    tables: list[tuple[str, str, str]] = field(default_factory=list)
    """Schema, name and alias."""
    star: bool = False

    def walk(self, node: Any) -> None:
        """Collect from a node and all below it."""
        if isinstance(node, list):
            for item in node:
                self.walk(item)
        elif isinstance(node, dict):
            self._meet(node)
            for value in node.values():
                self.walk(value)

    def _meet(self, node: dict[str, Any]) -> None:
        kind = node.get("type")
        self.star |= kind in ("STAR", "SHOW_REF") or node.get("ref_type") in ("NATURAL", "POSITIONAL")
        if names := [str(n).lower() for n in node.get("column_names", [])]:
            self.references.append(names)
        self.using.update(str(n).lower() for n in node.get("using_columns", []))
        if kind == "BASE_TABLE":
            schema, table, alias = (str(node.get(key, "")).lower() for key in ("schema_name", "table_name", "alias"))
            self.tables.append((schema, table, alias))


def _all_names(views: dict[str, RecipeViews]) -> list[str]:
    return [f"{name}.{step}" for name, v in views.items() for step in v.steps]


def _listed(what: str, names: Iterable[str], words: Collection[str] = ()) -> str:
    known = list(names)
    near = [n for n in known if any(get_close_matches(w, [n, n.rsplit(".", 1)[-1]], 1, cutoff=0.65) for w in words)]
    return f"\n{what}: {', '.join(known) or 'none'}" + (f"\nnear: {', '.join(near)}" if near else "")
