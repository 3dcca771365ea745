"""Verbs that look at data: sql and peek."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.verbs.options import DEFAULT_STORE, DONE, USAGE, JsonOption, RecipeArgument, StoreOption, fail, guarded

if TYPE_CHECKING:
    from manifests.store import Store


def _width() -> int:
    return shutil.get_terminal_size((132, 24)).columns


def store_at(path: str) -> Store:
    """The store that is there."""
    from manifests.store import Store

    return Store(path).existing()


def recipe_name(store: str, recipe: str) -> str:
    """The name under which a recipe has run here: as given, or as its file says."""
    from pipelines.recipe import load
    from pipelines.session import recipe_path

    return recipe if recipe in store_at(store).records("recipes") else load(recipe_path(recipe)).name


def looked(work: Callable[[], int]) -> None:
    """Run a verb that reads the store with SQL: a question it cannot answer is a usage error."""
    from manifests.catalog import CatalogError

    def careful() -> int:
        try:
            return work()
        except CatalogError as error:
            fail(str(error), USAGE)

    guarded(careful)


def sql(
    query: Annotated[str | None, typer.Argument(metavar="QUERY", help="One query; without it a shell starts.")] = None,
    store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    parquet: Annotated[Path | None, typer.Option("--parquet", help="Write the result to this file.")] = None,
) -> None:  # fmt: skip
    """Ask the store with SQL: every step is a view `recipe.step`; also steps, shards, drops, quarantine, lineage, refs, runs."""

    def work() -> int:
        if query is None:
            from pipelines.sql_shell import shell

            shell(store_at(store))
            return DONE
        from pipelines.answers import sql as answer

        text = answer(store_at(store), query, as_json, as_csv, parquet)
        if text is not None:
            typer.echo(text)
        return DONE

    looked(work)


def peek(
    recipe: RecipeArgument, step: Annotated[str, typer.Argument(metavar="STEP")], store: StoreOption = DEFAULT_STORE,
    n: Annotated[int, typer.Option("-n", min=1, help="Documents to show.")] = 5,
    dropped: Annotated[bool, typer.Option("--dropped", help="Show what the step dropped, and why.")] = False,
    before: Annotated[bool, typer.Option("--before", help="Show the parent's text beside.")] = False,
    seed: Annotated[int | None, typer.Option("--seed", help="A random sample by this seed instead of the first.")] = None,
    pager: Annotated[bool, typer.Option("--pager", help="Page through all: search, filter, mark good or bad.")] = False,
    marks: Annotated[Path | None, typer.Option("--marks", help="The pager's marks; default: RECIPE.STEP.marks.jsonl here.")] = None,
) -> None:  # fmt: skip
    """Look at documents of a step."""

    def work() -> int:
        from pipelines import look

        name = recipe_name(store, recipe)
        if pager:
            from manifests.catalog import Catalog
            from pipelines.pager import Pager
            from pipelines.pager import run as page

            documents = look.Documents(Catalog(store_at(store), recipes=[name]), step, dropped=dropped)
            page(Pager(documents, marks or Path(f"{name}.{step}.marks.jsonl"), beside=before))
            return DONE
        typer.echo(look.peek(store_at(store), name, step, n, dropped=dropped, before=before, seed=seed))
        return DONE

    looked(work)


def explain(
    document: Annotated[str, typer.Argument(metavar="DOCUMENT", help="A document id, a URL, or TOKEN-SHARD:OFFSET.")],
    store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False,
    recipe: Annotated[list[str] | None, typer.Option("--recipe", help="Only what this recipe did with it.")] = None,
) -> None:  # fmt: skip
    """Tell the whole life of a document: its bytes, each step's verdict and values, its twin, its shards."""

    def work() -> int:
        from pipelines import life, trace

        token = trace.token_place(document)
        wanted = trace.trace_token(store_at(store), *token) if token else document
        found = life.lives(store_at(store), wanted, recipe)
        typer.echo(life.as_json(found) if as_json else life.as_text(found, _width()))
        return DONE

    looked(work)


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A run, a recipe (its last run) or a published name.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False,
    step: Annotated[str | None, typer.Option("--step", help="Compare the rows of this step; default: the last one.")] = None,
) -> None:  # fmt: skip
    """Say what changed between two runs or published datasets: rows in and out by reason, moves between buckets, samples."""

    def work() -> int:
        from pipelines import compare

        found = compare.compare(store_at(store), a, b, step)
        typer.echo(compare.as_json(found) if as_json else compare.as_text(found))
        return DONE

    looked(work)


def report(
    name: Annotated[str | None, typer.Argument(metavar="RUN", help="A run, recipe or published name; default: the last.")] = None,
    store: StoreOption = DEFAULT_STORE,
    out: Annotated[Path | None, typer.Option("--out", help="The file to write; default: RECIPE.html here.")] = None,
    price: Annotated[float, typer.Option("--core-hour", min=0, help="Cost of one core hour: prices a million documents.")] = 0.0,
) -> None:  # fmt: skip
    """Write one HTML page about a run: graph, funnel, drops, histograms, samples, time; it needs no network."""

    def work() -> int:
        from pipelines.compare import last_run, record_of
        from pipelines.report_page.page import write_report

        where = store_at(store)
        wanted = name or last_run(where)
        path = out or Path(f"{record_of(where, wanted)[0]['name']}.html")
        typer.echo(write_report(where, wanted, path, price))
        return DONE

    looked(work)
