"""How long a document is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from stages.analysis import PROVIDERS, column_of, token_view
from stages.contract import map_stage
from stages.filters.rules import Rule, Worded, above, below, languages, reads_words, verdict, with_columns


class Words(Worded):
    """Parameters of `by_words`."""

    min_words: int | None = Field(50, description="Fewest words; null switches the rule off. 50 is Gopher's (arXiv 2112.11446).")
    max_words: int | None = Field(100_000, description="Most words; null switches the rule off. 100,000 is Gopher's.")


def _writes(params: Any) -> dict[str, pa.DataType]:
    return {"drop_reason": pa.string(), **({"words": pa.int32()} if params.stats else {})}


@map_stage(version=1, reads=reads_words, writes=_writes, derived=PROVIDERS)
def by_words(batch: pa.Table, params: Words) -> pa.Table:
    """Reasons too_few_words and too_many_words by the number of words that are more than symbols; `words` with `stats`.

    In scripts written without spaces every character counts as a word.
    """
    from stages.splitting import SOLID

    tokens, starts = token_view(batch[column_of(params.words)])
    solid = np.concatenate(([0], np.cumsum((tokens[:, 1] >> np.uint64(32)) & np.uint64(SOLID) != 0)))
    words = solid[starts[1:]] - solid[starts[:-1]]
    rules = [Rule("too_few_words", below(words, params.min_words)), Rule("too_many_words", above(words, params.max_words))]
    return with_columns(batch, verdict(rules, languages(batch, params), params), {"words": words}, _writes(params))
