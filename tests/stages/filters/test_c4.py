import re

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.analysis import Words, token_view, words
from stages.contract import TEXT
from stages.filters.c4 import POLICY, lines, page

FIVE = "One line is here. Two of them now! Are there three? Four it is. Five at last."


def cleaned(texts, **params):
    return lines(pa.table({"text": pa.array(texts, TEXT)}), lines.params(**params)).to_pylist()


def judged(text, **params):
    table = pa.table({"text": pa.array([text], TEXT), "language": pa.array(["en"])})
    return page(words(table, Words()), page.params(**params)).to_pylist()[0]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("A line that ends well.\nno end mark here\r\n  \u2003Another one stays! ", "A line that ends well.\nAnother one stays!"),
        ("Too short.\nThis one is long enough.", "This one is long enough."),
        ("This one trails off...\nThis one does not.", "This one does not."),
        ("As was shown[12] and told[edit] before[citation needed].", "As was shown and told before."),
        ("Please enable JavaScript to go on.\nAll is fine here.", "All is fine here."),
        ("Read our Privacy Policy right now.\nAll is fine here.", "All is fine here."),
        (f"It is {'a' * 1001} of a word.\nAll is fine here.", "All is fine here."),
        ("我们在海边有一座房子。\n首页 新闻", "我们在海边有一座房子。"),
        ("", ""),
    ],
)
def test_lines_that_are_no_prose_go(text, kept):
    assert cleaned([text])[0]["text"] == kept


def test_every_line_rule_can_be_switched_off():
    text = "no end mark\nshort\nuse javascript or cookie policy\n" + "a" * 1001
    kept = cleaned([text], min_words=0, max_word_chars=-1, end_marks="", scripts=[], policy=[])
    assert kept[0]["text"] == text


def test_stats_count_lines_by_the_rule_that_removed_them():
    [row] = cleaned(["One two three.\nno end\nToo short.\nEnable JavaScript now please."], stats=True)
    assert [row[name] for name in ("c4_lines", "c4_no_end_mark", "c4_few_words", "c4_javascript", "c4_kept")] == [4, 1, 1, 1, 1]


def test_a_line_that_condemns_the_page_is_left_for_the_page_rules():
    [row] = cleaned(["Lorem ipsum with javascript inside.\nBrace { and privacy policy here."])
    assert row["text"].count("\n") == 1
    assert judged(row["text"])["drop_reason"] == "placeholder"


def test_every_page_rule_names_its_reason():
    assert judged(FIVE)["drop_reason"] is None
    assert judged("One. Two.")["drop_reason"] == "too_few_sentences"
    assert judged(FIVE + " {")["drop_reason"] == "curly_bracket"
    assert judged(FIVE + " LOREM IPSUM")["drop_reason"] == "placeholder"
    assert judged("One. {", curly_bracket=False, min_sentences=None)["drop_reason"] is None


def test_sentences_are_counted_through_quotes_and_not_inside_names():
    assert judged('He left." “Why?” Nobody knows at example.org about it', stats=True)["c4_sentences"] == 3


alphabet = st.sampled_from(
    ["a", "b c d", " ", ".", "...", "!", "\n", "\r\n", "\u2028", "[1]", "[edit]", "[x", "JavaScript", "{", "。", "é", '"']
)
drawn = st.lists(st.lists(alphabet, max_size=25).map("".join), max_size=4)


def lines_twin(text):
    """C4's line rules with Python's own string methods (English settings)."""
    kept = []
    for line in text.splitlines():
        line = line.strip()
        count = len(line.split())
        line = re.sub(r"\[\d*\]|\[edit\]|\[citation needed\]", "", line)
        if not line.endswith((".", "?", "!", '"', "'")) or line.endswith("...") or count < 3:
            continue
        low = line.lower()
        condemned = "lorem ipsum" in low
        policy = any(phrase in low for phrase in POLICY) and "{" not in line
        if condemned or ("javascript" not in low and not policy):
            kept.append(line)
    return "\n".join(kept).strip()


@settings(deadline=None, max_examples=200)
@given(drawn)
def test_cleaned_lines_equal_their_plain_python_twin(texts):
    assert [row["text"] for row in cleaned(texts, any_script=False)] == [lines_twin(text) for text in texts]


@settings(deadline=None, max_examples=100)
@given(drawn)
def test_sentence_counts_equal_their_plain_python_twin(texts):
    table = words(pa.table({"text": pa.array(texts, TEXT), "language": pa.array(["en"] * len(texts), pa.string())}), Words())
    tokens, starts = token_view(table["analysis"])
    for i, row in enumerate(page(table, page.params(stats=True)).to_pylist()):
        count, ended = 0, True
        for token in tokens[starts[i] : starts[i + 1]]:
            flags = int(token[1]) >> 32
            begins = flags & 32 or (ended and flags & 16 and not flags & 12)
            count, ended = (count + 1, False) if begins else (count, ended)
            ended = ended or bool(flags & 8)
        assert row["c4_sentences"] == count
