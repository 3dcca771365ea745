"""Recipes that have run: each once a session, in this process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import Engine

from manifests.catalog import Catalog
from pipelines.funnel import Line, funnel
from pipelines.run import Result

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "pipelines" / "recipes"
SAMPLE = RECIPES / "sample" / "sample.warc.gz"


@dataclass
class Ran:
    """A recipe that has run, and questions to it."""

    engine: Engine
    result: Result

    @property
    def name(self) -> str:
        assert self.engine.last is not None
        return str(self.engine.last.layout.recipe.name)

    @property
    def funnel(self) -> dict[str, Line]:
        assert self.engine.last is not None
        return {line.step: line for line in funnel(self.engine.last.layout)}

    def ask(self, query: str) -> list[Any]:
        """Rows of a query, as `gristmill sql` asks."""
        return Catalog(self.engine.store).run(query).fetchall()

    def standing(self, step: str) -> set[int]:
        """Where in the sample the rows begin that stand after a step."""
        return {origin["offset"] for (origin,) in self.ask(f"select origin from {self.name}.{step}")}

    def dropped(self) -> dict[int, tuple[str, str]]:
        """Where a dropped row begins, the step that dropped it and why."""
        return {origin["offset"]: (step, why) for origin, step, why in self.ask("select origin, step, drop_reason from dropped")}


@pytest.fixture(scope="session")
def truth() -> dict[int, dict[str, Any]]:
    """What each response of the sample is, by offset."""
    records = json.loads((ROOT / "tests" / "sample" / "truth.json").read_text())["records"]
    return {record["offset"]: record for record in records if record["type"] == "response"}


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Ran]:
    """Run a packaged recipe; the same recipe with the same settings runs once."""
    known: dict[tuple[Any, ...], Ran] = {}

    def run(recipe: str, **settings: str) -> Ran:
        key = (recipe, *sorted(settings.items()))
        if key not in known:
            engine = Engine(tmp_path_factory.mktemp(recipe))
            known[key] = Ran(engine, engine.run(str(RECIPES / f"{recipe}.yaml"), settings))
        return known[key]

    return run


@pytest.fixture
def model(play: Any) -> Iterator[Any]:
    """A language model on loopback that runs as long as the test, which sets its rule."""
    with play(usage=(50, 20)) as server:
        yield server


@pytest.fixture
def vocabulary(tmp_path: Path) -> str:
    """A tokenizer of words, for models whose own is not at hand."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    fast = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    fast.save(str(tmp_path / "tokenizer.json"))
    return str(tmp_path / "tokenizer.json")
