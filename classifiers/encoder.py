"""Encoders with a classification or regression head, by path: the FineWeb-Edu family and any other of that published format.

A folder as Hugging Face publishes it (config.json, model.safetensors, tokenizer files) runs by transformers on a CPU or GPU; an
.onnx file beside its tokenizer.json runs by onnxruntime. FineWeb-Edu's and NVIDIA's edu classifiers have one output, the
educational value 0 to 5 (`head: regression, low: 0, high: 5`). Nothing is ever downloaded: a hub name works when the model lies
in the local cache, and the error says how to get it there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from classifiers.scale import NAME, SCORE, Better, Scale
from stages.contract import TEXT, Params, Unusable, file, knob, map_stage

Logits = NDArray[np.float64]
BATCH = 256
"""Texts that the engine gives at a time: exact, because padding shapes the last bits. They are sorted by length within."""


class Encoder(Params):
    """Which model, which of its outputs, and how it is run."""

    model: str = file(
        ..., "Folder in Hugging Face's format, an .onnx file beside its tokenizer.json, or a name in the local hub cache."
    )
    column: str = Field("edu", pattern=NAME, description="Name of the score column.")
    head: Literal["regression", "classification"] = Field(
        "regression", description="regression: the output; classification: a probability."
    )
    label: str = Field("1", description="Classification: number or name of the class whose probability is the score.")
    low: float = Field(0.0, description="Regression: lower end; outputs are clipped to low and high, as FineWeb-Edu does.")
    high: float = Field(5.0, description="Regression: upper end.")
    better: Better = Field("higher", description="Which end is the better document; lower is written as the negative.")
    max_tokens: int = Field(512, ge=8, description="Tokens of a text that are read, from its start.")
    max_chars: int = Field(20_000, ge=8, description="Characters given to the tokenizer.")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="Arithmetic by transformers; bfloat16 is for GPUs.")
    decimals: int = Field(4, ge=1, le=6, description="Decimals kept: devices differ beyond.")
    device: Literal["auto", "cpu", "cuda"] = knob("auto", "Where the model runs; auto: the GPU when torch sees one.")
    tokens_a_pass: int = Field(16_384, ge=512, description="Padded tokens of one forward pass.")


class Model:
    """A tokenizer, a forward pass and the output that counts."""

    def __init__(self, tokenizer: Any, forward: Callable[[NDArray[np.int64], NDArray[np.int64]], Logits], params: Encoder) -> None:
        """`forward` takes padded ids and mask, shape (texts, tokens), and gives logits, shape (texts, outputs)."""
        self.tokenizer, self.forward, self.params = tokenizer, forward, params

    def raw(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """The score of each text before it is oriented, in their order."""
        ids = [e.ids for e in self.tokenizer.encode_batch([t[: self.params.max_chars] for t in texts])]
        order = sorted(range(len(ids)), key=lambda i: (-len(ids[i]), i))
        found = np.empty(len(ids))
        start = 0
        while start < len(order):
            width = len(ids[order[start]])
            some = order[start : start + max(self.params.tokens_a_pass // max(width, 1), 1)]
            padded, mask = np.zeros((len(some), width), np.int64), np.zeros((len(some), width), np.int64)
            for row, i in enumerate(some):
                padded[row, : len(ids[i])], mask[row, : len(ids[i])] = ids[i], 1
            found[some] = self._chosen(self.forward(padded, mask))
            start += len(some)
        return found

    def _chosen(self, logits: Logits) -> NDArray[np.float64]:
        if self.params.head == "regression":
            if logits.shape[1] != 1:
                raise Unusable(
                    f"{self.params.model} has {logits.shape[1]} outputs, a regression head has one: set head: classification"
                )
            return np.clip(logits[:, 0], self.params.low, self.params.high)
        which = int(self.params.label)
        if not 0 <= which < logits.shape[1]:
            raise Unusable(f"{self.params.model} has {logits.shape[1]} classes; there is no class {which}")
        if logits.shape[1] == 1:
            return np.asarray(1 / (1 + np.exp(-logits[:, 0])))
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(powers[:, which] / powers.sum(axis=1))


def _library(name: str, extra: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(f"classifiers.encoder.score needs {name}: pip install 'gristmill[{extra}]'") from error


def _tokenizer(path: Path, params: Encoder) -> Any:
    from tokenizers import Tokenizer

    if not path.exists():
        raise ValueError(f"{path}: no tokenizer there; a published model has tokenizer.json beside its weights")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(params.max_tokens)
    return tokenizer


def _cached(name: str) -> Path:
    """The folder of a hub model in the local cache; ValueError says how to get it there."""
    hub = _library("huggingface_hub", "encoder")
    try:
        return Path(hub.snapshot_download(name, local_files_only=True))
    except (hub.errors.LocalEntryNotFoundError, hub.errors.HFValidationError) as error:
        raise ValueError(
            f"{name}: no folder there and no model of this name in the hub cache; get it with `hf download {name}`, or give a path"
        ) from error


def _with_number(params: Encoder, names: dict[str, int]) -> Encoder:
    """The label as a number; ValueError for a name that the model does not know."""
    if params.head == "regression" or params.label.isdecimal():
        return params
    if params.label not in names:
        raise ValueError(f"{params.model}: no class '{params.label}'; there are {sorted(names)}")
    return params.model_copy(update={"label": str(names[params.label])})


def _onnx(path: Path, params: Encoder) -> Model:
    runtime = _library("onnxruntime", "onnx")
    tokenizer = _tokenizer(path.parent / "tokenizer.json", params)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no public class
        raise ValueError(f"{path}: not an ONNX model, or cut off: {str(error)[:200]}") from error
    inputs = {i.name for i in session.get_inputs()}

    def forward(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Logits:
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return np.asarray(session.run(None, {n: v for n, v in given.items() if n in inputs})[0], np.float64)

    config = path.parent / "config.json"
    names = json.loads(config.read_text()).get("label2id", {}) if config.exists() else {}
    return Model(tokenizer, forward, _with_number(params, names))


def _transformers(folder: Path, params: Encoder) -> Model:
    torch, library = _library("torch", "encoder"), _library("transformers", "encoder")
    tokenizer = _tokenizer(folder / "tokenizer.json", params)
    kind = getattr(torch, params.precision)
    try:
        loaded = library.AutoModelForSequenceClassification.from_pretrained(
            folder, local_files_only=True, dtype=kind, output_loading_info=True, trust_remote_code=False
        )
    except Exception as error:  # a broken folder raises a different class for every file in it
        raise ValueError(
            f"{folder}: not a whole sequence-classification model: {type(error).__name__}: {str(error)[:300]}"
        ) from error
    model, facts = loaded
    if facts["missing_keys"]:
        raise ValueError(
            f"{folder}: weights are missing ({', '.join(sorted(facts['missing_keys'])[:4])}): this is another kind of model"
        )
    chosen = params.device if params.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    model = model.eval().to(chosen)

    def forward(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Logits:
        with torch.inference_mode():
            out = model(input_ids=torch.from_numpy(ids).to(chosen), attention_mask=torch.from_numpy(mask).to(chosen))
        return np.asarray(out.logits.float().cpu().numpy(), np.float64)

    return Model(tokenizer, forward, _with_number(params, model.config.label2id or {}))


def _open(params: Encoder) -> Model:
    path = Path(params.model)
    if path.suffix == ".onnx":
        if not path.is_file():
            raise ValueError(f"{path}: no file there")
        return _onnx(path, params)
    if path.is_file():
        raise ValueError(f"{path}: a file of another kind; give the folder of the model, or its .onnx file")
    return _transformers(path if path.is_dir() else _cached(params.model), params)


@map_stage(
    version=1, reads={"text": TEXT}, writes=lambda p: {p.column: SCORE}, model=_open, batch_rows=BATCH,
    libraries=("tokenizers", "transformers", "torch", "onnxruntime"), seconds_per_row=60.0,
)  # fmt: skip
def score(batch: pa.Table, params: Encoder, *, model: Model) -> pa.Table:
    """The model's score of `text`: higher is better, 4 decimals; low to high (regression) or 0 to 1 (a probability).

    Null for texts without anything but white space. ValueError for a model that is cut off, of another kind, or not on this
    machine; ImportError without the library it needs.
    """
    texts = batch["text"].combine_chunks()
    known = np.asarray(pc.fill_null(pc.not_equal(pc.utf8_trim_whitespace(texts), ""), False).to_numpy(zero_copy_only=False), bool)
    low, high = (params.low, params.high) if params.head == "regression" else (0.0, 1.0)
    raw = np.full(batch.num_rows, low)
    raw[known] = model.raw(texts.filter(pa.array(known)).to_pylist())
    scale = Scale(low, high, params.better, params.decimals)
    return pa.table({params.column: scale.column(raw, f"the encoder {params.model}", known)})
