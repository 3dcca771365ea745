"""Verbs about a recipe: plan and run."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.verbs.options import (
    DEFAULT_STORE,
    DONE,
    JsonOption,
    LimitOption,
    ModelsOption,
    RecipeArgument,
    SampleOption,
    SelectOption,
    SetOption,
    StoreOption,
    guarded,
)


def _share(text: str | None) -> float | None:
    from pipelines.recipe import RecipeError

    if text is None:
        return None
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise RecipeError(f"--sample {text}: a share is between 0 and 1, or 1% to 100%")
    return share


def _wish(
    recipe: str, store: str, settings: list[str] | None, select: list[str] | None, limit: int | None, sample: str | None,
    models: Path | None,
) -> Any:  # fmt: skip
    from pipelines.session import Wish, settings_of

    return Wish(recipe, store, settings_of(settings or []), select or (), None, limit, _share(sample), models=models)


def plan(
    recipe: RecipeArgument, store: StoreOption = DEFAULT_STORE, settings: SetOption = None, select: SelectOption = None,
    limit_units: LimitOption = None, sample: SampleOption = None, models: ModelsOption = None, as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Say what a run would do: what is reused, what is made, and why."""

    def work() -> int:
        from pipelines import explain, mixtures
        from pipelines.session import planned

        found = planned(_wish(recipe, store, settings, select, limit_units, sample, models))
        if as_json:
            typer.echo(json.dumps(explain.as_json(found) | {"mixtures": mixtures.as_json(found.layout)}, indent=2))
        else:
            typer.echo("\n".join([*explain.describe(found), *mixtures.describe(found.layout)]))
        return DONE

    guarded(work)


def run(
    recipe: RecipeArgument, store: StoreOption = DEFAULT_STORE, settings: SetOption = None, select: SelectOption = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes; default: one per core.")] = None,
    executor: Annotated[str | None, typer.Option("--executor", help="Where tasks run: local or ray.")] = None,
    port: Annotated[int | None, typer.Option("--metrics", metavar="PORT", help="Serve Prometheus metrics of this run.")] = None,
    limit_units: LimitOption = None, sample: SampleOption = None, models: ModelsOption = None, as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Run a recipe; a second run does only what is missing. Exit codes: 0 done, 1 failed, 2 usage, 3 over the error limit."""

    def work() -> int:
        from dataclasses import replace

        from pipelines import mixtures
        from pipelines.report import finish, summary
        from pipelines.session import carry_out, planned

        asked = _wish(recipe, store, settings, select, limit_units, sample, models)
        wish = replace(asked, workers=workers, executor=executor)
        found = planned(wish)
        mixtures.refuse(found.layout)
        if not found.actions:
            result = carry_out(found, lambda *_: None)
            typer.echo(json.dumps(summary(found, result)) if as_json else "nothing to do: every step is there")
            return int(result.code)
        from pipelines.progress import Progress

        progress = Progress(found)
        progress.line(f"{found.layout.recipe.name}: {found.tasks:,} tasks in {len(found.actions)} actions -> {store}")
        if not Path(os.environ["NUMBA_CACHE_DIR"]).exists():
            progress.line("first run on this machine: its kernels are compiled once, which can take a minute")
        progress.begin()
        try:
            result = carry_out(found, progress, port)
        finally:
            progress.end()
        if as_json:
            typer.echo(json.dumps(summary(found, result)))
        else:
            finish(found, result, shlex.join(sys.argv))
        return int(result.code)

    guarded(work)
