"""fastText as a quality scorer (Joulin et al., arXiv 1607.01759; used so by DCLM, arXiv 2406.11794, section 4.4): P(good).

score          Map     a model by path, such as DCLM's `openhermes_reddit_eli5_vs_rw_v2_bigram_200k_train.bin`
train          Reduce  texts with a target -> a model and its held-out metrics
score_trained  Map     the same score by a model that the recipe has trained
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from classifiers.fasttext_file import check
from classifiers.scale import NAME, SCORE, Scale
from classifiers.trained import COLUMNS, TEXTS, Training, file_of, good_of, measures, target_columns, text_examples, trained_rows
from stages.contract import TEXT, Params, file, map_stage, reduce_stage

SCALE = Scale(0, 1)
"""A probability: higher is better."""
GOOD, POOR = "__label__hq", "__label__cc"
"""DCLM's names, so that its model and ours are read alike."""
SPACES = str.maketrans("\n\r", "  ")


class Scored(Params):
    """What is looked at, and where the score goes."""

    label: str = Field(GOOD, description="The label whose probability is the score.")
    column: str = Field("quality", pattern=NAME, description="Name of the score column.")
    max_chars: int = Field(0, ge=0, description="Look at this many characters from the start; 0: at the whole text.")


class Score(Scored):
    """Which model."""

    model: str = file(..., "A supervised fastText model (.bin or .ftz).")


class Model:
    """An open model and its label."""

    def __init__(self, path: str, label: str) -> None:
        """ValueError for a file that is no whole supervised model, or that does not know the label."""
        import fasttext

        check(path)
        self.model, self.label = fasttext.load_model(str(path)), label
        if label not in self.model.labels:
            some = ", ".join(sorted(self.model.labels)[:8])
            raise ValueError(f"{path}: the model has no label {label}; it has {some}: name one with label")

    def probabilities(self, lines: list[str]) -> NDArray[np.float64]:
        """The label's probability for each line; sums of a softmax can end a little above one."""
        labels, found = self.model.predict(lines, k=-1) if lines else ([], [])
        pairs = (dict(zip(names, values, strict=True)) for names, values in zip(labels, found, strict=True))
        return np.array([min(float(pair.get(self.label, 0.0)), 1.0) for pair in pairs])


def _scored(batch: pa.Table, params: Scored, model: Model) -> pa.Table:
    text = batch["text"].combine_chunks()
    if params.max_chars:
        text = pc.utf8_slice_codeunits(text, 0, params.max_chars)
    lines = [(line or "").translate(SPACES).strip() for line in text.to_pylist()]
    known = np.array([bool(line) for line in lines], bool)
    raw = np.zeros(len(lines))
    raw[known] = model.probabilities([line for line in lines if line])
    return pa.table({params.column: SCALE.column(raw, "fastText", known)})


def _open(params: Score) -> Model:
    return Model(params.model, params.label)


@map_stage(
    version=1, reads={"text": TEXT}, writes=lambda p: {p.column: SCORE}, libraries=("fasttext-community",), model=_open
)  # fmt: skip
def score(batch: pa.Table, params: Score, *, model: Model) -> pa.Table:
    """The probability of `label` for `text` (line feeds read as spaces): 0 to 1, higher is better, 6 decimals; null without text.

    ValueError for a model file that is cut off, of another kind, or without the label.
    """
    return _scored(batch, params, model)


class Train(Training):
    """Size and length of the training. The file takes 4 * dim * (bucket + words) bytes: 871 MB at fastText's own defaults."""

    dim: int = Field(16, ge=1, le=300, description="Width of the vectors.")
    bucket: int = Field(1 << 16, ge=1, description="Slots for word n-grams.")
    word_ngrams: int = Field(2, ge=1, le=5, description="Longest n-gram of words; DCLM takes 2.")
    epochs: int = Field(5, ge=1, description="Passes over the documents.")
    rate: float = Field(0.3, gt=0, description="Learning rate at the start.")
    min_count: int = Field(1, ge=1, description="Words seen less often have no vector of their own.")


def train_model(texts: list[str], good: NDArray[np.bool_], params: Train) -> bytes:
    """A fastText .bin; one thread and a seed make it the same every time (several threads race, Hogwild)."""
    import fasttext

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "train.txt"
        with source.open("w", encoding="utf-8") as out:
            out.writelines(f"{GOOD if g else POOR} {t.translate(SPACES).strip()}\n" for t, g in zip(texts, good, strict=True))
        model = fasttext.train_supervised(
            str(source), thread=1, seed=params.seed, dim=params.dim, bucket=params.bucket, wordNgrams=params.word_ngrams,
            epoch=params.epochs, lr=params.rate, minCount=params.min_count, verbose=0,
        )  # fmt: skip
        model.save_model(f"{folder}/model.bin")
        return (Path(folder) / "model.bin").read_bytes()


def _settle(batches: Iterator[pa.Table], params: Train) -> Iterator[pa.Table]:
    tables = list(batches)
    if not tables:
        return
    table = pa.concat_tables(tables)
    held = np.asarray(table["held"].to_numpy(), bool)
    learned = table.filter(pa.array(~held))
    content = train_model(learned["text"].to_pylist(), good_of(learned["target"].to_numpy(), params), params)
    judged = table.filter(pa.array(held))
    lines = [t.translate(SPACES).strip() for t in judged["text"].to_pylist()]
    found = measures(_opened(content, GOOD).probabilities(lines), judged["target"].to_numpy(), params, 0.5)
    yield trained_rows({"model.bin": content}, {"trained_documents": float(learned.num_rows), **found})


@reduce_stage(
    version=1, reads=lambda p: {"id": pa.string(), "text": TEXT, **target_columns(p)}, emits=TEXTS, writes=COLUMNS, settle=_settle,
    result="dataset", partitions=lambda _params: 1, union=True, libraries=("fasttext-community", "xxhash"),
)  # fmt: skip
def train(batch: pa.Table, params: Train) -> pa.Table:
    """A supervised fastText model out of `text` and a target, with AUC, precision and recall at 0.5 on rows held out.

    Deterministic: documents in the order of their hashed ids, one thread, one seed. Unusable: only good or only poor rows.
    """
    return text_examples(batch, params)


@lru_cache(maxsize=2)
def _opened(content: bytes, label: str) -> Model:
    with tempfile.NamedTemporaryFile(suffix=".bin") as out:
        out.write(content)
        out.flush()
        return Model(out.name, label)


@map_stage(
    version=1, reads={"text": TEXT}, writes=lambda p: {p.column: SCORE}, libraries=("fasttext-community",), given=("trained",)
)  # fmt: skip
def score_trained(batch: pa.Table, params: Scored, *, trained: pa.Table) -> pa.Table:
    """As `score`, by the model of a `train` step of the same recipe."""
    return _scored(batch, params, _opened(file_of(trained, ".bin"), params.label))
