import base64
from pathlib import Path

import numpy as np
import orjson
import pytest

from stages.tokenizers import Tokenizer, Vocabulary, open_tokenizer, special

TEXTS = ["The mill grinds slowly.", "", "Żółta łódź\n\n  x = 1", "ends </s> here <|endoftext|>", "水车"]


@pytest.fixture(scope="module")
def tekken() -> Tokenizer:
    return open_tokenizer(Vocabulary())


@pytest.fixture(scope="module")
def hugging(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer as Fast
    from tokenizers import decoders, models, pre_tokenizers, trainers

    fast = Fast(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    fast.train_from_iterator(
        TEXTS * 3, trainers.BpeTrainer(vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet)
    )
    fast.enable_truncation(4)
    fast.enable_padding(length=64)
    path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.json"
    fast.save(str(path))
    return path


def test_tekken_gives_what_mistrals_own_tokenizer_gives(tekken: Tokenizer) -> None:
    import mistral_common
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    own = Tekkenizer.from_file(Path(mistral_common.__file__).parent / "data" / "tekken_240911.json")
    texts = [t for t in TEXTS if "<" not in t]
    assert [ids.tolist() for ids in tekken.encode(texts)] == [own.encode(t, bos=False, eos=False) for t in texts]
    assert (tekken.vocab_size, tekken.eod, tekken.bos) == (own.n_words, own.eos_id, own.bos_id)
    assert all(ids.dtype == np.int32 for ids in tekken.encode(TEXTS))


def test_special_tokens_spelled_out_in_a_text_stay_text(tekken: Tokenizer, hugging: Path) -> None:
    for tokenizer in (tekken, open_tokenizer(Vocabulary(tokenizer=str(hugging)))):
        (ids,) = tokenizer.encode([TEXTS[3]])
        assert tokenizer.eod not in ids.tolist()


def test_a_page_of_nothing_but_spaces_does_not_stop_a_shard(tekken: Tokenizer) -> None:
    few, many = (int(sum(len(ids) for ids in tekken.encode([" " * n + "end"]))) for n in (10_000, 1_000_000))
    assert 90 * few < many < 110 * few


def test_a_hugging_face_file_is_neither_cut_nor_padded(hugging: Path) -> None:
    tokenizer = open_tokenizer(Vocabulary(tokenizer=str(hugging)))
    (long, empty) = tokenizer.encode(["the mill " * 50, ""])
    assert len(long) > 64
    assert len(empty) == 0
    assert tokenizer.vocab_size == 300
    assert tokenizer.eod == 0
    assert tokenizer.bos is None


def test_a_missing_mark_is_an_error_that_names_the_way_out(hugging: Path) -> None:
    params = Vocabulary(tokenizer=str(hugging))
    with pytest.raises(ValueError, match="bos_token"):
        special(params, "bos", open_tokenizer(params))
    with pytest.raises(ValueError, match="no token '<end>'"):
        open_tokenizer(Vocabulary(tokenizer=str(hugging), eod_token="<end>"))


def test_tiktoken_files_need_a_pattern(tmp_path: Path) -> None:
    path = tmp_path / "bytes.tiktoken"
    path.write_bytes(b"".join(base64.b64encode(bytes([b])) + b" %d\n" % b for b in range(256)))
    with pytest.raises(ValueError, match="pattern"):
        open_tokenizer(Vocabulary(tokenizer=str(path)))
    tokenizer = open_tokenizer(Vocabulary(tokenizer=str(path), pattern=r"\S+|\s+", specials={"<|endoftext|>": 256}))
    assert tokenizer.encode(["ab é"])[0].tolist() == list("ab é".encode())
    assert (tokenizer.vocab_size, tokenizer.eod) == (257, 256)


def test_files_that_are_no_vocabulary_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_bytes(orjson.dumps({"a": 1}))
    with pytest.raises(ValueError, match="neither"):
        open_tokenizer(Vocabulary(tokenizer=str(path)))


def test_sentencepiece_vocabularies_open_when_the_library_is_there() -> None:
    pytest.importorskip("sentencepiece")
    import mistral_common

    path = Path(mistral_common.__file__).parent / "data" / "mistral_instruct_tokenizer_240323.model.v3"
    tokenizer = open_tokenizer(Vocabulary(tokenizer=str(path)))
    assert (tokenizer.vocab_size, tokenizer.bos, tokenizer.eod) == (32768, 1, 2)
    assert [len(ids) > 0 for ids in tokenizer.encode(["mill", ""])] == [True, False]


def test_without_sentencepiece_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sentencepiece", None)
    with pytest.raises(ValueError, match="install sentencepiece"):
        open_tokenizer(Vocabulary(tokenizer=str(tmp_path / "a.model")))
