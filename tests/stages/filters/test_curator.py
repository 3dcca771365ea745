import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.analysis import Words, words
from stages.contract import TEXT
from stages.filters.curator import english

LINES = [
    "The wooden house that we have bought stands beside the sea.",
    "Friends come to visit us in the summer and bring their children with them.",
    "When winter arrives, the garden lies under a thin cover of snow.",
    "Nobody remembers who planted those old apple trees along the wall.",
    "Our neighbour says it was a captain from the north, long before her time.",
    "Every autumn we gather what falls and press it into sweet cider.",
]
GOOD = "\n\n".join(LINES)
SHIPS = "Ships sailed past harbours, carrying spices.\n" + "\n".join(f"Crew{chr(97 + i)} sang loudly{i}." for i in range(26))


def judged(text, language="en", **params):
    table = pa.table({"text": pa.array([text], TEXT), "language": pa.array([language])})
    return english(words(table, Words()), english.params(**params)).to_pylist()[0]


CASES = [
    (GOOD, None),
    (GOOD + " ¶§" * 100, "too_many_other_chars"),
    (GOOD + " and # so" * 20, "too_many_symbols"),
    (GOOD + " 1984" * 30, "too_many_digits"),
    (GOOD + "\nSee https://example.org/" + "path" * 30 + ".", "too_many_url_chars"),
    (GOOD.replace(" ", "   "), "too_many_spaces"),
    (GOOD + "()" * 40, "too_many_brackets"),
    (GOOD + "\n\nRead our Privacy Policy.", "boilerplate"),
    ("\n".join(LINES[:3] * 2), "repeated_lines"),
    (LINES[0], "too_few_words"),
    (GOOD.replace(".", ""), "too_many_open_lines"),
    (GOOD + " 7" * 40, "too_few_letter_words"),
    (SHIPS, "too_few_common_words"),
    (GOOD + " " + "x" * 1001, "mean_word_too_long"),
    (GOOD * 20 + " " + "x" * 1001, "repeated_lines"),
    ("\n\n".join(line + ".." if i < 3 else line for i, line in enumerate(LINES)), "too_many_ellipsis_lines"),
    ("\n\n".join("- " + line for line in LINES), "too_many_bullet_lines"),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_every_rule_names_its_reason_in_the_order_of_the_cascade(text, expected):
    assert judged(text)["drop_reason"] == expected


@pytest.mark.parametrize(("text", "expected"), [case for case in CASES if case[1]])
def test_every_rule_can_be_switched_off(text, expected):
    assert judged(text, skip={expected: ["*"]})["drop_reason"] != expected


def test_a_word_too_long_is_named_where_the_mean_allows_it():
    assert judged(GOOD + " " + "x" * 1001, max_mean_word=None)["drop_reason"] == "word_too_long"


def test_a_mean_word_too_short_is_named_where_so_much_white_space_is_allowed():
    text = "\n".join(f"{chr(97 + i)} the {chr(99 + i % 20)}{chr(97 + i)} to be of a." for i in range(20))
    assert judged(text, max_spaces=None)["drop_reason"] == "mean_word_too_short"


def test_boilerplate_in_the_middle_counts_by_share_only():
    text = "\n\n".join([*LINES[:3], "Read our Privacy Policy.", *LINES[3:]])
    assert judged(text)["drop_reason"] is None
    assert judged(text, max_boilerplate=0.1)["drop_reason"] == "boilerplate"


def test_other_languages_stand_unless_named():
    assert judged(LINES[0], "de")["drop_reason"] is None
    assert judged(LINES[0], "de", languages=["de", "en"])["drop_reason"] == "too_few_words"


def test_stats_are_those_of_words_between_white_space():
    row = judged("One two-three, don't!\nwww.a.bc/d (x) 42", stats=True)
    assert row["curator_words"] == 6
    assert row["curator_longest_word"] == 10
    assert row["curator_url_chars"] == pytest.approx(10 / 39)
    assert row["curator_brackets"] == pytest.approx(2 / 39)


@settings(deadline=None, max_examples=150)
@given(st.text(st.sampled_from("ab1é中.-()#\u3000 \n!"), max_size=80))
def test_character_and_word_counts_equal_their_plain_python_twin(text):
    row = judged(text, stats=True)
    split, size = text.split(), max(len(text), 1)
    expected = {
        "curator_other_chars": sum(not char.isalnum() and not char.isspace() for char in text) / size,
        "curator_digits": sum(char.isdecimal() for char in text) / size,
        "curator_spaces": sum(char.isspace() for char in text) / size,
        "curator_brackets": (text.count("(") + text.count(")")) / size,
        "curator_words": len(split),
        "curator_longest_word": max(map(len, split), default=0),
        "curator_mean_word": sum(map(len, split)) / len(split) if split else 0,
        "curator_letter_words": sum(any(map(str.isalpha, word)) for word in split) / len(split) if split else 0,
    }
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    expected["curator_open_lines"] = sum(not line.endswith((".", "!")) for line in lines) / len(lines) if lines else 0
    assert {name: row[name] for name in expected} == pytest.approx(expected)
