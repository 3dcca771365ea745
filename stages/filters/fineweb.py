"""FineWeb's own quality rules, found by comparing statistics of good and bad crawls.

Source: Penedo et al. 2024, The FineWeb Datasets (arXiv 2406.17557), section 3.5; details as in datatrove 0.10.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from stages import characters
from stages.analysis import PROVIDERS, column_of, text_buffers, token_view
from stages.contract import map_stage
from stages.filters.rules import SPACELESS, Rule, Worded, above, below, languages, reads_words, share, verdict, with_columns


class Quality(Worded):
    """Parameters of `quality`; a limit of null switches its rule off. Defaults: arXiv 2406.17557, section 3.5."""

    min_ended_lines: float | None = Field(0.12, description="Smallest share of lines that end in an end mark.")
    end_marks: str = Field("", description="Characters that end a line, beside the sentence terminals of all scripts.")
    any_script: bool = Field(True, description="Accept the sentence terminals of all scripts as end marks.")
    max_short_lines: float | None = Field(0.67, description="Largest share of short lines.")
    short_line: int = Field(30, description="Characters of the longest short line.")
    max_dup_line_chars: float | None = Field(0.01, description="Largest share of characters in lines that stood before.")
    max_line_feeds: float | None = Field(0.3, description="Most line feeds per word.")
    skip: dict[str, tuple[str, ...]] = Field(
        {"short_lines": SPACELESS, "list_like": SPACELESS},
        description="Reason to languages in which the rule is not asked; '*' switches it off.",
    )


STATS = dict.fromkeys(("fineweb_ended_lines", "fineweb_short_lines", "fineweb_dup_line_chars", "fineweb_line_feeds"), pa.float32())


def _writes(params: Any) -> dict[str, pa.DataType]:
    return {"drop_reason": pa.string(), **(STATS if params.stats else {})}


@map_stage(version=1, reads=reads_words, writes=_writes, derived=PROVIDERS)
def quality(batch: pa.Table, params: Quality) -> pa.Table:
    """FineWeb's rules: `text` and its words in, `drop_reason` out, and with `stats` the four shares that decided.

    Reasons, in order: empty, few_ended_lines, short_lines, dup_line_chars, list_like. Lines are cut at line feeds, blank
    ones do not count. Short lines and line feeds per word are not asked of languages written without spaces.
    """
    from stages.filters import line_kernels as kernels

    data, offsets = text_buffers(batch["text"])
    _, starts = token_view(batch[column_of(params.words)])
    counts = np.zeros((batch.num_rows, len(kernels.FINEWEB)), np.int64)
    marks = np.array([ord(char) for char in params.end_marks], np.int32)
    kernels.fineweb_counts(data, offsets, params.short_line, marks, params.any_script, characters.classes(), counts)
    n = dict(zip(kernels.FINEWEB, counts.T, strict=True))
    values = {
        "fineweb_ended_lines": share(n["ended_lines"], n["lines"]),
        "fineweb_short_lines": share(n["short_lines"], n["lines"]),
        "fineweb_dup_line_chars": share(n["dup_line_chars"], n["chars"]),
        "fineweb_line_feeds": share(n["line_feeds"], np.diff(starts)),
    }
    rules = [
        Rule("empty", n["lines"] == 0),
        Rule("few_ended_lines", below(values["fineweb_ended_lines"], params.min_ended_lines)),
        Rule("short_lines", above(values["fineweb_short_lines"], params.max_short_lines)),
        Rule("dup_line_chars", above(values["fineweb_dup_line_chars"], params.max_dup_line_chars)),
        Rule("list_like", above(values["fineweb_line_feeds"], params.max_line_feeds)),
    ]
    return with_columns(batch, verdict(rules, languages(batch, params), params), values, _writes(params))
