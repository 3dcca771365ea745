"""The rules of C4: which lines of a page are prose, and which pages are worth keeping.

Source: Raffel et al. 2020 (arXiv 1910.10683), section 2.2, with the further rules of its published code as datatrove 0.10
has them (long words, citation marks, policy phrases). `lines` rewrites `text`, `page` judges what is left of it: put them
in that order. A line that condemns its page (placeholder text, curly bracket) is left for `page` to see.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from stages import characters
from stages.analysis import PROVIDERS, column_of, text_buffers, token_view
from stages.contract import TEXT, Params, map_stage
from stages.filters.phrases import compiled
from stages.filters.rules import Rule, Worded, below, languages, reads_words, verdict, with_columns

POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
PLACEHOLDER = ("lorem ipsum",)
END_MARKS = ".?!\"'"


class Lines(Params):
    """Parameters of `lines`; defaults are those of C4's published code."""

    min_words: int = Field(3, ge=0, description="Fewest words between white space that a line needs.")
    max_word_chars: int = Field(1000, ge=-1, description="A line with a longer word goes; -1 switches the rule off.")
    end_marks: str = Field(END_MARKS, description="Characters that may end a line; empty switches the rule off.")
    any_script: bool = Field(
        True, description="Also accept sentence terminals of all scripts, and count characters of scripts without spaces as words."
    )
    citations: bool = Field(True, description="Remove citation marks: [1], [], [edit], [citation needed].")
    scripts: tuple[str, ...] = Field(("javascript",), description="A line with one of these phrases goes.")
    policy: tuple[str, ...] = Field(POLICY, description="A line with one of these phrases goes.")
    stats: bool = Field(False, description="Also write how many lines there were and how many went, by rule.")


LINE_STATS = dict.fromkeys(
    ("c4_lines", "c4_long_word", "c4_no_end_mark", "c4_few_words", "c4_javascript", "c4_policy", "c4_kept"), pa.int32()
)


def _writes_lines(params: Any) -> dict[str, pa.DataType]:
    return {"text": TEXT, **(LINE_STATS if params.stats else {})}


@map_stage(version=1, reads={"text": TEXT}, writes=_writes_lines)
def lines(batch: pa.Table, params: Lines) -> pa.Table:
    """Rewrite `text` to the lines that C4 keeps, each stripped and joined by line feeds; no row is dropped here.

    A line goes that has a word of more than 1,000 characters, does not end in an end mark (an ellipsis is none), has fewer
    than three words, or mentions JavaScript or a policy phrase. A text may be empty afterwards: `page` names the reason.
    With `stats`, int32 counts of lines: all, removed by each rule, kept.
    """
    from stages.filters import line_kernels as kernels

    data, offsets = text_buffers(batch["text"])
    marks = np.array([ord(char) for char in params.end_marks], np.int32)
    limits = np.array([params.min_words, params.max_word_chars, bool(params.end_marks)], np.int64)
    phrases = compiled({1: PLACEHOLDER, 2: params.scripts, 4: params.policy})
    out = np.empty(int(offsets[-1] - offsets[0]) + batch.num_rows + 1, np.uint8)
    places = np.zeros(batch.num_rows + 1, np.int64)
    counts = np.zeros((batch.num_rows, len(kernels.CLEANING)), np.int64)
    table = characters.classes()
    kernels.clean_lines(data, offsets, limits, marks, params.any_script, params.citations, table, *phrases, out, places, counts)
    text = pa.LargeStringArray.from_buffers(batch.num_rows, pa.py_buffer(places), pa.py_buffer(out[: places[-1]]))
    batch = batch.set_column(batch.schema.get_field_index("text"), "text", text)
    if params.stats:
        for name, values in zip(LINE_STATS, counts.T, strict=True):
            batch = batch.append_column(name, pa.array(values.astype(np.int32)))
    return batch


class Page(Worded):
    """Parameters of `page`; defaults are those of C4."""

    min_sentences: int | None = Field(5, description="Fewest sentences; null switches the rule off.")
    placeholder: tuple[str, ...] = Field(PLACEHOLDER, description="A page with one of these phrases goes.")
    curly_bracket: bool = Field(True, description="A page with an opening curly bracket goes.")


def _writes_page(params: Any) -> dict[str, pa.DataType]:
    return {"drop_reason": pa.string(), **({"c4_sentences": pa.int32()} if params.stats else {})}


@map_stage(version=1, reads=reads_words, writes=_writes_page, derived=PROVIDERS)
def page(batch: pa.Table, params: Page) -> pa.Table:
    """C4's rules for whole pages, after `lines`: `text` and its words in, `drop_reason` out.

    Reasons, in order: placeholder, curly_bracket, too_few_sentences. A sentence begins with every line and after every
    token that is one sentence terminal, once a token follows that is no punctuation (with plain words: after white space).
    """
    from stages.filters import line_kernels as kernels
    from stages.splitting import AFTER_SPACE

    data, offsets = text_buffers(batch["text"])
    tokens, starts = token_view(batch[column_of(params.words)])
    found, brackets, sentences = (np.zeros(batch.num_rows, np.int64) for _ in range(3))
    kernels.phrase_rows(data, offsets, *compiled({1: params.placeholder}), found)
    kernels.byte_rows(data, offsets, ord("{"), brackets)
    kernels.sentence_counts(tokens, starts, AFTER_SPACE if params.words == "plain" else 0, sentences)
    rules = [
        Rule("placeholder", found > 0),
        Rule("curly_bracket", (brackets > 0) & params.curly_bracket),
        Rule("too_few_sentences", below(sentences, params.min_sentences)),
    ]
    reasons = verdict(rules, languages(batch, params), params)
    return with_columns(batch, reasons, {"c4_sentences": sentences}, _writes_page(params))
