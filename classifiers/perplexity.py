"""Perplexity under an n-gram model, and CCNet's head, middle and tail (Wenzek et al., arXiv 1911.00359)."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from classifiers.sentences import sentences, tokens
from stages.contract import TEXT, Params, file, map_stage

WORST = 1e9
"""Written for texts without any token, and where a model gives more: a float32 keeps it apart from every real value."""


class Perplexity(Params):
    """The model, and where its scale is cut. CCNet cuts each language at its 30th and 60th percentile."""

    model: str = file(..., "A KenLM model (.bin, .arpa or .arpa.gz), such as classifiers.ngram_model.arpa writes.")
    vocabulary: str | None = file(None, "SentencePiece vocabulary that the model was trained with; null: words and marks.")
    head: float | None = Field(None, gt=0, description="Perplexity below which a text is head; null: no labels.")
    tail: float | None = Field(None, gt=0, description="Perplexity from which a text is tail; null: no labels.")
    highest: float | None = Field(None, gt=0, description="Perplexity over which a text is dropped; null: none is.")

    def model_post_init(self, _context: Any) -> None:
        """Refuse one limit without the other, and limits in the wrong order."""
        if (self.head is None) != (self.tail is None) or (self.head and self.tail and self.head > self.tail):
            raise ValueError("head and tail belong together, and head is the smaller")


@dataclass(frozen=True)
class Scorer:
    """`log10` gives the log10 probability of a line of tokens, its end included; `cut` makes tokens of a line."""

    log10: Callable[[str], float]
    cut: Callable[[str], list[str]]


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"an n-gram model needs {name} here: pip install {name}") from error


class Vocabulary(Protocol):
    """Parameters that name a vocabulary."""

    @property
    def vocabulary(self) -> str | None:
        """Path of a SentencePiece model, or null."""
        ...


def cutter(params: Vocabulary) -> Callable[[str], list[str]]:
    """What cuts a normalised line into tokens: the pieces of a vocabulary, or words and marks."""
    if params.vocabulary is None:
        return tokens
    pieces = _library("sentencepiece").SentencePieceProcessor(model_file=params.vocabulary)
    return lambda line: list(pieces.encode(line, out_type=str))


def _open(params: Perplexity) -> Scorer:
    model = _library("kenlm").Model(params.model)

    def log10(line: str) -> float:
        return float(model.score(line, bos=True, eos=True))

    return Scorer(log10, cutter(params))


@map_stage(
    version=1,
    reads={"text": TEXT},
    writes={"perplexity": pa.float32(), "perplexity_label": pa.string(), "drop_reason": pa.string()},
    libraries=("kenlm",),
    model=_open,
)
def score(batch: pa.Table, params: Perplexity, *, model: Scorer) -> pa.Table:
    """Give each `text` its `perplexity` per token (ends of lines count as tokens) to one decimal, as CCNet does.

    `perplexity_label` is head, middle or tail where both limits are given. Reason: `perplexity_high`. Texts without any
    token have the perplexity 1e9.
    """
    values = np.array([perplexity(text or "", model) for text in batch["text"].to_pylist()], np.float32)
    column = pa.array(values, pa.float32())
    label = pa.nulls(batch.num_rows, pa.string())
    if params.head is not None and params.tail is not None:
        low = pc.if_else(pc.less(column, params.head), "head", "middle")
        label = pc.if_else(pc.greater_equal(column, params.tail), "tail", low)
    high = pc.greater(column, params.highest if params.highest is not None else float("inf"))
    reason = pc.if_else(high, "perplexity_high", pa.scalar(None, pa.string()))
    return pa.table({"perplexity": column, "perplexity_label": label, "drop_reason": reason})


def perplexity(text: str, model: Scorer) -> float:
    """10 to the mean negative log10 probability of all tokens and line ends."""
    lines = sentences(text, model.cut)
    if not lines:
        return WORST
    total = sum(model.log10(" ".join(line)) for line in lines)
    exponent = -total / sum(len(line) + 1 for line in lines)
    return round(10**exponent, 1) if exponent < 9 else WORST
