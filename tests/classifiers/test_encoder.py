"""A tiny model written in the published format, by path: transformers and ONNX agree with a plain forward pass of each text."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from classifiers.encoder import BATCH, Encoder, score
from stages.contract import TEXT, Unusable

WORDS = "[PAD] [UNK] [CLS] [SEP] the mill grinds corn by river buy now cheap deal".split()  # noqa: SIM905
TEXTS = ["the mill grinds corn by the river " * n for n in (1, 3, 9)] + [
    "buy now",
    "cheap deal buy now the corn",
    "never seen words",
]


def tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    made.save(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Folders with one output (regression) and with three (classes)."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    found = {}
    for outputs in (1, 3):
        torch.manual_seed(outputs)
        config = transformers.BertConfig(
            vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=37,
            max_position_embeddings=80, num_labels=outputs, initializer_range=0.8,
        )  # fmt: skip
        if outputs == 3:
            config.id2label = {0: "poor", 1: "fair", 2: "good"}
            config.label2id = {"poor": 0, "fair": 1, "good": 2}
        model = transformers.BertForSequenceClassification(config).eval()
        found[outputs] = tmp_path_factory.mktemp(f"model{outputs}")
        model.save_pretrained(found[outputs])
        tokenizer(found[outputs])
    return found


def scored(texts: list[str | None], **params: Any) -> list[float | None]:
    chosen = Encoder(**params)
    found: list[float | None] = score(pa.table({"text": pa.array(texts, TEXT)}), chosen, model=score.model(chosen))[
        chosen.column
    ].to_pylist()
    return found


def plain(folder: Path, text: str) -> Any:
    import torch
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    made = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    ids = made(text, truncation=True, max_length=64, return_tensors="pt")
    with torch.inference_mode():
        return model(input_ids=ids["input_ids"]).logits[0].numpy()


@pytest.mark.encoder
def test_a_regression_head_gives_its_clipped_output(folders: dict[int, Path]) -> None:
    expected = [float(np.clip(plain(folders[1], t)[0], -5, 5)) for t in TEXTS]
    place = str(folders[1])
    got = scored([*TEXTS, None, "  "], model=place, low=-5, high=5, max_tokens=64)
    assert got[-2:] == [None, None]
    assert got[:-2] == pytest.approx(expected, abs=2e-4)
    assert len(set(got)) > 4
    assert scored(TEXTS, model=place, low=-5, high=5, max_tokens=64, better="lower")[:3] == pytest.approx(
        [-e for e in expected[:3]], abs=2e-4
    )
    clipped = scored(TEXTS, model=place, low=0, high=0.1, max_tokens=64)
    assert clipped == pytest.approx(np.clip(expected, 0, 0.1).tolist(), abs=2e-4)


@pytest.mark.encoder
def test_a_class_is_named_or_numbered(folders: dict[int, Path]) -> None:
    logits = [plain(folders[3], t) for t in TEXTS]
    expected = [float(np.exp(x[2]) / np.exp(x).sum()) for x in logits]
    for label in ("good", "2"):
        got = scored(list(TEXTS), model=str(folders[3]), head="classification", label=label, max_tokens=64)
        assert got == pytest.approx(expected, abs=2e-4)
    with pytest.raises(ValueError, match="no class 'best'; there are"):
        scored(list(TEXTS), model=str(folders[3]), head="classification", label="best")
    with pytest.raises(Unusable, match="3 classes; there is no class 7"):
        scored(list(TEXTS), model=str(folders[3]), head="classification", label="7")
    with pytest.raises(Unusable, match="3 outputs, a regression head has one"):
        scored(list(TEXTS), model=str(folders[3]))


@pytest.mark.encoder
def test_neighbours_and_small_passes_change_nothing(folders: dict[int, Path]) -> None:
    place = str(folders[1])
    texts = [TEXTS[i % 6] + " corn" * (i % 11) for i in range(BATCH)]
    whole = scored(list(texts), model=place, low=-5, high=5, max_tokens=64)
    small = scored(list(texts), model=place, low=-5, high=5, max_tokens=64, tokens_a_pass=512)
    alone = [scored([t], model=place, low=-5, high=5, max_tokens=64)[0] for t in texts[:4]]
    assert small == pytest.approx(whole, abs=2e-4)
    assert whole[:4] == pytest.approx(alone, abs=2e-4)


@pytest.mark.encoder
def test_onnx_agrees_with_torch(folders: dict[int, Path], tmp_path: Path) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folders[3]).eval()
    # The head alone, on the mean of the word vectors: a graph written by hand, so that no exporter is needed.
    table = model.bert.embeddings.word_embeddings.weight.detach().numpy()
    weights, bias = model.classifier.weight.detach().numpy().T, model.classifier.bias.detach().numpy()
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "input_ids"], ["vectors"]),
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=1),
            helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
            helper.make_node("Mul", ["vectors", "wide"], ["kept"]),
            helper.make_node("ReduceSum", ["kept", "middle"], ["sum"], keepdims=0),
            helper.make_node("MatMul", ["sum", "weights"], ["product"]),
            helper.make_node("Add", ["product", "bias"], ["logits"]),
        ],
        "tiny",
        [helper.make_tensor_value_info(n, onnx.TensorProto.INT64, ["texts", "tokens"]) for n in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["texts", 3])],
        [
            numpy_helper.from_array(a, n)
            for n, a in (("table", table), ("weights", weights), ("bias", bias), ("last", np.array([2])), ("middle", np.array([1])))
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "model.onnx")
    tokenizer(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"label2id": {"good": 2}}))
    got = scored(list(TEXTS), model=str(tmp_path / "model.onnx"), head="classification", label="good", max_tokens=64)
    from tokenizers import Tokenizer

    read = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    read.enable_truncation(64)
    for text, value in zip(TEXTS, got, strict=True):
        logits = table[read.encode(text).ids].sum(axis=0) @ weights + bias
        assert value == pytest.approx(float(np.exp(logits[2] - logits.max()) / np.exp(logits - logits.max()).sum()), abs=2e-4)
    content = (tmp_path / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="not an ONNX model, or cut off"):
        scored(list(TEXTS), model=str(tmp_path / "model.onnx"))
    assert torch is not None


@pytest.mark.encoder
def test_a_broken_folder_or_another_kind_is_refused(folders: dict[int, Path], tmp_path: Path) -> None:
    import shutil

    for name, change in (("cut", lambda w: w[: len(w) // 2]), ("other", lambda w: b"x" * 100)):
        place = tmp_path / name
        shutil.copytree(folders[1], place)
        weights = place / "model.safetensors"
        weights.write_bytes(change(weights.read_bytes()))
        with pytest.raises(ValueError, match="not a whole sequence-classification model"):
            score.model(Encoder(model=str(place)))
    headless = tmp_path / "headless"
    shutil.copytree(folders[1], headless)
    import transformers

    transformers.BertModel(transformers.BertConfig.from_pretrained(folders[1])).save_pretrained(headless)
    with pytest.raises(ValueError, match=r"weights are missing .*classifier"):
        score.model(Encoder(model=str(headless)))


@pytest.mark.encoder
def test_a_model_that_is_not_here_is_never_fetched(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="get it with `hf download nvidia/nemocurator-fineweb-mixtral-edu-classifier`"):
        score.model(Encoder(model="nvidia/nemocurator-fineweb-mixtral-edu-classifier"))


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"123")
    with pytest.raises(ValueError, match="a file of another kind"):
        score.model(Encoder(model=str(tmp_path / "w.bin")))
    with pytest.raises(ValueError, match="no file there"):
        score.model(Encoder(model=str(tmp_path / "none.onnx")))


def test_a_missing_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(ImportError, match=r"pip install 'gristmill\[encoder\]'"):
        score.model(Encoder(model=str(tmp_path)))
