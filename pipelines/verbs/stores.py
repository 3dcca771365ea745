"""Verbs that look after a store and a machine: status, verify, gc, doctor, models."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from pipelines.verbs.options import DEFAULT_STORE, DONE, JsonOption, StoreOption, guarded


def status(store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> None:
    """What is done and what is going on in a store; works while a run is going on."""

    def work() -> int:
        from manifests.store import Store
        from pipelines.upkeep import status_lines, status_record

        found = status_record(Store(store).existing())
        typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(status_lines(found)))
        return DONE

    guarded(work)


def verify(store: StoreOption = DEFAULT_STORE) -> None:
    """Read every shard back against its digest."""

    def work() -> int:
        from manifests.store import Store
        from pipelines.upkeep import verify_store

        return verify_store(Store(store).existing(), typer.echo)

    guarded(work)


def export(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A published export, or RECIPE.STEP.")],
    where: Annotated[str, typer.Argument(metavar="WHERE", help="A folder, or a URL such as s3://bucket/path.")],
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Copy an export to where training reads it, each file checked after the copy; a stopped copy goes on where it was."""

    def work() -> int:
        from manifests.store import Store
        from pipelines.deliver import deliver

        deliver(Store(store).existing(), name, where, typer.echo)
        return DONE

    guarded(work)


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


def doctor(store: StoreOption = DEFAULT_STORE) -> None:
    """Check this machine: libraries, models, cores, memory, disk, the store."""

    def work() -> int:
        from pipelines.upkeep import examine

        return examine(store, typer.echo)

    guarded(work)


def models() -> None:
    """Say which models are present and where they came from."""
    from pipelines.upkeep import model_lines

    typer.echo("\n".join(model_lines()))
