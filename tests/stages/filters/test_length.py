import pyarrow as pa

from stages.analysis import Words, spacy_like_words, words
from stages.contract import TEXT
from stages.filters.length import by_words


def judged(texts, provider=words, **params):
    table = pa.table({"text": pa.array(texts, TEXT), "language": pa.array([None] * len(texts), pa.string())})
    return by_words(provider(table, Words()), by_words.params(**params)).to_pylist()


def test_words_are_counted_without_symbols():
    rows = judged(["one, two -- three!", "我爱你", "", None], stats=True, min_words=3)
    assert [row["words"] for row in rows] == [3, 3, 0, 0]
    assert [row["drop_reason"] for row in rows] == [None, None, "too_few_words", "too_few_words"]


def test_both_limits_have_a_reason_and_can_be_switched_off():
    assert judged(["a b c"], min_words=None, max_words=2)[0]["drop_reason"] == "too_many_words"
    assert judged(["a b c"], min_words=None, max_words=None)[0]["drop_reason"] is None


def test_words_can_be_those_of_the_spacy_like_splitter():
    assert judged(["I can't, 我爱你"], spacy_like_words, words="spacy_like", stats=True)[0]["words"] == 4


def test_the_columns_read_follow_the_splitter():
    assert "analysis" in by_words.reads_of(by_words.params())
    assert "analysis_spacy_like" in by_words.reads_of(by_words.params(words="spacy_like"))
