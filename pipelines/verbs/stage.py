"""Verbs about one stage: step and stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines.verbs.options import DONE, JsonOption, ModelsOption, guarded


def step(
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="Import path of a stage.")],
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Parquet or JSONL files; for a source, what it reads.")],
    out: Annotated[Path, typer.Option("--out", help="A .parquet or .jsonl file.")],
    values: Annotated[list[str] | None, typer.Option("--with", metavar="KEY=VALUE", help="A parameter of the stage.")] = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="UNIT:OFFSET", help="Only the record at this place of a source.")
    ] = None,
    models: ModelsOption = None,
) -> None:
    """Run one stage on files, without a recipe or a store."""

    def work() -> int:
        from pipelines.recipe import scalar
        from pipelines.session import settings_of
        from pipelines.single import run_stage

        params = {k: scalar(v) if not v.startswith("[") else json.loads(v) for k, v in settings_of(values or []).items()}
        typer.echo(run_stage(stage, inputs, out, params, at, models), err=True)
        return DONE

    guarded(work)


stages_app = typer.Typer(help="Stages: list them, show one.", invoke_without_command=True, rich_markup_mode=None)


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
    """Parameters, reads, writes, cost per document and an example of a stage."""

    def work() -> int:
        import sys

        from pipelines.manual import describe

        sys.path.insert(0, str(Path.cwd()))
        typer.echo(describe(name))
        return DONE

    guarded(work)


def init(
    recipe: Annotated[Path, typer.Argument(metavar="FILE", help="The recipe to write, such as web.yaml.")],
    paths: Annotated[str | None, typer.Option("--paths", help="WARC files to read; default: the packaged sample.")] = None,
) -> None:
    """Write a recipe to start from, a filter of your own beside it, and the schema for your editor."""

    def work() -> int:
        from pipelines.scaffold import scaffold

        for path in scaffold(recipe, paths):
            typer.echo(path)
        return DONE

    guarded(work)


def schema() -> None:
    """Print the JSON Schema of recipes, for completion in an editor."""
    from pipelines.schema import schema_text

    typer.echo(schema_text(), nl=False)
