"""The rooms of the house: what may be called what, and what an import may cost."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.resolve import catalogue
from stages.contract import Stage

ROOT = Path(__file__).parents[2]
ROOMS = ("pipelines", "stages", "classifiers", "synthetic", "manifests")
NAMELESS = {"utils", "util", "common", "helpers", "helper", "base", "core", "misc"}
HEAVY = ("torch", "ray", "vllm", "fasttext", "datasets", "duckdb", "transformers", "spacy", "sklearn")
GOLDEN = Path(__file__).with_name("stages.txt")
STAGES = sorted(catalogue())


def modules() -> Iterator[tuple[str, ast.Module]]:
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            yield name, ast.parse(path.read_text(encoding="utf-8"))


def stage_of(name: str) -> Stage:
    module, _, attribute = name.rpartition(".")
    found = getattr(importlib.import_module(module), attribute)
    assert isinstance(found, Stage)
    return found


def test_every_module_and_folder_is_named_after_a_thing() -> None:
    found = [str(path.relative_to(ROOT)) for room in ROOMS for path in (ROOT / room).rglob("*") if path.stem in NAMELESS]
    assert not found


def test_a_stage_never_imports_a_stage() -> None:
    """Composition happens in recipes; text that two stages share stands in a module that is no stage."""
    found = [
        f"{name} imports {node.module}.{alias.name}"
        for name, tree in modules()
        if not name.startswith("pipelines")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if f"{node.module}.{alias.name}" in STAGES
    ]
    assert not found


def test_nothing_is_left_unimplemented() -> None:
    found = [
        f"{name}:{node.lineno}"
        for name, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise) and "NotImplemented" in ast.unparse(node)
    ]
    assert not found


def test_importing_all_stages_imports_nothing_heavy() -> None:
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[2:]:\n"
        "    importlib.import_module(name)\n"
        "    heavy = [h for h in sys.argv[1].split(',') if h in sys.modules]\n"
        "    if heavy: sys.exit(f'{name} imports {heavy}')\n"
    )
    names = sorted({name.rpartition(".")[0] for name in STAGES})
    done = subprocess.run(
        [sys.executable, "-c", code, ",".join(HEAVY), *names], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_stage_names_are_the_golden_ones() -> None:
    """A recipe somewhere may hold any of these names: a rename is a decision. After taking it: `make golden`."""
    golden = GOLDEN.read_text().split()
    assert {"gone": sorted(set(golden) - set(STAGES)), "new": sorted(set(STAGES) - set(golden))} == {"gone": [], "new": []}
    assert golden == STAGES


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_says_what_it_does_and_what_its_parameters_mean(name: str) -> None:
    stage = stage_of(name)
    assert stage.name == name
    assert stage.doc.strip(), "no docstring"
    silent = [f for f, info in stage.params.model_fields.items() if not (info.description or "").strip()]
    assert not silent, f"parameters without a description: {silent}"
    long = [f for f, info in stage.params.model_fields.items() if "\n" in (info.description or "")]
    assert not long, f"descriptions of more than one line: {long}"
