"""What helps to write a recipe: the schema, the scaffold, what is said of a stage, completion in the shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from manifests.catalog import Catalog
from manifests.store import Store
from pipelines.manual import describe, entry
from pipelines.recipe import RecipeError
from pipelines.resolve import catalogue
from pipelines.scaffold import scaffold
from pipelines.schema import PACKAGED, schema_text

RECIPES = sorted(PACKAGED.parent.glob("*.yaml"))
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def validator():
    schema = json.loads(PACKAGED.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_the_published_schema_is_the_one_of_the_code():
    assert PACKAGED.read_text(encoding="utf-8") == schema_text(), "run `make golden`"


def test_every_packaged_recipe_is_valid(validator):
    assert len(RECIPES) >= 8
    for path in RECIPES:
        faults = [f"{path.name}: {e.json_path}: {e.message[:200]}" for e in validator.iter_errors(yaml.safe_load(path.read_text()))]
        assert faults == []


@pytest.mark.parametrize(
    ("step", "fault"),
    [
        ({"uses": "stages.filters.gopher.quality", "from": "a", "with": {"min_word": 3}}, "'min_word' was unexpected"),
        ({"uses": "stages.filters.gopher.quality", "from": "a", "with": {"min_words": "many"}}, "is not valid under any"),
        ({"from": "a"}, "'uses' is a required property"),
        ({"uses": "stages.compact.keep", "form": "a"}, "'form' was unexpected"),
    ],
)
def test_the_schema_refuses_what_a_recipe_cannot_say(validator, step, fault):
    recipe = {"name": "x", "steps": {"a": {"uses": "mine.source"}, "b": step}}
    assert any(fault in error.message for error in validator.iter_errors(recipe))


def test_the_schema_allows_references_and_stages_of_others(validator):
    steps = {
        "a": {"uses": "acme.source.rows"},
        "b": {"uses": "stages.filters.gopher.quality", "from": "a", "with": {"min_words": "${n}"}},
    }
    assert list(validator.iter_errors({"name": "x", "params": {"n": 3}, "steps": steps})) == []


def test_init_writes_a_recipe_that_runs_and_leaves_what_is_there(engine, monkeypatch, validator):
    monkeypatch.chdir(engine.folder)
    files = scaffold(Path("first.yaml"), None)
    assert [f.name for f in files] == ["first.yaml", "first_filters.py", "recipe.schema.json"]
    assert list(validator.iter_errors(yaml.safe_load(Path("first.yaml").read_text()))) == []
    assert engine.run("first.yaml").code == 0
    rows = Catalog(Store(engine.store.root)).run("select standing from steps where step = 'files'").fetchall()
    assert rows[0][0] > 50
    assert "largest share" in describe("first_filters.shouting").lower()
    with pytest.raises(RecipeError, match=r"first\.yaml, first_filters\.py: already there"):
        scaffold(Path("first.yaml"), None)
    with pytest.raises(RecipeError, match="lower case"):
        scaffold(Path("Second.yaml"), None)
    sys.modules.pop("first_filters")


def test_every_stage_has_a_page_with_parameters_cost_and_a_valid_example(validator):
    for name in catalogue():
        found = entry(name)
        assert found.doc, name
        assert found.cost
        steps = yaml.safe_load(found.example)["steps"]
        faults = [e for e in validator.iter_errors({"name": "x", "steps": steps}) if "<" not in str(e.instance)]
        assert faults == [], name
        assert all(about for *_, about in found.params), name


def test_a_stage_is_shown_with_everything_that_one_asks():
    text = describe("stages.filters.gopher.quality")
    for part in (
        "min_words (int or null, default 50): Fewest words",
        "reads:",
        "writes:",
        "cost:",
        "example:",
        "uses: stages.filters.gopher.quality",
    ):
        assert part in text


def test_the_shell_completes_verbs_and_options():
    def offered(words: str) -> str:
        env = {**os.environ, "_GRISTMILL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
        code = "import sys; sys.argv[0] = 'gristmill'; from pipelines.cli import app; app(prog_name='gristmill')"
        return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False, cwd=ROOT).stdout

    assert {"report", "run"} <= set(offered("gristmill r").split())
    assert "--core-hour" in offered("gristmill report --co")
