"""Token counts, for budgets and mixtures; tokens with their places, for stages that work on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from stages.contract import TEXT, map_stage
from stages.tokenizers import LIBRARIES, TOKENS, Vocabulary, open_tokenizer, special


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
    _, counts = model.flat(batch["text"])
    present = pc.greater(pc.binary_length(batch["text"].fill_null("")), 0).to_numpy()
    return pa.table({"tokens": pa.array((counts + present * params.eod).astype(np.int32))})


def _open_places(params: Vocabulary) -> Any:
    tokenizer = open_tokenizer(params)
    tokenizer.places([""])
    return tokenizer


@map_stage(
    version=1,
    reads={"text": TEXT},
    writes={"token_places": TOKENS},
    transient=("token_places",),
    libraries=LIBRARIES,
    model=_open_places,
)
def places(batch: pa.Table, params: Vocabulary, *, model: Any) -> pa.Table:  # noqa: ARG001 - the contract's signature
    """Tokens of `text` in the transient column `token_places`: 12 bytes each (id, start, stop in bytes), never stored.

    A space that belongs to the token behind it is part of it for vocabularies of bytes, not where the file trims it.
    """
    found = model.places([text or "" for text in batch["text"].to_pylist()])
    return pa.table({"token_places": pa.array([tokens.astype("<i4").tobytes() for tokens in found], TOKENS)})
