"""Verbs that look at data: sql and peek."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.verbs.options import DEFAULT_STORE, DONE, USAGE, JsonOption, RecipeArgument, StoreOption, fail, guarded


def sql(
    query: Annotated[str | None, typer.Argument(metavar="QUERY", help="One query; without it a shell starts.")] = None,
    store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    parquet: Annotated[Path | None, typer.Option("--parquet", help="Write the result to this file.")] = None,
) -> None:  # fmt: skip
    """Ask the store with SQL: every step is a view `recipe.step`; also steps, shards, drops, quarantine, lineage, refs, runs."""

    def work() -> int:
        from manifests.catalog import CatalogError
        from manifests.store import Store

        try:
            if query is None:
                from pipelines.sql_shell import shell

                shell(Store(store).existing())
            else:
                from pipelines.answers import sql as answer

                text = answer(Store(store).existing(), query, as_json, as_csv, parquet)
                if text is not None:
                    typer.echo(text)
        except CatalogError as error:
            fail(str(error), USAGE)
        return DONE

    guarded(work)


def peek(
    recipe: RecipeArgument, step: Annotated[str, typer.Argument(metavar="STEP")], store: StoreOption = DEFAULT_STORE,
    n: Annotated[int, typer.Option("-n", min=1, help="Documents to show.")] = 5,
    dropped: Annotated[bool, typer.Option("--dropped", help="Show what the step dropped, and why.")] = False,
    before: Annotated[bool, typer.Option("--before", help="Show the parent's text beside.")] = False,
    seed: Annotated[int | None, typer.Option("--seed", help="A random sample by this seed instead of the first.")] = None,
) -> None:  # fmt: skip
    """Look at documents of a step."""

    def work() -> int:
        import pipelines.look as look
        from manifests.catalog import CatalogError
        from manifests.store import Store
        from pipelines.recipe import load
        from pipelines.session import recipe_path

        name = load(recipe_path(recipe)).name if recipe not in Store(store).existing().records("recipes") else recipe
        try:
            typer.echo(look.peek(Store(store).existing(), name, step, n, dropped=dropped, before=before, seed=seed))
        except CatalogError as error:
            fail(str(error), USAGE)
        return DONE

    guarded(work)
