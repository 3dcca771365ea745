import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.analysis import Words, spacy_like_words, token_view
from stages.contract import TEXT
from stages.english_exceptions import exceptions

DATA = Path(__file__).parents[2] / ".." / "shared" / "data" / "dev"


def cut(texts):
    """Tokens of each text."""
    table = spacy_like_words(pa.table({"text": pa.array(texts, TEXT)}), Words())
    tokens, starts = token_view(table["analysis_spacy_like"])
    spans = [(int(token[0]) & (1 << 32) - 1, int(token[0]) >> 32) for token in tokens]
    return [[text.encode()[a:b].decode() for a, b in spans[starts[i] : starts[i + 1]]] for i, text in enumerate(texts)]


@pytest.fixture(scope="module")
def spacy_words():
    spacy = pytest.importorskip("spacy")
    tokenizer = spacy.blank("en").tokenizer
    return lambda text: [token.text.strip() for token in tokenizer(text) if token.text.strip()]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("I can't, he'll", "I ca n't , he 'll"),
        ("Mr. Smith's U.S. car (10km).", "Mr. Smith 's U.S. car ( 10 km ) ."),
        ("well-known end.Next 3.14 a,b x/y", "well - known end . Next 3.14 a , b x / y"),
        ("see www.example.org/a-b, jane@firm.com!", "see www.example.org/a-b , jane@firm.com !"),
        ('"Wait..." — she said… :)', '" Wait ... " — she said … :)'),
        ("(a list): at 20°C. link=”http://a.org/x", "( a list ): at 20 ° C . link=”http://a.org / x"),
        ("$5 5€ US$7 at 10am", "$ 5 5 € US$ 7 at 10 am"),
    ],
)
def test_tokens_are_those_of_spacy(text, tokens, spacy_words):
    assert cut([text]) == [tokens.split()]
    assert spacy_words(text) == tokens.split()


def test_exceptions_are_those_of_spacy():
    listed = pytest.importorskip("spacy.lang.en.tokenizer_exceptions").TOKENIZER_EXCEPTIONS
    theirs = {text: tuple(len(next(iter(part.values()))) for part in parts) for text, parts in listed.items()}
    ours = exceptions()
    assert {text: ours[text] for text in ours if theirs.get(text) != ours[text]} == {}
    assert len(theirs) - len(ours) < 25


pieces = st.sampled_from([
    "can't", "I'm", "don’t", "U.S.", "Mr.", "etc.", "www.a.org", "http://b.com/x?y=1", "3,000", "5km", "$", "€", "-", "—", "...",
    "…", "(", ")", '"', "'", "’s", "'s", ",", ".", "!", "a", "Bc", "D", "7", " ", "  ", "\n", "é", "中文", "+", "/", "=", "%", "@",
])  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(st.lists(pieces, max_size=14).map("".join))
def test_tokens_lose_and_reorder_nothing(text):
    [tokens] = cut([text])
    assert "".join(tokens) == "".join(text.split())
    assert all(tokens)


def test_tokens_of_real_text_are_almost_always_those_of_spacy(spacy_words):
    path = DATA / "quality.jsonl.gz"
    if not path.exists():
        pytest.skip("../shared is absent")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for i, line in enumerate(lines) if i % 40 == 0]
    differing, total = 0, 0
    for text, ours in zip(texts, cut(texts), strict=True):
        theirs = spacy_words(text)
        total += len(theirs)
        differing += abs(len(theirs) - len(ours)) if theirs != ours else 0
    assert differing / total < 0.001
