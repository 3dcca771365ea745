"""What a score means: its range, its precision, and that more of it is better.

Every score column is oriented: a higher value is a better document. A scorer whose raw output runs the other way
(perplexity, spam probability) writes its negative, so that no later step has to know. Ranges are declared by the scorer and
held: a score outside of its range, or one that is no number, costs its row and never moves a cut point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from stages.contract import Params, map_stage

SCORE = pa.float32()
Better = Literal["higher", "lower"]
NAME = r"^[a-z][a-z0-9_]*$"
"""Score columns are SQL names."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Lowest and highest raw value (both possible), which end is better, and the decimals that are kept."""

    low: float = float("-inf")
    high: float = float("inf")
    better: Better = "higher"
    decimals: int = 6

    def column(self, raw: NDArray[Any], scorer: str, known: NDArray[np.bool_] | None = None) -> pa.Array:
        """Oriented float32 scores, null where `known` is false; ValueError for a value that is no number or out of range."""
        known = np.ones(len(raw), bool) if known is None else known
        values = np.asarray(raw, np.float64)
        lost = known & np.isnan(values)
        if lost.any():
            raise ValueError(f"{scorer} gave no number (NaN) for {int(lost.sum())} of {len(values)} texts")
        far = known & ((values < self.low) | (values > self.high) | np.isinf(values))
        if far.any():
            value, limits = float(values[far][0]), f"{self.low:g} to {self.high:g}"
            raise ValueError(f"{scorer} gave {value:g}, outside of its declared range {limits}; declare another or mend it")
        # A zero must have one sign: scores are compared by their bits when cut points are made.
        values = np.where(known, np.round(values if self.better == "higher" else -values, self.decimals), 0.0) + 0.0
        return pa.array(values.astype(np.float32), SCORE, mask=~known)


class Oriented(Params):
    """Which column becomes a score, and how it is read."""

    source: str = Field(..., description="A numeric column, such as perplexity or a count of a filter.")
    column: str = Field("score", pattern=NAME, description="Name of the score column.")
    better: Better = Field("higher", description="Which end of the source is the better document.")
    low: float = Field(float("-inf"), description="Lowest value the source can have; for log10 a positive one.")
    high: float = Field(float("inf"), description="Highest value the source can have.")
    log10: bool = Field(False, description="Take the logarithm first: for perplexities and counts.")

    def model_post_init(self, _context: Any) -> None:
        """A logarithm needs positive values; a scale cannot be empty."""
        if self.log10 and not self.low > 0:
            raise ValueError("log10 needs low, the smallest value of the source, and it must be above zero")
        if not self.low < self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}")


@map_stage(version=1, reads=lambda p: {p.source: pa.float64()}, writes=lambda p: {p.column: SCORE})
def oriented(batch: pa.Table, params: Oriented) -> pa.Table:
    """Any numeric column as a score: higher is better, 6 decimals, null stays null.

    Perplexity becomes a score with `source: perplexity, better: lower, log10: true, low: 1`. A value outside of `low` to
    `high` costs its row (ValueError).
    """
    source = batch[params.source].combine_chunks()
    known = np.asarray(pc.is_valid(source).to_numpy(zero_copy_only=False), bool)
    values = pc.fill_null(source, params.low if np.isfinite(params.low) else 0.0).to_numpy(zero_copy_only=False)
    raw = Scale(params.low, params.high)
    raw.column(values, f"column '{params.source}'", known)
    scale = Scale(better=params.better)
    name = f"column '{params.source}'"
    return pa.table({params.column: scale.column(np.log10(values) if params.log10 else values, name, known)})
