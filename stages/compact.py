"""A new frame of the rows that still stand, of one step or of several."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from pydantic import Field

from stages.contract import Params, map_stage


class Compact(Params):
    """How the new frame is stored."""

    copies: bool = Field(False, description="Store every column again instead of a selection; pays after about four reads.")


@map_stage(version=1, reads={}, writes={}, rows="any", union=True, copies=lambda params: params.copies)
def keep(batch: pa.Table, _params: Compact) -> pa.Table:
    """Keep every standing row: a batch holds no others. Returns `parent`, the rows' places in the batch.

    Rows of parents on several frames become one frame, with `step` for the parent that each came from.
    """
    return pa.table({"parent": np.arange(batch.num_rows, dtype=np.int64)})
