"""Faster engines: the same tokens, or none of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mistral_common
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages import engines
from stages.contract import Unusable
from stages.tokenizers import Tokenizer, Vocabulary, open_tokenizer

DATA = Path(mistral_common.__file__).parent / "data"
SENTENCEPIECE = str(DATA / "mistral_instruct_tokenizer_240323.model.v3")


@pytest.fixture(scope="module")
def tekken() -> tuple[Tokenizer, Tokenizer]:
    return open_tokenizer(Vocabulary()), open_tokenizer(Vocabulary(engine="reference"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer as Fast
    from tokenizers import models, pre_tokenizers, trainers

    fast = Fast(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    fast.train_from_iterator(engines.PROBES * 3, trainer)
    path = tmp_path_factory.mktemp("trained") / "tokenizer.json"
    fast.save(str(path))
    return path


def same(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> bool:
    return all(x.dtype == y.dtype == np.int32 and np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@settings(max_examples=150)
@given(st.lists(st.text(max_size=200), max_size=5))
def test_the_default_vocabulary_has_an_engine_that_gives_its_tokens(tekken: tuple[Tokenizer, Tokenizer], texts: list[str]) -> None:
    auto, reference = tekken
    assert auto.fast is not None
    assert reference.fast is None
    assert same(auto.encode(texts), reference.encode(texts))


@settings(max_examples=100)
@given(st.lists(st.none() | st.text(max_size=50), max_size=8), st.integers(0, 3))
def test_a_column_has_the_tokens_of_its_texts(tekken: tuple[Tokenizer, Tokenizer], texts: list[str | None], skipped: int) -> None:
    column = pa.chunked_array([pa.array(texts[:2], pa.large_string()), pa.array(texts[2:], pa.large_string())]).slice(skipped)
    expected = [tekken[1].encode([text])[0] if text else np.empty(0, np.int32) for text in texts[skipped:]]
    for one in tekken:
        flat, counts = one.flat(column)
        assert counts.tolist() == [len(ids) for ids in expected]
        assert flat.tolist() == [int(token) for ids in expected for token in ids]


def test_a_column_with_a_page_of_nothing_but_spaces_is_left_to_the_reference(tekken: tuple[Tokenizer, Tokenizer]) -> None:
    column = pa.chunked_array([pa.array(["mill", " " * engines.BLANK + "end", "x" * engines.BLANK], pa.large_string())])
    (flat, counts), (expected, lengths) = (one.flat(column) for one in tekken)
    assert flat.tolist() == expected.tolist()
    assert counts.tolist() == lengths.tolist()


def test_a_trained_vocabulary_has_one_and_special_tokens_stay_text(trained: Path) -> None:
    auto, reference = (open_tokenizer(Vocabulary(tokenizer=str(trained), engine=e)) for e in ("auto", "reference"))
    assert auto.fast is not None
    texts = ["ends <|endoftext|> here", "", "mill " * 1000]
    assert same(auto.encode(texts), reference.encode(texts))
    assert auto.eod not in auto.encode(texts)[0].tolist()


def test_a_sentencepiece_vocabulary_has_one_and_control_pieces_stay_text() -> None:
    pytest.importorskip("sentencepiece")
    auto, reference = (open_tokenizer(Vocabulary(tokenizer=SENTENCEPIECE, engine=e)) for e in ("auto", "reference"))
    assert auto.fast is not None
    texts = ["a </s> b", "plain", "[INST] x", ""]
    assert same(auto.encode(texts), reference.encode(texts))


def test_a_vocabulary_that_the_engine_refuses_is_read_by_its_own_library(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Fast
    from tokenizers import models, pre_tokenizers

    fast = Fast(models.WordLevel({"mill": 0, "?": 1, "</s>": 2}, unk_token="?"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    fast.save(str(tmp_path / "tokenizer.json"))
    opened = open_tokenizer(Vocabulary(tokenizer=str(tmp_path / "tokenizer.json")))
    assert opened.fast is None
    assert [ids.tolist() for ids in opened.encode(["mill stone"])] == [[0, 1]]


def test_a_page_of_nothing_but_spaces_is_left_to_the_reference(tekken: tuple[Tokenizer, Tokenizer]) -> None:
    texts = ["mill", " " * engines.BLANK + "end", " " * (engines.BLANK - 1) + "end", "x" * engines.BLANK]
    assert same(tekken[0].encode(texts), tekken[1].encode(texts))


def characters(texts: Sequence[str]) -> list[np.ndarray]:
    return [np.array([ord(c) for c in text], np.int32) for text in texts]


def test_an_engine_that_differs_on_a_probe_or_breaks_is_not_taken() -> None:
    def upper(texts: Sequence[str]) -> list[np.ndarray]:
        return characters([text.upper() for text in texts])

    def broken(texts: Sequence[str]) -> list[np.ndarray]:
        raise RuntimeError("no such byte")

    assert engines.proved(upper, characters) is None
    assert engines.proved(broken, characters) is None
    assert engines.proved(None, characters) is None


def test_an_engine_that_differs_later_stops_the_step() -> None:
    def forgetful(texts: Sequence[str]) -> list[np.ndarray]:
        return characters([text.replace("grist", "") for text in texts])

    for place in (0, engines.FIRST - 1, 2 * engines.EVERY):
        encode = engines.proved(forgetful, characters)
        assert encode is not None
        texts = ["mill"] * 3 * engines.EVERY
        texts[place] = "gristmill"
        for start in range(0, place - 99, 100):
            encode(texts[start : start + 100])
        with pytest.raises(Unusable, match="begins 'gristmill'; set engine: reference"):
            encode(texts[place // 100 * 100 : place // 100 * 100 + 100])


def test_an_engine_that_differs_on_a_column_stops_the_step() -> None:
    class Forgetful:
        """Right on lists, wrong on columns."""

        def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
            return characters(texts)

        def column(self, texts: pa.LargeStringArray) -> engines.Flat:
            found = characters([text.replace("grist", "") for text in texts.to_pylist()])
            return np.concatenate(found), np.array([len(ids) for ids in found])

    watched = engines.proved(Forgetful(), characters)
    assert watched is not None
    found = watched.column(pa.array(["mill"] * engines.FIRST + ["gristmill"], pa.large_string()))
    assert found is not None
    assert found[1].tolist() == [4] * (engines.FIRST + 1)
    with pytest.raises(Unusable, match="begins 'gristmill'; set engine: reference"):
        watched.column(pa.array(["gristmill"] * engines.EVERY, pa.large_string()))


def test_ids_beyond_31_bits_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tiktoken"
    path.write_bytes(b"YQ== 0\n")
    with pytest.raises(ValueError, match="have to fit into 31 bits"):
        open_tokenizer(Vocabulary(tokenizer=str(path), pattern=".", specials={"<|endoftext|>": 2**31}))
