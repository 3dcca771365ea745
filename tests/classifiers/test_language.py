import numpy as np
import pyarrow as pa
import pytest

from classifiers.language import Language, identify
from stages.contract import TEXT

TEXTS = [
    "The quick brown fox jumps over the lazy dog,\nand the miller looks on from his window.",
    "Der schnelle braune Fuchs springt über den faulen Hund, und der Müller schaut zu.",
    "Быстрая коричневая лиса прыгает через ленивую собаку.",
    "  \n\t ",
    None,
    "这座磨坊位于河边，已经有两百多年的历史，村里的人们至今仍然在这里磨面粉。",
]


@pytest.fixture(scope="module")
def model() -> object:
    return identify.model(Language())


def rows(texts: list[str | None]) -> pa.Table:
    return pa.table({"text": pa.array(texts, TEXT)})


def test_names_languages_and_gives_empty_rows_a_reason(model: object) -> None:
    out = identify(rows(TEXTS), Language(), model=model)
    assert out["language"].to_pylist() == ["en", "de", "ru", None, None, "zh"]
    assert out["drop_reason"].to_pylist() == [None, None, None, "no_text", "no_text", None]
    scores = out["language_score"].to_pylist()
    assert scores[3] is None
    assert all(0.3 <= s <= 1 for s in scores if s is not None)
    assert {f.name: f.type for f in out.schema} == identify.writes_of(Language())


def test_drops_other_languages_and_unsure_guesses(model: object) -> None:
    out = identify(rows(TEXTS[:3]), Language(keep=("en", "de")), model=model)
    assert out["drop_reason"].to_pylist() == [None, None, "language_not_kept"]
    out = identify(rows(["qzx 77 vv 1"]), Language(min_score=0.9), model=model)
    assert out["drop_reason"].to_pylist() == ["language_score_low"]


def test_result_does_not_depend_on_the_batch(model: object) -> None:
    whole = identify(rows(TEXTS), Language(), model=model)
    parts = pa.concat_tables(identify(rows([t]), Language(), model=model) for t in TEXTS)
    assert whole.combine_chunks().equals(parts.combine_chunks())
    assert identify(rows([]), Language(), model=model).num_rows == 0


def test_scores_have_four_decimals_and_only_the_prefix_counts(model: object) -> None:
    long = TEXTS[0] + " " + TEXTS[2] * 40
    out = identify(rows([long, long]), Language(max_chars=len(TEXTS[0])), model=model)
    assert out["language"].to_pylist() == ["en", "en"]
    assert identify(rows([long]), Language(max_chars=0), model=model)["language"].to_pylist() == ["ru"]
    score = out["language_score"].to_numpy()
    assert (score == np.round(score.astype(np.float64), 4).astype(np.float32)).all()


def test_wikipedia_prefixes_become_iso_codes(model: object) -> None:
    alemannic = "D Schwiiz isch es Land i de Mitti vo Europa, und s git det vill Bärg und schöni Seeä, wo mer cha bade gah."
    assert identify(rows([alemannic]), Language(), model=model)["language"].to_pylist() == ["gsw"]


def test_loading_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    identify.model(Language())
    assert capfd.readouterr() == ("", "")
