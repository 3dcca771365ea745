"""The `gristmill` command. Everything heavy is imported by the verb that needs it: --help answers at once."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

app = typer.Typer(
    name="gristmill", no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Raw crawl, code and reference text to training shards: planned, resumable, inspectable.",
)  # fmt: skip

DONE, FAILED, USAGE = 0, 1, 2
RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a packaged recipe.")]
StoreOption = Annotated[Path, typer.Option("--store", envvar="GRISTMILL_STORE", help="Folder that holds results.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a parameter of the recipe.")]
SelectOption = Annotated[list[str] | None, typer.Option("--select", metavar="STEP", help="Only this step and what it needs.")]
LimitOption = Annotated[int | None, typer.Option("--limit-units", min=1, help="A trial: only the first N units of each source.")]
SampleOption = Annotated[str | None, typer.Option("--sample", metavar="SHARE", help="A trial: this share of the rows (1%).")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
DEFAULT_STORE = Path("store")


def guarded(work: Callable[[], int]) -> NoReturn:
    """Run a verb: one clear line for every fault a user can meet, and its exit code."""
    from manifests.store import StoreError
    from pipelines.guard import StageError
    from pipelines.recipe import RecipeError

    try:
        code = work()
    except RecipeError as error:
        fail(str(error), USAGE)
    except (StoreError, StageError) as error:
        fail(str(error), FAILED)
    except OSError as error:
        fail(_os_error(error), FAILED)
    raise typer.Exit(code)


def fail(message: str, code: int) -> NoReturn:
    """One line on stderr."""
    typer.echo(f"gristmill: {message}", err=True)
    raise typer.Exit(code)


def _os_error(error: OSError) -> str:
    if error.errno == 28:
        return f"no space left: {error.strerror or error}; free some space and run again to go on"
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{error.strerror or error}"


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
    recipe: str, store: Path, settings: list[str] | None, select: list[str] | None, limit: int | None, sample: str | None
) -> Any:
    from pipelines.session import Wish, settings_of

    return Wish(recipe, store, settings_of(settings or []), select or (), None, limit, _share(sample))


@app.command()
def plan(
    recipe: RecipeArgument, store: StoreOption = DEFAULT_STORE, settings: SetOption = None, select: SelectOption = None,
    limit_units: LimitOption = None, sample: SampleOption = None, as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Say what a run would do: what is reused, what is made, and why."""

    def work() -> int:
        from pipelines import explain
        from pipelines.session import planned

        found = planned(_wish(recipe, store, settings, select, limit_units, sample))
        typer.echo(json.dumps(explain.as_json(found), indent=2) if as_json else "\n".join(explain.describe(found)))
        return DONE

    guarded(work)


@app.command()
def run(
    recipe: RecipeArgument, store: StoreOption = DEFAULT_STORE, settings: SetOption = None, select: SelectOption = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes; default: one per core.")] = None,
    limit_units: LimitOption = None, sample: SampleOption = None, as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Run a recipe; a second run does only what is missing. Exit codes: 0 done, 1 failed, 2 usage, 3 over the error limit."""

    def work() -> int:
        from dataclasses import replace

        from pipelines.report import finish, summary
        from pipelines.session import carry_out, planned

        wish = replace(_wish(recipe, store, settings, select, limit_units, sample), workers=workers)
        found = planned(wish)
        if not found.actions:
            result = carry_out(found, lambda *_: None)
            typer.echo(json.dumps(summary(found, result)) if as_json else "nothing to do: every step is there")
            return int(result.code)
        from pipelines.progress import Progress

        progress = Progress(found)
        progress.line(f"{found.layout.recipe.name}: {found.tasks:,} tasks in {len(found.actions)} actions -> {store}")
        if not Path(os.environ["NUMBA_CACHE_DIR"]).exists():
            progress.line("first run on this machine: its kernels are compiled once, which can take a minute")
        result = carry_out(found, progress)
        progress.end()
        if as_json:
            typer.echo(json.dumps(summary(found, result)))
        else:
            finish(found, result, shlex.join(sys.argv))
        return int(result.code)

    guarded(work)


@app.command()
def step(
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="Import path of a stage.")],
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Parquet or JSONL files; for a source, what it reads.")],
    out: Annotated[Path, typer.Option("--out", help="A .parquet or .jsonl file.")],
    values: Annotated[list[str] | None, typer.Option("--with", metavar="KEY=VALUE", help="A parameter of the stage.")] = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="UNIT:OFFSET", help="Only the record at this place of a source.")
    ] = None,
) -> None:
    """Run one stage on files, without a recipe or a store."""

    def work() -> int:
        from pipelines.recipe import scalar
        from pipelines.session import settings_of
        from pipelines.single import run_stage

        params = {k: scalar(v) if not v.startswith("[") else json.loads(v) for k, v in settings_of(values or []).items()}
        typer.echo(run_stage(stage, inputs, out, params, at), err=True)
        return DONE

    guarded(work)


stages_app = typer.Typer(help="Stages: list them, show one.", invoke_without_command=True, rich_markup_mode=None)
app.add_typer(stages_app, name="stages")


@stages_app.callback()
def stages_list(context: typer.Context, as_json: JsonOption = False) -> None:
    """List every stage of the distribution."""
    if context.invoked_subcommand is None:
        from pipelines.resolve import catalogue

        found = catalogue()
        width = max(map(len, found))
        typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(f"{n.ljust(width)}  {doc}" for n, doc in found.items()))


@stages_app.command("list")
def stages_listed(context: typer.Context, as_json: JsonOption = False) -> None:
    """List every stage of the distribution."""
    context.invoked_subcommand = None
    stages_list(context, as_json)


@stages_app.command("show")
def stages_show(name: Annotated[str, typer.Argument(metavar="STAGE")]) -> None:
    """Parameters, reads and writes of a stage."""

    def work() -> int:
        from pipelines.single import describe_stage

        typer.echo(describe_stage(name))
        return DONE

    guarded(work)


@app.command()
def sql(
    query: Annotated[str | None, typer.Argument(metavar="QUERY", help="One query; without it a shell starts.")] = None,
    store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    parquet: Annotated[Path | None, typer.Option("--parquet", help="Write the result to this file.")] = None,
) -> None:  # fmt: skip
    """Ask the store with SQL: every step is a view `recipe.step`; also steps, shards, drops, quarantine, lineage, refs, runs."""

    def work() -> int:
        import pipelines.look as look
        from manifests.catalog import CatalogError
        from manifests.store import Store

        try:
            if query is None:
                look.shell(Store(store).existing())
            else:
                text = look.sql(Store(store).existing(), query, as_json, as_csv, parquet)
                if text is not None:
                    typer.echo(text)
        except CatalogError as error:
            fail(str(error), USAGE)
        return DONE

    guarded(work)


@app.command()
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


@app.command()
def status(store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> None:
    """What is done and what is going on in a store; works while a run is going on."""

    def work() -> int:
        from manifests.store import Store
        from pipelines.upkeep import status_lines, status_record

        found = status_record(Store(store).existing())
        typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(status_lines(found)))
        return DONE

    guarded(work)


@app.command()
def verify(store: StoreOption = DEFAULT_STORE) -> None:
    """Read every shard back against its digest."""

    def work() -> int:
        from manifests.store import Store
        from pipelines.upkeep import verify_store

        return verify_store(Store(store).existing(), typer.echo)

    guarded(work)


@app.command()
def gc(
    store: StoreOption = DEFAULT_STORE,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it only say what would go.")] = False,
) -> None:
    """Remove objects that no recipe's last run and no published name needs."""

    def work() -> int:
        from manifests.store import Store
        from pipelines.upkeep import collect

        return collect(Store(store).existing(), typer.echo, really=yes)

    guarded(work)


@app.command()
def doctor(store: StoreOption = DEFAULT_STORE) -> None:
    """Check this machine: libraries, models, cores, memory, disk, the store."""

    def work() -> int:
        from pipelines.upkeep import examine

        return examine(store, typer.echo)

    guarded(work)


@app.command()
def models() -> None:
    """Say which models are present and where they came from."""
    from pipelines.upkeep import model_lines

    typer.echo("\n".join(model_lines()))


def main() -> None:
    """Entry point."""
    if "NO_COLOR" in os.environ or not sys.stdout.isatty():
        os.environ.setdefault("TERM", "dumb")
    try:
        app()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(FAILED) from None


if __name__ == "__main__":
    main()
