"""Options that several verbs share, and how each of them ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import typer

DONE, FAILED, USAGE = 0, 1, 2
RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a packaged recipe.")]
StoreOption = Annotated[str, typer.Option("--store", envvar="GRISTMILL_STORE", help="Folder or s3:// URL that holds results.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a parameter of the recipe.")]
SelectOption = Annotated[list[str] | None, typer.Option("--select", metavar="STEP", help="Only this step and what it needs.")]
LimitOption = Annotated[int | None, typer.Option("--limit-units", min=1, help="A trial: only the first N units of each source.")]
SampleOption = Annotated[str | None, typer.Option("--sample", metavar="SHARE", help="A trial: this share of the rows (1%).")]
ModelsOption = Annotated[
    Path | None, typer.Option("--models", metavar="FILE", help="YAML that says where language models are served (run.models).")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
DEFAULT_STORE = "store"


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
