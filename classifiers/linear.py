"""A linear head on features: the FineWeb-Edu way (a small head on frozen embeddings), for any column of vectors or hashed n-grams.

train          Reduce  vectors or texts with a target -> weights (npz) and held-out metrics
score          Map     by a file of weights
score_trained  Map     by a `train` step of the same recipe
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from classifiers.scale import NAME, SCORE, Scale
from classifiers.trained import COLUMNS, EXAMPLES, Training, examples, file_of, good_of, measures, target_columns, trained_rows
from stages.contract import TEXT, Params, Unusable, file, map_stage, reduce_stage

VECTOR = pa.list_(pa.float32())
Kind = Literal["vectors", "words", "characters"]
GRAMS = {"words": ("word", (1, 2)), "characters": ("char_wb", (2, 5))}


class Features(Params):
    """What a document is to the head."""

    features: Kind = Field("vectors", description="vectors: a column of them; words, characters: hashed n-grams of text, tf-idf.")
    vectors: str = Field("embedding", description="The column of vectors.")
    max_chars: int = Field(20_000, ge=1, description="Characters of text that are looked at, for hashed n-grams.")


def feature_columns(params: Features) -> dict[str, pa.DataType]:
    """The column that features are made of."""
    return {params.vectors: VECTOR} if params.features == "vectors" else {"text": TEXT}


def _sklearn(name: str) -> Any:
    try:
        return import_module(f"sklearn.{name}")
    except ImportError as error:
        raise ImportError("linear heads on n-grams, and training, need scikit-learn: pip install 'gristmill[train]'") from error


def matrix_of(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """Vectors without nulls as rows; ValueError where they differ in length or hold no numbers."""
    array = column.combine_chunks()
    array = pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
    widths = pc.unique(pc.list_value_length(array)).to_pylist()
    if len(widths) > 1:
        raise ValueError(f"vectors of {sorted(widths)} dimensions in one column; one model makes one")
    found = np.asarray(array.flatten().to_numpy(zero_copy_only=False), np.float64).reshape(len(array), -1)
    if not np.isfinite(found).all():
        raise ValueError("a vector holds a value that is no number; mend the step that makes it")
    return found


class Head:
    """Weights, how features are prepared, and the scale of the score."""

    def __init__(self, arrays: dict[str, NDArray[Any]], facts: dict[str, Any]) -> None:
        """`facts` holds kind, grams, head, low and high."""
        self.arrays, self.facts = arrays, facts
        self.scale = Scale(facts["low"], facts["high"])

    def prepared(self, raw: Any) -> Any:
        """Features as the weights know them: standardised vectors, or sublinear tf-idf of length 1."""
        if self.facts["features"] == "vectors":
            return (raw - self.arrays["mean"]) / self.arrays["spread"]
        counts = raw.copy()
        counts.data = 1.0 + np.log(counts.data)
        return _sklearn("preprocessing").normalize(counts.multiply(self.arrays["idf"]).tocsr())

    def scores(self, raw: Any) -> NDArray[np.float64]:
        """Probabilities (logistic) or predictions held to the range of the targets (ridge)."""
        if raw.shape[1] != len(self.arrays["weights"]):
            raise Unusable(
                f"the head has {len(self.arrays['weights'])} weights, the vectors {raw.shape[1]} dimensions: not its features"
            )
        sums = np.asarray(self.prepared(raw) @ self.arrays["weights"] + self.arrays["bias"], np.float64).ravel()
        return (
            1 / (1 + np.exp(-np.clip(sums, -40, 40)))
            if self.facts["head"] == "logistic"
            else np.clip(sums, self.scale.low, self.scale.high)
        )

    def dump(self) -> bytes:
        """An npz of plain arrays, the facts as JSON bytes among them; the same head gives the same bytes."""
        out = io.BytesIO()
        facts = np.frombuffer(orjson.dumps(self.facts, option=orjson.OPT_SORT_KEYS), np.uint8)
        np.savez_compressed(out, facts=facts, **self.arrays)  # type: ignore[arg-type]
        return out.getvalue()


def load(content: bytes, place: str) -> Head:
    """A Head from its bytes; ValueError for what is none. Never unpickles."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
        facts = orjson.loads(arrays.pop("facts").tobytes())
        return Head(arrays, facts)
    except (ValueError, KeyError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise ValueError(f"{place}: not a linear head as classifiers.linear.train writes it, or cut off ({error})") from error


def raw_features(column: pa.ChunkedArray, params: Features, size: int) -> Any:
    """A matrix of vectors, or a sparse one of n-gram counts in `size` slots."""
    if params.features == "vectors":
        return matrix_of(column)
    analyzer, grams = GRAMS[params.features]
    hasher = _sklearn("feature_extraction.text").HashingVectorizer(
        analyzer=analyzer, ngram_range=grams, n_features=size, alternate_sign=False, norm=None
    )
    return hasher.transform([t[: params.max_chars] for t in column.to_pylist()])


class Train(Training, Features):
    """The head and how strongly it is held back."""

    head: Literal["logistic", "ridge"] = Field("logistic", description="logistic: P(good); ridge: a number, such as 0 to 5.")
    strength: float = Field(0.1, gt=0, description="Inverse regularisation (C of scikit-learn); alpha is its inverse for ridge.")
    slots: int = Field(1 << 16, ge=256, description="Slots for hashed n-grams.")


def _emits(params: Train) -> dict[str, pa.DataType]:
    return {**EXAMPLES, "feature": VECTOR if params.features == "vectors" else TEXT}


def fit(raw: Any, values: NDArray[np.float64], good: NDArray[np.bool_], params: Train) -> Head:
    """A head fitted to raw features. Weights are rounded to float32: libraries of linear algebra differ beyond that."""
    facts: dict[str, Any] = {"features": params.features, "head": params.head, "low": 0.0, "high": 1.0}
    arrays: dict[str, NDArray[Any]] = {}
    if params.features == "vectors":
        spread = raw.std(axis=0)
        arrays |= {"mean": raw.mean(axis=0), "spread": np.where(spread > 1e-9, spread, 1.0)}
    else:
        documents = np.asarray((raw > 0).sum(axis=0)).ravel()
        arrays["idf"] = np.log((1 + raw.shape[0]) / (1 + documents)) + 1
    head, linear = Head(arrays, facts), _sklearn("linear_model")
    if params.head == "logistic":
        model = linear.LogisticRegression(C=params.strength, max_iter=2000).fit(head.prepared(raw), good)
    else:
        facts |= {"low": float(values.min()), "high": float(values.max())}
        model = linear.Ridge(alpha=1 / params.strength, solver="lsqr", tol=1e-8).fit(head.prepared(raw), values)
    arrays |= {"weights": np.float32(model.coef_).ravel(), "bias": np.float32(model.intercept_).reshape(-1)[:1]}
    return Head({n: a.astype(np.float32) for n, a in arrays.items()}, facts)


def _settle(batches: Iterator[pa.Table], params: Train) -> Iterator[pa.Table]:
    tables = list(batches)
    if not tables:
        return
    table = pa.concat_tables(tables)
    held = np.asarray(table["held"].to_numpy(), bool)
    raw, values = raw_features(table["feature"], params, params.slots), table["target"].to_numpy()
    head = fit(raw[~held], values[~held], good_of(values[~held], params), params)
    scores = head.scores(raw[held]) if held.any() else np.empty(0)
    found = measures(scores, values[held], params, 0.5 if params.head == "logistic" else params.threshold)
    yield trained_rows({"head.npz": head.dump()}, {"trained_documents": float((~held).sum()), **found})


@reduce_stage(
    version=1, reads=lambda p: {"id": pa.string(), **feature_columns(p), **target_columns(p)}, emits=_emits, writes=COLUMNS,
    settle=_settle, result="dataset", partitions=lambda _params: 1, union=True, libraries=("scikit-learn", "numpy", "xxhash"),
)  # fmt: skip
def train(batch: pa.Table, params: Train) -> pa.Table:
    """A linear head out of features and a target: weights as npz, with AUC, precision and recall on rows held out.

    Logistic regression or ridge by scikit-learn, deterministic. All features are in memory at once: 8 bytes a dimension and
    document. Unusable: only good or only poor rows. ImportError: scikit-learn is not installed.
    """
    name = params.vectors if params.features == "vectors" else "text"
    batch = batch.filter(pc.is_valid(batch[name]))
    columns, known = examples(batch, params)
    return pa.table({**columns, "feature": batch[name].filter(pa.array(known))})


class ScoredBy(Features):
    """What is looked at, and where the score goes."""

    column: str = Field("quality", pattern=NAME, description="Name of the score column.")


class Score(ScoredBy):
    """Which weights."""

    model: str = file(..., "A head.npz of classifiers.linear.train.")


def _scored(batch: pa.Table, params: ScoredBy, head: Head) -> pa.Table:
    if head.facts["features"] != params.features:
        raise Unusable(f"the head was trained on {head.facts['features']}, this step reads {params.features}: set features")
    column = batch[params.vectors if params.features == "vectors" else "text"]
    known = np.asarray(pc.is_valid(column).to_numpy(), bool)
    raw = np.full(batch.num_rows, head.scale.low)
    if known.any():
        raw[known] = head.scores(raw_features(column.filter(pa.array(known)), params, len(head.arrays["weights"])))
    return pa.table({params.column: head.scale.column(raw, "the linear head", known)})


def _open(params: Score) -> Head:
    path = Path(params.model)
    if not path.is_file():
        raise ValueError(
            f"{path}: no file there; train a head with classifiers.linear.train and write it with classifiers.trained.saved"
        )
    return load(path.read_bytes(), params.model)


@map_stage(version=1, reads=feature_columns, writes=lambda p: {p.column: SCORE}, model=_open)
def score(batch: pa.Table, params: Score, *, model: Head) -> pa.Table:
    """The head's score of each document: higher is better, 6 decimals; 0 to 1 (logistic) or the range of its targets (ridge).

    Null where the features are null. ValueError for a file that is no head; Unusable for a head of other features.
    """
    return _scored(batch, params, model)


@lru_cache(maxsize=4)
def _opened(content: bytes) -> Head:
    return load(content, "the given training")


@map_stage(version=1, reads=feature_columns, writes=lambda p: {p.column: SCORE}, given=("trained",))
def score_trained(batch: pa.Table, params: ScoredBy, *, trained: pa.Table) -> pa.Table:
    """As `score`, by the head of a `train` step of the same recipe."""
    return _scored(batch, params, _opened(file_of(trained, ".npz")))
