"""Sentence embeddings by any small model that lies on disk: static token vectors (safetensors) or an encoder (ONNX).

Static models (model2vec, wordllama) are a matrix and a tokenizer: a text is the mean of its tokens' vectors, some tens of
thousands of texts a second without another dependency. Encoders (all-MiniLM and its kin) need onnxruntime and give about a
hundred texts a second and core.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from stages.contract import TEXT, Params, file, map_stage

EMBEDDING = pa.list_(pa.float32())
KINDS = {"F16": np.float16, "F32": np.float32}


class Embedding(Params):
    """Which model, and how much of a text it sees."""

    model: str = file(..., "A .safetensors matrix, an .onnx encoder, or a folder that holds one of them.")
    tokenizer: str | None = file(None, "Its tokenizer.json; null: the one beside the model.")
    max_tokens: int = Field(512, ge=1, description="Tokens of a text that are read, from its start.")
    max_chars: int = Field(8000, ge=1, description="Characters given to the tokenizer.")


Encode = Callable[[list[int]], "NDArray[np.float32]"]


class Model:
    """A tokenizer and a function from token ids to a vector."""

    def __init__(self, tokenizer: Any, encode: Encode) -> None:
        """Both are ready to use."""
        self.tokenizer, self.encode = tokenizer, encode


def _open(params: Embedding) -> Model:
    """ValueError for a model or tokenizer that is not there or of another kind."""
    from tokenizers import Tokenizer

    weights = _weights(Path(params.model))
    rules = Path(params.tokenizer) if params.tokenizer else weights.parent / "tokenizer.json"
    if not rules.exists():
        raise ValueError(f"{rules}: no tokenizer there; name one with tokenizer")
    tokenizer = Tokenizer.from_file(str(rules))
    tokenizer.no_padding()
    tokenizer.enable_truncation(params.max_tokens)
    return Model(tokenizer, _encoder(weights) if weights.suffix == ".onnx" else _static(weights))


def _weights(path: Path) -> Path:
    found = sorted(p for kind in ("*.safetensors", "*.onnx") for p in path.rglob(kind)) if path.is_dir() else [path]
    if len(found) != 1 or found[0].suffix not in (".safetensors", ".onnx") or not found[0].exists():
        raise ValueError(f"{path}: holds {len(found)} models; name one .safetensors or .onnx file")
    return found[0]


def read_matrix(path: Path) -> NDArray[np.float32]:
    """The one matrix of a safetensors file: 8 bytes of header length, a JSON header, raw little-endian values."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = {k: v for k, v in json.loads(raw[8 : 8 + size]).items() if k != "__metadata__" and len(v["shape"]) == 2}
    if len(header) != 1 or next(iter(header.values()))["dtype"] not in KINDS:
        raise ValueError(f"{path}: a static model is one matrix of F16 or F32; this holds {sorted(header)}")
    (entry,) = header.values()
    low, high = entry["data_offsets"]
    values = np.frombuffer(raw[8 + size + low : 8 + size + high], KINDS[entry["dtype"]])
    return values.reshape(entry["shape"]).astype(np.float32)


def _static(path: Path) -> Encode:
    matrix = read_matrix(path)
    return lambda tokens: np.asarray(matrix[tokens].sum(axis=0, dtype=np.float64), np.float32)


def _encoder(path: Path) -> Encode:
    try:
        onnxruntime = import_module("onnxruntime")
    except ImportError as error:
        raise ValueError(f"{path}: an ONNX model needs the package onnxruntime: pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]

    def encode(tokens: list[int]) -> NDArray[np.float32]:
        ids = np.array([tokens], np.int64)
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        out = np.asarray(session.run(None, {n: given[n] for n in names})[0])
        return np.asarray(out.mean(axis=1)[0] if out.ndim == 3 else out[0], np.float32)

    return encode


@map_stage(
    version=1,
    reads={"text": TEXT},
    writes={"embedding": EMBEDDING},
    libraries=("tokenizers",),
    model=_open,
    seconds_per_row=60.0,
)
def embed(batch: pa.Table, params: Embedding, *, model: Model) -> pa.Table:
    """The `embedding` of `text`: a vector of length 1, 4 decimals; null for a text without tokens.

    Texts are encoded one by one, so that neither padding nor the batch has a say in the result.
    """
    texts = [(text or "")[: params.max_chars] for text in batch["text"].to_pylist()]
    vectors: list[Any] = []
    for encoding in model.tokenizer.encode_batch(texts, add_special_tokens=True):
        vector = model.encode(encoding.ids) if any(not s for s in encoding.special_tokens_mask) else np.zeros(1, np.float32)
        length = float(np.linalg.norm(vector))
        vectors.append(np.round(vector / length, 4) if length > 0 else None)
    return pa.table({"embedding": pa.array(vectors, EMBEDDING)})
