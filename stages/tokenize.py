"""Token counts, for budgets and mixtures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from stages.contract import TEXT, map_stage
from stages.tokenizers import LIBRARIES, Vocabulary, open_tokenizer, special


class Count(Vocabulary):
    """How to count."""

    eod: bool = Field(True, description="Count the end-of-document token that an export appends.")


def _open(params: Count) -> Any:
    tokenizer = open_tokenizer(params)
    if params.eod:
        special(params, "eod", tokenizer)
    return tokenizer


@map_stage(version=1, reads={"text": TEXT}, writes={"tokens": pa.int32()}, libraries=LIBRARIES, model=_open)
def count(batch: pa.Table, params: Count, *, model: Any) -> pa.Table:
    """Count the `tokens` of `text` as the Megatron export will write them; rows without text have none."""
    texts = batch["text"].to_pylist()
    counts = np.array([len(ids) for ids in model.encode([text or "" for text in texts])], np.int32)
    present = np.array([bool(text) for text in texts], bool)
    return pa.table({"tokens": pa.array(counts + present * np.int32(params.eod), pa.int32())})
