import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages import characters as ch
from stages.analysis import Words, words
from stages.contract import TEXT
from stages.filters.gopher import quality

PROSE = "The wooden house that we have bought stands beside the sea and to be there with friends is a great joy. "


def judged(texts, stage=quality, language="en", **params):
    """The stage's rows for these texts."""
    table = pa.table({"text": pa.array(texts, TEXT), "language": pa.array([language] * len(texts), pa.string())})
    return stage(words(table, Words()), stage.params(**params)).to_pylist()


def reason(text, **params):
    return judged([text], **params)[0]["drop_reason"]


CASES = [
    (PROSE * 5, None),
    (PROSE * 2, "too_few_words"),
    ("to be of a " * 20, "mean_word_too_short"),
    ("electroencephalographically speaking " * 30, "mean_word_too_long"),
    (PROSE * 5 + "#tag " * 20, "too_many_hashes"),
    (PROSE * 5 + "so … " * 30, "too_many_ellipses"),
    (f"- {PROSE}\n" * 10, "too_many_bullet_lines"),
    (f"\u2003• {PROSE}\r\n" * 10, "too_many_bullet_lines"),
    (f"{PROSE}...  \n{PROSE}\n" * 10, "too_many_ellipsis_lines"),
    ((PROSE + " 1999 " * 20) * 10, "too_few_letter_words"),
    ("Sie gingen gestern ohne Eile durch unseren alten Garten. " * 10, "too_few_stop_words"),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_every_quality_rule_names_its_reason(text, expected):
    assert reason(text) == expected


@pytest.mark.parametrize(("text", "expected"), [case for case in CASES if case[1]])
def test_every_quality_rule_can_be_switched_off(text, expected):
    assert reason(text, skip={expected: ["*"]}) != expected


def test_a_limit_of_null_switches_a_rule_off():
    assert reason("too short", min_words=None, min_stop_words=None) is None


def test_stop_words_are_asked_of_languages_with_a_list_only():
    german = "Sie gingen gestern ohne Eile durch unseren alten Garten. " * 10
    assert reason(german, language="de") is None
    assert reason(german, language="de", stop_words={"*": ["the", "and"]}) == "too_few_stop_words"
    assert reason(german, language="de-AT", stop_words={"de": ["durch", "ohne"]}) is None
    assert reason(german, language=None) == "too_few_stop_words"


def test_word_length_is_not_asked_of_languages_without_spaces():
    assert reason("我们在海边有一座房子" * 10, language="zh") is None
    assert reason("我们在海边有一座房子" * 10, language="zh", skip={}) == "mean_word_too_short"


def test_an_unknown_reason_in_skip_is_refused_by_name():
    with pytest.raises(ValueError, match="too_smal"):
        reason("x", skip={"too_smal": ["*"]})


def test_stats_are_written_on_request_only():
    [row] = judged([PROSE * 5], stats=True)
    assert (row["gopher_words"], row["gopher_stop_words"], row["gopher_bullet_lines"]) == (105, 7, 0)
    assert "gopher_words" not in judged([PROSE])[0]


texts = st.lists(st.text(st.sampled_from("the of-•…. \n\r\u2028\u2003\x85\xa0#1a中"), max_size=80), max_size=5)


def quality_twin(text, tokens):
    """The Gopher counts of one text from its tokens, with Python's own string methods."""
    lines = text.splitlines()
    solid = [token for token in tokens if any(not ch.class_of(ord(char)) & ch.MARKS for char in token)]

    def share(part, whole):
        return part / whole if whole else 0.0

    return {
        "gopher_words": len(solid),
        "gopher_mean_word": share(sum(map(len, solid)), len(solid)),
        "gopher_hashes": share(text.count("#"), len(tokens)),
        "gopher_ellipses": share(text.count("...") + text.count("…"), len(tokens)),
        "gopher_bullet_lines": share(sum(line.lstrip().startswith(("•", "-")) for line in lines), len(lines)),
        "gopher_ellipsis_lines": share(sum(line.rstrip().endswith(("...", "…")) for line in lines), len(lines)),
        "gopher_letter_words": share(sum(any(map(str.isalpha, token)) for token in tokens), len(tokens)),
        "gopher_stop_words": len(set(tokens) & {"the", "of", "a"}),
    }


@settings(deadline=None, max_examples=150)
@given(texts)
def test_quality_counts_equal_their_plain_python_twin(texts):
    from stages.analysis import token_view

    table = words(pa.table({"text": pa.array(texts, TEXT), "language": pa.array(["en"] * len(texts), pa.string())}), Words())
    tokens, starts = token_view(table["analysis"])
    rows = quality(table, quality.params(stats=True, stop_words={"en": ["the", "of", "a"]})).to_pylist()
    for i, (text, row) in enumerate(zip(texts, rows, strict=True)):
        spans = [(int(token[0]) & (1 << 32) - 1, int(token[0]) >> 32) for token in tokens[starts[i] : starts[i + 1]]]
        expected = quality_twin(text, [text.encode()[a:b].decode() for a, b in spans])
        assert {name: row[name] for name in expected} == pytest.approx(expected)
