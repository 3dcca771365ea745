"""The `gristmill` command: its verbs stand in `pipelines/verbs/`. Everything heavy is imported late: --help answers at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import typer

from pipelines.verbs import looking, mix, prompts, recipes, stage, stores
from pipelines.verbs.options import FAILED

app = typer.Typer(
    name="gristmill", no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Raw crawl, code and reference text to training shards: planned, resumable, inspectable.",
)  # fmt: skip

VERBS: tuple[Callable[..., None], ...] = (
    stage.init, recipes.plan, recipes.run, stage.step, looking.sql, looking.explain, looking.diff, looking.peek, looking.report,
    stores.status, stores.verify, stores.export, stores.gc, stores.doctor, stores.models,
    stage.schema,
)  # fmt: skip
for verb in VERBS:
    app.command()(verb)
app.add_typer(stage.stages_app, name="stages")
app.add_typer(mix.mix_app, name="mix")
app.add_typer(prompts.prompts_app, name="prompts")


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
