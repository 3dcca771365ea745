"""The Ray cluster of a run: joined or started, what its workers import, and what its nodes have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

PACKAGES = ("pipelines", "stages", "classifiers", "synthetic", "manifests")
Shape = tuple[tuple[str, float], ...]
"""Resources of an actor, sorted: ("CPU", 1.0), ("GPU", 0.5), ("memory", bytes), custom ones."""
CPU: Shape = (("CPU", 1.0),)


def connect(address: str, workers: int, folder: Path | None) -> bool:
    """Join a cluster, or start one here; whether it was started here."""
    import ray

    if ray.is_initialized():
        return False
    settings: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    try:
        ray.init(address=address, runtime_env=environment(folder), **settings)
    except ConnectionError:
        if address != "auto":
            raise
        root = Path(__file__).parents[2]
        paths = [str(root), *([str(folder)] if folder else [])]
        env = {"env_vars": {"PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])}}
        ray.init(num_cpus=workers or len(os.sched_getaffinity(0)), include_dashboard=False, runtime_env=env, **settings)
        return True
    return True


def environment(folder: Path | None) -> dict[str, Any]:
    """What workers on other machines import: the five packages, and modules that lie beside the recipe."""
    root = Path(__file__).parents[2]
    beside = sorted(folder.glob("*.py")) if folder is not None and folder != root else []
    return {"py_modules": [str(root / name) for name in PACKAGES] + [str(path) for path in beside]}


def refuse(shape: Shape) -> None:
    """RecipeError where no node could hold an actor of this shape: it would wait for one for ever, and nobody would be told."""
    import ray

    from pipelines.recipe import RecipeError

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(all(node.get(name, 0) >= amount for name, amount in shape) for node in nodes):
        raise RecipeError(
            f"run.resources asks for {', '.join(f'{name} {amount:g}' for name, amount in shape)} for one worker, and none of the "
            f"{len(nodes)} nodes has that; ask for less, add such a node, or set run.workers where the cluster scales itself"
        )
