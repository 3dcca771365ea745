import re
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages import characters as ch
from stages.analysis import Words, token_view, words
from stages.contract import TEXT
from stages.filters.gopher import quality, repetition

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


def test_symbols_count_as_words_only_when_asked():
    text = "Ships came, people looked, nobody spoke; and that was everything: silence, (and) the waves, again. " * 6
    assert reason(text) is None
    assert reason(text, symbols_count=True) == "too_few_letter_words"


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
    table = words(pa.table({"text": pa.array(texts, TEXT), "language": pa.array(["en"] * len(texts), pa.string())}), Words())
    tokens, starts = token_view(table["analysis"])
    rows = quality(table, quality.params(stats=True, stop_words={"en": ["the", "of", "a"]}, symbols_count=True)).to_pylist()
    for i, (text, row) in enumerate(zip(texts, rows, strict=True)):
        spans = [(int(token[0]) & (1 << 32) - 1, int(token[0]) >> 32) for token in tokens[starts[i] : starts[i + 1]]]
        expected = quality_twin(text, [text.encode()[a:b].decode() for a, b in spans])
        assert {name: row[name] for name in expected} == pytest.approx(expected)


def repeated(text, **params):
    return judged([text], repetition, **params)[0]["drop_reason"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("".join(f"{i}word {i * 7}part{i}, of {i * 13}.\n" for i in range(30)), None),
        ("", "empty"),
        ("one more time\n\n" * 3 + "and then the end of it all", "dup_paragraphs"),
        ("a\n\nb\n\nc\n\n" + "x" * 90 + "\n\n" + "x" * 90, "dup_paragraph_chars"),
        ("a\nb\na\nb\nquite another line of text that is long", "dup_lines"),
        ("a\nb\nc\n" + "x" * 90 + "\n" + "x" * 90, "dup_line_chars"),
        ("so it goes one so it two so it three so it four so it five", "top_2_gram"),
    ],
)
def test_every_repetition_rule_names_its_reason(text, expected):
    assert repeated(text) == expected


def test_longer_repeated_phrases_are_named_by_the_first_n_that_is_over_its_limit():
    phrase = "the quick brown fox jumps over my lazy dog today"
    filler = " ".join(f"word{i} thing{i}" for i in range(40))
    text = f"{phrase} {filler[:120]} {phrase} {filler[120:240]} {phrase}"
    assert repeated(text) == "dup_5_grams"
    assert repeated(text, dup_grams={}) is None


def test_short_grams_are_not_asked_of_languages_without_spaces():
    text = "".join(f"我们在海边{chr(0x4E00 + 40 * i)}" for i in range(40))
    rules = {"top_grams": {}, "language": "zh"}
    assert repeated(text, **rules) is None
    assert repeated(text, skip={}, **rules) == "dup_5_grams"


def part_shares(parts):
    """Shares of parts and characters that stood before."""
    seen, count, chars = set(), 0, 0
    for part in parts:
        if part in seen:
            count, chars = count + 1, chars + len(part)
        seen.add(part)
    return count / len(parts), chars


def gram_twin(tokens, n):
    """Characters in the most frequent n-gram, and in n-grams that stood before."""
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    if not grams:
        return 0, 0
    best, count = Counter(grams).most_common(1)[0]
    seen, chars, i = set(), 0, 0
    while i < len(grams):
        if grams[i] in seen:
            chars += sum(map(len, grams[i]))
            i += n
        else:
            seen.add(grams[i])
            i += 1
    return count * len(" ".join(best)), chars


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.lists(st.sampled_from(["a", "bé", "c", " ", " ", "\n", "\n\n", "!", "\u3000"]), max_size=60).map("".join), max_size=4
    )
)
def test_repetition_shares_equal_their_plain_python_twin(texts):
    table = words(pa.table({"text": pa.array(texts, TEXT), "language": pa.array(["en"] * len(texts), pa.string())}), Words())
    tokens, starts = token_view(table["analysis"])
    sizes = {2: 0.2, 3: 0.2, 5: 0.2}
    rows = repetition(table, repetition.params(stats=True, top_grams=sizes, dup_grams=sizes)).to_pylist()
    for i, (text, row) in enumerate(zip(texts, rows, strict=True)):
        if not text:
            continue
        data = text.encode()
        cut = [data[int(t[0]) & (1 << 32) - 1 : int(t[0]) >> 32].decode() for t in tokens[starts[i] : starts[i + 1]]]
        paragraphs, paragraph_chars = part_shares(re.split("\n{2,}", text.strip()))
        lines, line_chars = part_shares(re.split("\n+", text))
        expected = {"gopher_dup_paragraphs": paragraphs, "gopher_dup_paragraph_chars": paragraph_chars / len(text)}
        expected |= {"gopher_dup_lines": lines, "gopher_dup_line_chars": line_chars / len(text)}
        for n in sizes:
            top, dup = gram_twin(cut, n)
            expected |= {f"gopher_top_{n}_gram": top / len(text), f"gopher_dup_{n}_grams": dup / len(text)}
        assert {name: row[name] for name in expected} == pytest.approx(expected)
