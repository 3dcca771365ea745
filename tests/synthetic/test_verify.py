import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthetic.verify import Rewrite, measure, rewrites

SOURCE = (
    "The Nile is the longest river in Africa. It flows north through 11 countries and ends in the Mediterranean Sea. "
    "Ancient Egypt depended on its yearly floods, and in 1970 the Aswan High Dam ended them for good."
)
GOOD = (
    "Africa's longest river, the Nile, runs north through 11 countries to the Mediterranean Sea. Its yearly floods fed ancient Egypt "
    "until the Aswan High Dam stopped them in 1970."
)


def reason(text: str, source: str = SOURCE, language: str | None = None, **limits: object) -> str | None:
    params = Rewrite.model_validate(limits)
    columns = {"text": pa.array([text], pa.large_string()), "source_text": pa.array([source], pa.large_string())}
    if params.languages:
        columns["language"] = pa.array([language], pa.string())
    return rewrites.run(pa.table(columns), params)["drop_reason"][0].as_py()


def test_a_faithful_rewrite_stands():
    assert reason(GOOD) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("I'm sorry, I cannot rewrite this.", "refusal"),
        ("Sure, here is the passage: " + GOOD, "preamble"),
        (GOOD + " This passage was shortened.", "commentary"),
        ("The Nile floods.", "too_short"),
        (GOOD * 5, "too_long"),
        ("the river is long and wide " * 8, "repetition"),
        (SOURCE, "copy"),
        ("Bakers let dough rest overnight because yeast needs time before bread develops flavour and texture.", "unrelated"),
        (GOOD.replace("1970", "1952"), "invented_number"),
        (GOOD.replace("Aswan High Dam", "famous Hoover Dam of Nevada"), "invented_name"),
    ],
)
def test_each_fault_has_its_reason(text, why):
    assert reason(text) == why


def test_numbers_lost_and_languages_are_asked_only_where_wanted():
    assert reason(GOOD.replace("11 countries", "many countries"), min_numbers_kept=1.0) == "lost_numbers"
    assert reason(GOOD, languages=["en"], language="en") is None
    assert reason(GOOD, languages=["en"], language="de") == "language"


def test_pairs_behind_a_passage_are_measured_alone():
    pairs = "\n\nQuestion: Which dam ended the yearly floods of the Nile?\nAnswer: The Aswan High Dam ended the floods in 1970."
    assert measure(SOURCE + pairs, SOURCE)["copy_rate"] < 0.9
    assert reason(SOURCE + pairs) is None
    assert reason(SOURCE + pairs.replace("1970", "1971")) == "invented_number"
    assert reason(SOURCE + pairs.replace("Which dam", "By the passage, which dam")) is None, "it stands above"


def test_commentary_may_be_wanted():
    assert reason(GOOD + " This passage was shortened.", commentary=True) is None


@given(st.text(max_size=80), st.text(max_size=80))
def test_measures_of_any_two_texts_are_shares(text, source):
    measured = measure(text, source)
    assert all(0 <= value <= 1 for name, value in measured.items() if name != "length_ratio")
