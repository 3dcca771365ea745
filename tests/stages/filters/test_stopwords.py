import gzip
import json
from collections import defaultdict
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.analysis import Words, words
from stages.contract import TEXT
from stages.filters.stopwords import LISTS, per_language

DATA = Path(__file__).parents[3] / ".." / "shared" / "data" / "dev"


def judged(texts, languages, **params):
    table = pa.table({"text": pa.array(texts, TEXT), "language": pa.array(languages, pa.string())})
    return per_language(words(table, Words()), per_language.params(**params)).to_pylist()


def test_prose_stands_and_a_list_of_tags_goes_in_several_languages():
    english = "The house by the sea is where we have been for most of the year, and it was not for sale. It is ours."
    german = "Das Haus am Meer ist der Ort, an dem wir die meiste Zeit des Jahres sind, und es war nie zu verkaufen. Es ist schön."
    tags = "shoes boots sandals heels trainers slippers laces polish leather suede canvas rubber soles insoles sizes colours " * 2
    rows = judged([english, german, tags, tags], ["en", "de-AT", "en", "de"])
    assert [row["drop_reason"] for row in rows] == [None, None, "too_few_stop_words", "too_few_stop_words"]


def test_short_documents_and_languages_without_a_list_are_not_judged():
    rows = judged(["tag soup " * 5, "tag soup " * 50], ["en", "xx"], stats=True)
    assert [row["drop_reason"] for row in rows] == [None, None]
    assert rows[1]["stop_word_share"] != rows[1]["stop_word_share"]


def test_lists_and_limits_can_be_replaced():
    text = "tag soup " * 50
    assert judged([text], ["xx"], more={"xx": ["soup"]})[0]["drop_reason"] is None
    assert judged([text], ["xx"], more={"xx": ["soup"]}, min_shares={"xx": 0.6})[0]["drop_reason"] == "too_few_stop_words"


def test_at_least_nineteen_languages_have_a_list_of_lower_cased_words():
    assert len(LISTS) >= 19
    assert all(word == word.lower() for listed in LISTS.values() for word in listed)


vocabulary = st.sampled_from(["the", "The", "of", "sea", "!", "...", "und", "和"])


@settings(deadline=None, max_examples=100)
@given(st.lists(st.lists(vocabulary, max_size=30), min_size=1, max_size=5), st.sampled_from(["en", "de", "zh"]))
def test_shares_equal_their_plain_python_twin(documents, language):
    rows = judged([" ".join(document) for document in documents], [language] * len(documents), stats=True)
    for document, row in zip(documents, rows, strict=True):
        solid = [word for word in document if word not in ("!", "...")]
        expected = sum(word.lower() in LISTS[language] for word in solid) / len(solid) if solid else 0
        assert row["stop_word_share"] == pytest.approx(expected)


def test_news_passages_stand_in_nearly_all_languages():
    path = DATA / "langid.jsonl.gz"
    if not path.exists():
        pytest.skip("../shared is absent")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if row["source"] == "NTREX-128" and row["lang"] in LISTS]
    found = defaultdict(list)
    for row in judged([row["text"] for row in rows], [row["lang"] for row in rows]):
        found[row["language"]].append(row["drop_reason"] is not None)
    dropped = {language: sum(listed) / len(listed) for language, listed in found.items()}
    assert len(dropped) >= 19
    assert max(dropped.values()) <= 0.12, dropped
    assert sum(dropped.values()) / len(dropped) <= 0.03, dropped
