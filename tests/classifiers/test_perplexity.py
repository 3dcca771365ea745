from pathlib import Path

import pyarrow as pa
import pytest

from classifiers.kneser_ney import train, write_arpa
from classifiers.perplexity import WORST, Perplexity, Scorer, perplexity, score
from classifiers.sentences import sentences, tokens
from stages.contract import TEXT

FLAT = Scorer(lambda line: -2.0 * (len(line.split()) + 1), tokens)
"""A model that gives every token and every end of line the probability 0.01."""


def rows(*texts: str | None) -> pa.Table:
    return pa.table({"text": pa.array(texts, TEXT)})


def test_perplexity_is_the_mean_over_tokens_and_line_ends() -> None:
    assert perplexity("one two\nthree", FLAT) == pytest.approx(100.0)
    assert perplexity(" \n", FLAT) == WORST
    assert perplexity("x", Scorer(lambda _line: -100.0, tokens)) == WORST


def test_texts_get_labels_and_reasons_by_the_limits() -> None:
    by_length = Scorer(lambda line: -float(len(line.split())), tokens)
    params = Perplexity(model="m", head=5.0, tail=7.0, highest=8.0)
    out = score(rows("a b c", "a " * 6, "a", None, "a " * 30), params, model=by_length)
    values = [10 ** (n / (n + 1)) for n in (3, 6, 1)]
    assert out["perplexity"].to_pylist()[:3] == pytest.approx([round(v, 1) for v in values])
    assert out["perplexity_label"].to_pylist() == ["middle", "tail", "head", "tail", "tail"]
    assert out["drop_reason"].to_pylist() == [None, None, None, "perplexity_high", "perplexity_high"]
    assert {f.name: f.type for f in out.schema} == score.writes_of(params)


def test_without_limits_there_are_scores_alone() -> None:
    out = score(rows("a", "b"), Perplexity(model="m"), model=FLAT)
    assert out["perplexity_label"].to_pylist() == [None, None]
    assert out["drop_reason"].to_pylist() == [None, None]


def test_limits_belong_together_and_in_order() -> None:
    with pytest.raises(ValueError, match="belong together"):
        Perplexity(model="m", head=3.0)
    with pytest.raises(ValueError, match="smaller"):
        Perplexity(model="m", head=3.0, tail=2.0)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "kenlm", None)
    with pytest.raises(ModuleNotFoundError, match="pip install kenlm"):
        score.model(Perplexity(model="m"))


def test_texts_like_the_training_text_come_out_lower(tmp_path: Path) -> None:
    pytest.importorskip("kenlm")
    text = "the mill grinds corn by the river\nthe wheel of the mill turns slowly\nthe miller sells flour and corn\n" * 3
    with (tmp_path / "m.arpa").open("w") as out:
        write_arpa(train(sentences(text), 3), out)
    params = Perplexity(model=str(tmp_path / "m.arpa"))
    values = score(rows("The mill turns slowly.", "zebra quantum 9 lines"), params, model=score.model(params))["perplexity"]
    assert values[0].as_py() < values[1].as_py() / 2
