"""The Gopher rules: which documents are prose, and which repeat themselves.

Source: Rae et al. 2021, Scaling Language Models (arXiv 2112.11446), section A1.1 and table A1. Details that the paper
leaves open (what a word, a symbol and a line is) follow datatrove 0.10's reading of it, so that thresholds mean the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from annotated_types import Ge
from numpy.typing import NDArray
from pydantic import Field

from stages.analysis import PROVIDERS, column_of, hashes, text_buffers, token_view
from stages.contract import map_stage
from stages.filters.rules import SPACELESS, Rule, Worded, above, below, languages, reads_words, share, verdict, with_columns

Words = dict[str, tuple[str, ...]]

STOP_WORDS: Words = {"en": ("the", "be", "to", "of", "and", "that", "have", "with")}
NOT_ASKED: Words = {"mean_word_too_short": SPACELESS, "mean_word_too_long": SPACELESS}

SHORT_GRAMS: Words = {f"dup_{n}_grams": SPACELESS for n in range(5, 10)}
"""Five to nine characters are two to four words there, and prose repeats such phrases."""


class Quality(Worded):
    """Parameters of `quality`. A limit of null switches its rule off; every default is that of Gopher, section A1.1."""

    min_words: int | None = Field(50, description="Fewest words, symbols not counted.")
    max_words: int | None = Field(100_000, description="Most words, symbols not counted.")
    min_mean_word: float | None = Field(3, description="Shortest mean word, in characters.")
    max_mean_word: float | None = Field(10, description="Longest mean word, in characters.")
    max_hashes: float | None = Field(0.1, description="Most number signs per word.")
    max_ellipses: float | None = Field(0.1, description="Most ellipses per word.")
    max_bullet_lines: float | None = Field(0.9, description="Largest share of lines that begin with a bullet or hyphen.")
    max_ellipsis_lines: float | None = Field(0.3, description="Largest share of lines that end in an ellipsis.")
    min_letter_words: float | None = Field(0.8, description="Smallest share of words with a letter in them.")
    symbols_count: bool | None = Field(
        None, description="Symbols count as words in shares per word; null: with spacy_like words, as in datatrove, and else not."
    )
    min_stop_words: int | None = Field(2, description="Fewest different stop words.")
    stop_words: Words = Field(
        STOP_WORDS,
        description="Stop words by language, as written ('*' for all others); a language without a list is not asked.",
    )
    skip: Words = Field(
        NOT_ASKED,
        description="Reason to languages in which the rule is not asked; '*' switches it off.",
    )


QUALITY_STATS = {
    "gopher_words": pa.int32(), "gopher_mean_word": pa.float32(), "gopher_hashes": pa.float32(), "gopher_ellipses": pa.float32(),
    "gopher_bullet_lines": pa.float32(), "gopher_ellipsis_lines": pa.float32(), "gopher_letter_words": pa.float32(),
    "gopher_stop_words": pa.int32(),
}  # fmt: skip


def _writes_quality(params: Any) -> dict[str, pa.DataType]:
    return {"drop_reason": pa.string(), **(QUALITY_STATS if params.stats else {})}


def _symbols_count(params: Quality) -> bool:
    """Counting commas as words without a letter costs a fifth of English and most Polish and Russian news: parity alone."""
    return params.words == "spacy_like" if params.symbols_count is None else params.symbols_count


def _stop_lists(words: dict[str, tuple[str, ...]], spoken: pa.Array) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Hashes of all lists, where each list begins, and the list of every row (-1: none)."""
    if any(len(set(listed)) > 63 for listed in words.values()):
        raise ValueError("stop_words: at most 63 words a language")
    names = [name for name in words if name != "*"]
    flat = [word for name in (*names, "*") for word in sorted(set(words.get(name, ())))]
    ranges = np.cumsum([0] + [len(set(words.get(name, ()))) for name in (*names, "*")])
    found = pa.compute.index_in(spoken, value_set=pa.array(names, pa.string()))
    lists = np.asarray(found.fill_null(len(names) if "*" in words else -1)).astype(np.int64)
    return hashes(flat), ranges, lists


@map_stage(version=1, reads=reads_words, writes=_writes_quality, derived=PROVIDERS)
def quality(batch: pa.Table, params: Quality) -> pa.Table:
    """Gopher's quality rules: `text` and its words in, `drop_reason` out, and with `stats` the values that decided.

    Reasons, in order: too_few_words, too_many_words, mean_word_too_short, mean_word_too_long, too_many_hashes,
    too_many_ellipses, too_many_bullet_lines, too_many_ellipsis_lines, too_few_letter_words, too_few_stop_words.
    Words are tokens that are more than symbols; from the fifth rule on `symbols_count` decides. Stop words are asked of
    English alone unless lists are given; mean word length is not asked of languages written without spaces.
    Source: arXiv 2112.11446, A1.1.
    """
    from stages.filters import quality_kernel

    spoken = languages(batch, params)
    data, offsets = text_buffers(batch["text"])
    tokens, starts = token_view(batch[column_of(params.words)])
    counts = np.zeros((batch.num_rows, len(quality_kernel.COUNTS)), np.int64)
    stops, ranges, lists = _stop_lists(params.stop_words, spoken)
    quality_kernel.quality_counts(data, offsets, tokens, starts, stops, ranges, lists, counts)
    n = dict(zip(quality_kernel.COUNTS, counts.T, strict=True))
    whole = n["words"] if _symbols_count(params) else n["solid_words"]
    values = {
        "gopher_words": n["solid_words"],
        "gopher_mean_word": share(n["solid_chars"], n["solid_words"]),
        "gopher_hashes": share(n["hashes"], whole),
        "gopher_ellipses": share(n["ellipses"], whole),
        "gopher_bullet_lines": share(n["bullet_lines"], n["lines"]),
        "gopher_ellipsis_lines": share(n["ellipsis_lines"], n["lines"]),
        "gopher_letter_words": share(n["letter_words"], whole),
        "gopher_stop_words": n["stop_words"],
    }
    return with_columns(batch, verdict(_quality_rules(values, lists, params), spoken, params), values, _writes_quality(params))


def _quality_rules(values: dict[str, NDArray[Any]], lists: NDArray[Any], params: Quality) -> list[Rule]:
    """The rules in the order in which they are named."""
    return [
        Rule("too_few_words", below(values["gopher_words"], params.min_words)),
        Rule("too_many_words", above(values["gopher_words"], params.max_words)),
        Rule("mean_word_too_short", below(values["gopher_mean_word"], params.min_mean_word)),
        Rule("mean_word_too_long", above(values["gopher_mean_word"], params.max_mean_word)),
        Rule("too_many_hashes", above(values["gopher_hashes"], params.max_hashes)),
        Rule("too_many_ellipses", above(values["gopher_ellipses"], params.max_ellipses)),
        Rule("too_many_bullet_lines", above(values["gopher_bullet_lines"], params.max_bullet_lines)),
        Rule("too_many_ellipsis_lines", above(values["gopher_ellipsis_lines"], params.max_ellipsis_lines)),
        Rule("too_few_letter_words", below(values["gopher_letter_words"], params.min_letter_words)),
        Rule("too_few_stop_words", below(values["gopher_stop_words"], params.min_stop_words) & (lists >= 0)),
    ]


class Repetition(Worded):
    """Parameters of `repetition`: largest shares, null switches a rule off. Every default is from Gopher's table A1."""

    max_dup_paragraphs: float | None = Field(0.3, description="Largest share of paragraphs that stood before.")
    max_dup_paragraph_chars: float | None = Field(0.2, description="Largest share of characters in such paragraphs.")
    max_dup_lines: float | None = Field(0.3, description="Largest share of lines that stood before.")
    max_dup_line_chars: float | None = Field(0.2, description="Largest share of characters in such lines.")
    top_grams: dict[Annotated[int, Ge(2)], float] = Field(
        {2: 0.20, 3: 0.18, 4: 0.16}, description="By n: largest share of characters in the most frequent n-gram of words."
    )
    dup_grams: dict[Annotated[int, Ge(2)], float] = Field(
        {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10},
        description="By n: largest share of characters in n-grams of words that stood before.",
    )
    skip: Words = Field(SHORT_GRAMS, description="Reason to languages in which the rule is not asked; '*' switches it off.")


def _writes_repetition(params: Any) -> dict[str, pa.DataType]:
    if not params.stats:
        return {"drop_reason": pa.string()}
    names = [f"gopher_{name}" for name in ("dup_paragraphs", "dup_paragraph_chars", "dup_lines", "dup_line_chars")]
    names += [f"gopher_top_{n}_gram" for n in sorted(params.top_grams)]
    names += [f"gopher_dup_{n}_grams" for n in sorted(params.dup_grams)]
    return {"drop_reason": pa.string(), **dict.fromkeys(names, pa.float32())}


@map_stage(version=1, reads=reads_words, writes=_writes_repetition, derived=PROVIDERS)
def repetition(batch: pa.Table, params: Repetition) -> pa.Table:
    """Gopher's repetition rules: `text` and its words in, `drop_reason` out, and with `stats` the shares that decided.

    Reasons, in order: empty, dup_paragraphs, dup_paragraph_chars, dup_lines, dup_line_chars, top_N_gram, dup_N_grams.
    Paragraphs are cut at blank lines, lines at line feeds; shares of characters are of the whole text; n-grams are of
    tokens, symbols among them. Source: arXiv 2112.11446, table A1.
    """
    from stages.filters import repetition_kernel as kernels

    data, offsets = text_buffers(batch["text"])
    tokens, starts = token_view(batch[column_of(params.words)])
    counts = np.zeros((batch.num_rows, len(kernels.PARTS)), np.int64)
    kernels.part_counts(data, offsets, counts)
    longest = max([1, *params.top_grams, *params.dup_grams])
    top, dup = (np.zeros((batch.num_rows, longest + 1), np.int64) for _ in range(2))
    kernels.gram_chars(tokens, starts, longest, top, dup)
    n = dict(zip(kernels.PARTS, counts.T, strict=True))
    values = {
        "gopher_dup_paragraphs": share(n["dup_paragraphs"], n["paragraphs"]),
        "gopher_dup_paragraph_chars": share(n["dup_paragraph_chars"], n["chars"]),
        "gopher_dup_lines": share(n["dup_lines"], n["lines"]),
        "gopher_dup_line_chars": share(n["dup_line_chars"], n["chars"]),
    }
    values |= {f"gopher_top_{size}_gram": share(top[:, size], n["chars"]) for size in params.top_grams}
    values |= {f"gopher_dup_{size}_grams": share(dup[:, size], n["chars"]) for size in params.dup_grams}
    rules = [Rule("empty", n["chars"] == 0), *_repetition_rules(values, params)]
    return with_columns(batch, verdict(rules, languages(batch, params), params), values, _writes_repetition(params))


def _repetition_rules(values: dict[str, NDArray[Any]], params: Repetition) -> Iterator[Rule]:
    """The rules after `empty`, in the order in which they are named."""
    limits: dict[str, float | None] = {
        name: getattr(params, f"max_{name}") for name in ("dup_paragraphs", "dup_paragraph_chars", "dup_lines", "dup_line_chars")
    }
    limits |= {f"top_{size}_gram": params.top_grams[size] for size in sorted(params.top_grams)}
    limits |= {f"dup_{size}_grams": params.dup_grams[size] for size in sorted(params.dup_grams)}
    for reason, limit in limits.items():
        yield Rule(reason, above(values[f"gopher_{reason}"], limit))
