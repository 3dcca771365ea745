"""Which rephrasing tasks a document gets, by its quality bucket: the published variants, each under its name."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from stages.contract import Params, map_stage

TASKS = ("wikipedia", "diverse_qa", "distill", "extract_knowledge", "knowledge_list")
_FOUR = ("diverse_qa", "distill", "extract_knowledge", "knowledge_list")
VARIANTS: dict[str, dict[str, tuple[int, int]]] = {
    # Table 3 of arXiv 2412.02595: Low is buckets 0 to 6, High is 19.
    "paper": {"wikipedia": (0, 6), "wikipedia_high": (19, 19), **dict.fromkeys(_FOUR, (19, 19))},
    # NeMo Curator's tutorial: one cut through the scale.
    "tutorial": {"wikipedia": (0, 11), **dict.fromkeys(_FOUR, (12, 19))},
    # NVIDIA's recipe, step 4: the four tasks for high-quality text, on the two best buckets.
    "recipe": dict.fromkeys(_FOUR, (18, 19)),
    # Nemotron-CC v2.1: all five tasks on Medium-High (bucket 18).
    "v2.1": dict.fromkeys(TASKS, (18, 18)),
    # Its translations: four of the five on the best label; which four is not published, so those of the paper's High.
    "v2.1-translated": dict.fromkeys(_FOUR, (19, 19)),
}
"""Task to the lowest and highest bucket that gets it."""


class Route(Params):
    """Parameters of the routing."""

    variant: Literal["paper", "tutorial", "recipe", "v2.1", "v2.1-translated"] = Field(
        "paper", description="Published assignment of tasks to buckets."
    )
    column: str = Field("bucket", description="Column with the bucket, 0 (worst) to 19 (best).")


@map_stage(
    version=1,
    reads=lambda params: {params.column: pa.int32()},
    writes={f"ask_{task}": pa.bool_() for task in TASKS},
)
def by_bucket(batch: pa.Table, params: Route) -> pa.Table:
    """Mark what each document is to be asked for: boolean columns ask_wikipedia, ask_diverse_qa and so on, for `where`."""
    bucket = batch[params.column].fill_null(-1).to_numpy()
    ranges = VARIANTS[params.variant]
    columns: dict[str, np.ndarray] = {}
    for task in TASKS:
        chosen = np.zeros(len(bucket), bool)
        for name in (task, f"{task}_high"):
            low, high = ranges.get(name, (1, 0))
            chosen |= (bucket >= low) & (bucket <= high)
        columns[f"ask_{task}"] = chosen
    return pa.table(columns)
