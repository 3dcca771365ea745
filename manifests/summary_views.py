"""Views over all recipes that answer by what a column means: buckets, mixtures and prompts.

    buckets    rows of every step that gives its documents a `bucket` or a `label`
    mixtures   rows and tokens by phase and source of every step that gives a `copy` (a blend), `copies` counted in
    prompts    accepted and refused rows and tokens by model and prompt of every step that gives a `generator`

A step that only passes such a column on is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from manifests.step_views import RecipeViews, Step, literal, quoted

BUCKETS = {"recipe": "varchar", "step": "varchar", "bucket": "bigint", "label": "varchar", "rows": "bigint"}
MIXTURES = {"recipe": "varchar", "step": "varchar", "phase": "varchar", "source": "varchar", "rows": "bigint",
            "tokens": "bigint", "wanted": "bigint", "available": "bigint", "epochs": "bigint"}  # fmt: skip
PROMPTS = {"recipe": "varchar", "step": "varchar", "model": "varchar", "prompt": "varchar", "version": "varchar",
           "accepted": "bigint", "refused": "bigint", "prompt_tokens": "bigint", "completion_tokens": "bigint"}  # fmt: skip

Recipes = Mapping[str, RecipeViews]


def _giving(recipes: Recipes, *columns: str) -> Iterator[tuple[RecipeViews, Step]]:
    """Complete steps that wrote one of these columns themselves."""
    for views in recipes.values():
        for step in views.steps.values():
            if step.shape != "export" and views.complete(step) and any(step.columns.get(c) == step.name for c in columns):
                yield views, step


def _branches(
    found: Iterator[tuple[RecipeViews, Step]], say: Callable[[RecipeViews, Step], str], columns: Mapping[str, str]
) -> str:
    pieces = [f"select {literal(s.recipe)} as recipe, {literal(s.name)} as step, * from ({say(v, s)})" for v, s in found]
    empty = f"select {', '.join(f'null::{kind} as {quoted(name)}' for name, kind in columns.items())} where false"
    return " union all by name ".join([empty, *pieces])


def _here(views: RecipeViews, step: Step, *columns: str) -> dict[str, str]:
    """Select-list items: the column where the view shows it, null elsewhere."""
    shown = views.visible(step)
    return {c: quoted(c) if c in shown else "null" for c in columns}


def buckets(recipes: Recipes) -> str:
    """One row per step, bucket and label."""

    def branch(views: RecipeViews, step: Step) -> str:
        at = _here(views, step, "bucket", "label")
        rows = views.standing(step, {"bucket", "label"})
        names = f"{at['bucket']}::bigint as bucket, {at['label']}::varchar as label"
        return f"select {names}, count(*) as rows from ({rows}) group by 1, 2"

    # The dataset of a Reduce (cut points, sizes) counts with buckets of its own; it holds no documents.
    labelled = ((v, s) for v, s in _giving(recipes, "bucket", "label") if s.shape != "dataset")
    return _branches(labelled, branch, BUCKETS)


def mixtures(recipes: Recipes) -> str:
    """One row per decided mixture, phase and source; `available` is one epoch, `epochs` those begun in the phase."""

    def branch(views: RecipeViews, step: Step) -> str:
        names = {"phase", "source", "rows", "tokens", "wanted", "available", "epoch", "at"}
        return f"""select phase, source, sum(rows)::bigint as rows, sum(tokens)::bigint as tokens, max(wanted)::bigint as wanted,
            max(available)::bigint as available, count(distinct epoch)::bigint as epochs
            from ({views.standing(step, names)}) group by phase, source, "at" order by "at", source"""

    return _branches(_giving(recipes, "wanted"), branch, MIXTURES)


def prompts(recipes: Recipes) -> str:
    """One row per step that asks a model, model, prompt and version."""

    def branch(views: RecipeViews, step: Step) -> str:
        at = _here(views, step, "prompt_tokens", "completion_tokens")
        names = {"generator", "drop_reason", "prompt_tokens", "completion_tokens"}
        return f"""select generator.model::varchar as model, generator.prompt::varchar as prompt,
            generator.version::varchar as version, count(*) filter (where drop_reason is null) as accepted,
            count(*) filter (where drop_reason is not null) as refused, sum({at["prompt_tokens"]})::bigint as prompt_tokens,
            sum({at["completion_tokens"]})::bigint as completion_tokens
            from ({views.everything(step, names)}) group by 1, 2, 3"""

    return _branches(_giving(recipes, "generator"), branch, PROMPTS)
