"""One command's view of the world: a recipe, a store, and how to run."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from manifests.fingerprint import fingerprint
from manifests.store import Store
from pipelines.events import RunLog
from pipelines.executors.contract import Stopped
from pipelines.graph import build
from pipelines.metrics import Metrics
from pipelines.plan import Plan, make_plan
from pipelines.recipe import Recipe, RecipeError, hint, load, load_models
from pipelines.record import recipe_record
from pipelines.run import Result, Run
from pipelines.targets import lay_out
from pipelines.watch import Watch
from pipelines.witnesses import remembering

EXECUTORS = ("local", "ray")
PACKAGED = Path(__file__).parent / "recipes"


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user asked for on the command line."""

    recipe: str
    store: str
    settings: Mapping[str, str] = field(default_factory=dict)
    select: Sequence[str] = ()
    workers: int | None = None
    limit_units: int | None = None
    sample: float | None = None
    executor: str | None = None
    models: Path | None = None
    """A file that says where language models are served; its entries come before those of the recipe."""


def recipe_path(name: str) -> Path:
    """A recipe file by path, or a packaged one by its bare name."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.exists():
        return path
    packaged = PACKAGED / f"{name.replace('_', '-')}.yaml"
    if packaged.exists():
        return packaged
    raise RecipeError(f"there is no recipe '{name}': no such file, and not packaged{hint(name, packaged_recipes())}")


def packaged_recipes() -> list[str]:
    """Names of the recipes that come with gristmill."""
    return sorted(p.stem for p in PACKAGED.glob("*.yaml"))


def settings_of(pairs: Sequence[str]) -> dict[str, str]:
    """KEY=VALUE pairs of the command line."""
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise RecipeError(f"'{pair}' is not KEY=VALUE")
        found[key] = value
    return found


def planned(wish: Wish) -> Plan:
    """Load, check and plan; nothing is written but the store's format file."""
    recipe = load(recipe_path(wish.recipe), wish.settings)
    if wish.models is not None:
        recipe = replace(recipe, run=replace(recipe.run, models={**recipe.run.models, **load_models(wish.models)}))
    if wish.workers is not None:
        recipe = replace(recipe, run=replace(recipe.run, workers=wish.workers))
    if wish.executor is not None:
        recipe = replace(recipe, run=replace(recipe.run, executor=wish.executor))
    if recipe.run.executor not in EXECUTORS:
        raise RecipeError(f"{recipe.file}: run.executor is '{recipe.run.executor}'{hint(recipe.run.executor, EXECUTORS)}")
    graph = build(recipe)
    store = Store.open(wish.store)
    gc.disable()  # a plan of 100,000 units is a million small objects and no garbage: looking for it is a third of the time
    try:
        with remembering(_memory(store)):
            layout = lay_out(recipe, graph, store, select=wish.select, limit_units=wish.limit_units, sample=wish.sample)
        return make_plan(layout)
    finally:
        gc.enable()


def _memory(store: Store) -> Path:
    """Where witnesses of input files are remembered: in the store, or for an object store in this machine's cache."""
    if store.place.local:
        return store.root / "cache" / "witnesses.json"
    return Path(os.environ["NUMBA_CACHE_DIR"]).parent / "witnesses" / f"{fingerprint(store.url)}.json"


def carry_out(plan: Plan, hear: Any, port: int | None = None) -> Result:
    """Run a plan on its executor; Ctrl-C once drains, twice stops. `hear` is told every event, and who is at work.

    With `port`, Prometheus may scrape it there.
    """
    if not plan.actions:
        run = Run(plan, _Nobody(), lambda _: None, plan.layout.recipe.run.max_error_rate)
        return run.go()
    recipe = plan.layout.recipe
    with ExitStack() as stack:
        metrics = stack.enter_context(Metrics(plan, port)) if port is not None else None
        log = stack.enter_context(RunLog(plan.layout.store, recipe.name, recipe.text, recipe_record(plan.layout)))
        executor = _executor(recipe, plan.layout.store)

        speaking = threading.Lock()

        def say(event: dict[str, Any]) -> None:
            with speaking:
                log.write(event)
                hear(event, executor)
                if metrics is not None:
                    metrics(event, executor)

        hear({"event": "begin"}, executor)
        try:
            with _interrupts(executor, hear), Watch(executor, say):
                result = Run(plan, executor, say, recipe.run.max_error_rate).go()
        finally:
            executor.close()
        log.end(_record(recipe.name, result))
    return result


def _record(name: str, result: Result) -> dict[str, Any]:
    return {
        "recipe": name, "code": result.code, "seconds": round(result.seconds, 3), "tasks": result.tasks, "errors": result.errors,
        "over_limit": result.over_limit, "resource_limited": result.limited, "setbacks": result.setbacks,
    }  # fmt: skip


class _Nobody:
    """The executor of a plan without tasks."""

    def map(self, work: Any, tasks: Iterator[Any]) -> Iterator[Any]:
        del work
        for task in tasks:
            raise RuntimeError(f"a plan without actions has the task {task}")
        return iter(())

    def drain(self) -> None:
        """Nothing to drain."""

    def close(self) -> None:
        """Nothing to close."""


def _executor(recipe: Recipe, store: Store) -> Any:
    if recipe.run.executor == "ray":
        try:
            from pipelines.executors.ray import Ray

            return Ray(
                store.url, recipe.run.workers, recipe.run.memory_per_worker, recipe.run.address, recipe.run.resources, recipe.folder
            )
        except ImportError as error:
            raise RecipeError("run.executor is 'ray', which is not installed here; install gristmill[ray]") from error
    from pipelines.executors.local import Local

    return Local(recipe.run.workers, recipe.run.memory_per_worker)


@contextmanager
def _interrupts(executor: Any, hear: Any) -> Iterator[None]:
    def on_signal(_number: int, _frame: Any) -> None:
        try:
            executor.drain()
        except Stopped:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            raise
        hear({"event": "draining"}, executor)

    before = {s: signal.signal(s, on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.stderr.flush()
