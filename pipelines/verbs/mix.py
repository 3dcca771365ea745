"""Verbs about mixtures."""

from __future__ import annotations

import json

import typer

from pipelines.verbs.options import DEFAULT_STORE, DONE, USAGE, JsonOption, RecipeArgument, SetOption, StoreOption, fail, guarded

mix_app = typer.Typer(help="Mixtures: what they want against what there is.", no_args_is_help=True, rich_markup_mode=None)


@mix_app.callback()
def mix() -> None:
    """Mixtures: what they want against what there is."""


@mix_app.command("plan")
def mix_plan(
    recipe: RecipeArgument, store: StoreOption = DEFAULT_STORE, settings: SetOption = None, as_json: JsonOption = False
) -> None:
    """Tokens available against wanted, epochs and shortfall of every mixture of a recipe. Exit code 2: it cannot be made."""

    def work() -> int:
        from pipelines import mixtures
        from pipelines.session import Wish, planned, settings_of

        layout = planned(Wish(recipe, store, settings_of(settings or []))).layout
        found = mixtures.as_json(layout)
        if not found:
            fail(f"{layout.recipe.file}: no step of this recipe decides a mixture ({mixtures.BUDGET})", USAGE)
        typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(mixtures.describe(layout)))
        return USAGE if any(one["refusal"] for one in found) else DONE

    guarded(work)
