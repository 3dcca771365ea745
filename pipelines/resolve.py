"""From a dotted name to a stage, and from a mapping to its parameters; near misses are suggested."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipelines.recipe import RecipeError, hint
from stages.contract import Params, Stage

ROOMS = ("stages", "classifiers", "synthetic")
"""Packages of ours in which stages live; anything else on the import path works as well."""
_DECORATORS = {"source", "map_stage", "reduce_stage", "ask_stage", "export_stage"}


def resolve(name: str, place: object, folder: Path | None = None) -> Stage:
    """The stage of this import path; `folder` is the recipe's own, importable here as in workers."""
    if folder is not None and str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    module_name, _, attribute = name.rpartition(".")
    if not module_name:
        raise RecipeError(f"{place}: '{name}' is not an import path (package.module.function){suggestion(name)}")
    if not _exists(module_name):
        raise RecipeError(f"{place}: unknown stage '{name}': there is no module '{module_name}'{suggestion(name)}")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise RecipeError(f"{place}: cannot import '{module_name}' for stage '{name}': {error}") from error
    found = getattr(module, attribute, None)
    if found is None:
        raise RecipeError(f"{place}: unknown stage '{name}': '{module_name}' has no '{attribute}'{suggestion(name)}")
    if not isinstance(found, Stage):
        raise RecipeError(f"{place}: '{name}' is a {type(found).__name__}, not a stage; decorate it with stages.contract.map_stage")
    return found


def _exists(module_name: str) -> bool:
    try:
        return importlib.util.find_spec(module_name) is not None
    except ModuleNotFoundError:
        return False


def suggestion(name: str) -> str:
    """`; did you mean ...?` over every stage of ours."""
    near = get_close_matches(name, list(catalogue()), 1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else "; `gristmill stages` lists what there is"


def catalogue() -> dict[str, str]:
    """Every stage of ours: import path to the first line of its docstring. Reads the sources and imports nothing."""
    root = Path(__file__).resolve().parent.parent
    found: dict[str, str] = {}
    for room in ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            module = ".".join(path.relative_to(root).with_suffix("").parts)
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.FunctionDef) and any(_declares(d) for d in node.decorator_list):
                    found[f"{module}.{node.name}"] = (ast.get_docstring(node) or "").split("\n")[0]
    return found


def _declares(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Name) and decorator.func.id in _DECORATORS


def bind(stage: Stage, values: Mapping[str, Any], place: object, step: str) -> Params:
    """Validated parameters; an unknown key or a wrong type is refused by name."""
    fields = stage.params.model_fields
    for key in values:
        if key not in fields:
            raise RecipeError(f"{place}: step '{step}': {stage.name} has no parameter '{key}'{hint(key, list(fields))}")
    try:
        return stage.params(**values)
    except ValidationError as error:
        problems = "; ".join(_problem(e) for e in error.errors())
        raise RecipeError(f"{place}: step '{step}': {problems}") from error


def _problem(error: Any) -> str:
    where = ".".join(str(p) for p in error["loc"]) or "parameters"
    given = "" if error["type"] == "missing" else f" (got {error['input']!r})"
    return f"{where}: {error['msg']}{given}"


def identity_of(params: Params, raw: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the parameters that shapes bytes: no defaults, no knobs; a file by its content."""
    identity: dict[str, Any] = {}
    for name, info in type(params).model_fields.items():
        extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
        value = getattr(params, name)
        if extra.get("how") or value == info.get_default(call_default_factory=True):
            continue
        if extra.get("file") and isinstance(value, str) and Path(value).exists():
            identity[name] = {"file": content_witness(Path(value))}
        else:
            dumped = params.model_dump(mode="json", include={name})[name]
            identity[name] = getattr(raw.get(name), "reference", dumped)
    return identity


def content_witness(path: Path) -> str:
    """Size and sha256 of a model file or of every file in a model folder: models are small enough to read whole."""
    from manifests.shard import file_digest

    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return "|".join("{}:{}:{}".format(p.relative_to(path) if p != path else "", *file_digest(p)) for p in files)
