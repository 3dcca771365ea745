"""Whether a score is high enough: what a quality classifier of any kind wrote, as a filter with a reason."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from stages.contract import Params, map_stage


class Floor(Params):
    """Parameters of `at_least`."""

    column: str = Field("quality", pattern=r"^[a-z][a-z0-9_]*$", description="The score column; higher is better.")
    least: float = Field(..., description="Lowest score kept. FineMath keeps 3 of 0 to 5 (arXiv 2502.02737).")
    unscored: Literal["drop", "keep"] = Field("drop", description="What becomes of rows without a score.")


@map_stage(version=1, reads=lambda p: {p.column: pa.float32()}, writes={"drop_reason": pa.string()})
def at_least(batch: pa.Table, params: Floor) -> pa.Table:
    """Keep rows whose score is not below the floor: reasons low_<column> and no_<column>.

    The floor is compared in the precision of the column, so that a score written as 0.7 passes a floor of 0.7.
    """
    scores = batch[params.column].combine_chunks()
    low = pc.less(scores, pa.scalar(np.float32(params.least), pa.float32()))
    missing = None if params.unscored == "keep" else f"no_{params.column}"
    reasons = pc.if_else(pc.is_null(scores), missing, pc.if_else(low, f"low_{params.column}", None))
    return pa.table({"drop_reason": reasons.cast(pa.string())})
