import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifiers.function import score
from classifiers.statistics import NAMES, measure, statistics_of
from stages.contract import TEXT

RECIPE = """
name: own
steps:
  read: {uses: stages.ingest.jsonl.rows, with: {paths: ROWS, columns: {id: id}}}
  own:  {uses: classifiers.function.score, from: read, with: {function: readable.share, better: lower, column: own}}
run: {max_error_rate: 0.5}
"""
CODE = "def share(text):\n    return None if text == 'x' else text.count('e') / len(text) if text != 'bad' else float('nan')\n"


def test_a_function_beside_the_recipe_is_a_scorer(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "readable", raising=False)
    engine.write("readable.py", CODE)
    path = engine.rows("rows.jsonl", [{"id": f"{i:032x}", "text": t} for i, t in enumerate(["tree", "x", "bad", "mill"])])
    recipe = RECIPE.replace("ROWS", str(path))
    assert engine.run(recipe).code == 0
    assert [r["own"] for r in engine.table("own")][:2] == [-0.5, None]
    assert engine.head("own")["counts"]["quarantined"] == 1
    before = {p for p in engine.digests() if p.startswith("objects/own-")}
    engine.write("readable.py", CODE.replace("'e'", "'m'"))
    sys.modules.pop("readable", None)
    assert engine.run(recipe).code == 0
    assert {p for p in engine.digests() if p.startswith("objects/own-")} > before, "another source is another result"
    sys.modules.pop("readable", None)


@pytest.mark.parametrize("name", ["nowhere.at_all", "plain", "classifiers.nothing_like_it.f"])
def test_a_function_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"no module for '{name}'"):
        score.params(function=name)


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(TypeError, match=r"'classifiers\.function' has no function 'nothing'"):
        score.model(score.params(function="classifiers.function.nothing"))


def test_statistics_are_what_their_names_say(tmp_path: Path) -> None:
    text = "The MILL grinds corn.\nBuy flour now! 10 www.mill.example\nThe mill grinds corn"
    found = dict(zip(NAMES, statistics_of(text), strict=True))
    assert np.exp(found["log_words"]) == pytest.approx(15)
    assert np.exp(found["log_lines"]) == pytest.approx(3)
    assert found["closed_lines"] == pytest.approx(1 / 3)
    assert found["distinct_lines"] == 1
    assert found["shouted"] == pytest.approx(1 / 15)
    assert found["capitalised"] == pytest.approx(4 / 15)
    assert found["function_words"] == pytest.approx(2 / 15)
    assert found["the"] == pytest.approx(2 / 15)
    assert found["offering"] == pytest.approx(1 / 15)
    assert found["links"] == pytest.approx(1 / 15)
    assert found["mark_21"] == pytest.approx(1 / 15)
    assert found["closed_end"] == 0
    assert found["digits"] == pytest.approx(2 / len(text))


@given(st.text(min_size=1).filter(str.strip))
def test_every_text_has_finite_statistics(text: str) -> None:
    found = statistics_of(text)
    assert len(found) == len(NAMES)
    assert np.isfinite(found).all()


def test_nothing_has_no_statistics() -> None:
    out = measure(pa.table({"text": pa.array(["a b", " \n", None], TEXT)}), measure.params(column="form"))
    assert [v is None for v in out["form"].to_pylist()] == [False, True, True]
