"""Any Python function as a scorer, by import path: a rule, somebody's model, a prototype beside the recipe."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from classifiers.scale import NAME, SCORE, Better, Scale
from stages.contract import TEXT, Params, map_stage


def source_digest(function: str) -> str:
    """A hash of the module that holds the function, read and not imported; ValueError when there is no such module."""
    module, _, name = function.rpartition(".")
    try:
        spec = importlib.util.find_spec(module) if module else None
    except ModuleNotFoundError:
        spec = None
    if spec is None or not spec.origin or not name:
        raise ValueError(
            f"function: no module for '{function}'; give an import path such as mine.readable, beside the recipe or installed"
        )
    return hashlib.blake2b(Path(spec.origin).read_bytes(), digest_size=8).hexdigest()


class Function(Params):
    """Which function, and what its values mean."""

    function: str = Field(..., description="Import path of a function that takes a text and returns a number, or None.")
    column: str = Field("score", pattern=NAME, description="Name of the score column.")
    low: float = Field(0.0, description="Lowest value it returns.")
    high: float = Field(1.0, description="Highest value it returns.")
    better: Better = Field("higher", description="Which end is the better document; lower is written as the negative.")
    digest: str = Field("", description="Hash of the function's module: filled in, so that another source is another result.")

    @model_validator(mode="before")
    @classmethod
    def _with_digest(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("function"), str) and not values.get("digest"):
            return {**values, "digest": source_digest(values["function"])}
        return values


def _open(params: Function) -> Callable[[str], float | None]:
    module, _, name = params.function.rpartition(".")
    found = getattr(importlib.import_module(module), name, None)
    if not callable(found):
        raise TypeError(f"function: '{module}' has no function '{name}'")
    chosen: Callable[[str], float | None] = found
    return chosen


@map_stage(version=1, reads={"text": TEXT}, writes=lambda p: {p.column: SCORE}, model=_open)
def score(batch: pa.Table, params: Function, *, model: Callable[[str], float | None]) -> pa.Table:
    """What the function says of each `text`, as a score: oriented so that higher is better, 6 decimals, null for None and no text.

    A value that is no number, or outside of `low` to `high`, costs its row (ValueError). The function has to depend on the
    text alone: its results are kept.
    """
    found = [model(text) if text is not None else None for text in batch["text"].to_pylist()]
    known = np.array([value is not None for value in found], bool)
    raw = np.array([0.0 if value is None else value for value in found], np.float64)
    scale = Scale(params.low, params.high, params.better)
    return pa.table({params.column: scale.column(raw, params.function, known)})
