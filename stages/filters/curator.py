"""The English heuristic cascade of NeMo Curator, which Nemotron-CC runs on its lower-quality data.

Source: order and thresholds of Curator's English heuristic configuration (25.x); Nemotron-CC (arXiv 2412.02595) cites
Parmar et al. 2024 (arXiv 2407.06380) for them. Words are cut at white space, as there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from annotated_types import Ge
from numpy.typing import NDArray
from pydantic import Field

from stages import characters
from stages.analysis import PROVIDERS, hashes, text_buffers, token_view
from stages.contract import TEXT, map_stage
from stages.filters.phrases import compiled
from stages.filters.rules import Judged, Rule, above, below, languages, share, verdict, with_columns

BOILERPLATE = (
    "terms of use", "privacy policy", "cookie policy", "uses cookies", "privacy overview", "use of cookies", "use cookies",
    "privacy & cookies policy", "privacy and cookies policy", "lorem ipsum",
)  # fmt: skip
COMMON = ("the", "be", "to", "of", "and", "that", "have", "with")


class English(Judged):
    """Parameters of `english`; null switches a rule off. Every default is Curator's, in the order of its cascade."""

    languages: tuple[str, ...] = Field(("en",), description="Languages that are judged; rows of all others stand.")
    max_other_chars: float | None = Field(0.25, description="Largest share of characters that are neither letter, digit nor space.")
    max_symbols: float | None = Field(0.1, description="Most number signs and ellipses per word.")
    max_digits: float | None = Field(0.15, description="Largest share of digits.")
    max_url_chars: float | None = Field(0.2, description="Largest share of characters in addresses.")
    max_spaces: float | None = Field(0.25, description="Largest share of white space.")
    max_brackets: float | None = Field(0.1, description="Largest share of round brackets.")
    max_boilerplate: float | None = Field(0.4, description="Largest share of paragraphs with a boilerplate phrase.")
    boilerplate_at_edge: bool = Field(True, description="Also drop when the first or last paragraph has such a phrase.")
    boilerplate: tuple[str, ...] = Field(BOILERPLATE, description="Boilerplate phrases, compared without case.")
    min_unique_lines: float | None = Field(0.7, description="Smallest share of lines that are unique.")
    min_unique_paragraphs: float | None = Field(0.7, description="Smallest share of paragraphs that are unique.")
    min_unique_line_chars: float | None = Field(0.8, description="Smallest share of characters outside repeated lines.")
    min_unique_paragraph_chars: float | None = Field(0.8, description="Smallest share of characters outside repeated paragraphs.")
    min_words: int | None = Field(50, description="Fewest words.")
    max_words: int | None = Field(100_000, description="Most words.")
    max_open_lines: float | None = Field(0.85, description="Largest share of lines without an end mark.")
    end_marks: str = Field('.?!"”', description="Characters that end a sentence.")
    min_letter_words: float | None = Field(0.8, description="Smallest share of words with a letter.")
    min_common_words: int | None = Field(2, description="Fewest different common English words.")
    common_words: tuple[str, ...] = Field(COMMON, description="Common English words, as written.", max_length=63)
    min_mean_word: float | None = Field(3, description="Shortest mean word, in characters.")
    max_mean_word: float | None = Field(10, description="Longest mean word, in characters.")
    max_longest_word: int | None = Field(1000, description="Characters of the longest word.")
    max_ellipsis_lines: float | None = Field(0.3, description="Largest share of lines that end in an ellipsis.")
    top_grams: dict[Annotated[int, Ge(2)], float] = Field(
        {2: 0.20, 3: 0.18, 4: 0.16}, description="By n: largest share of characters in the most frequent n-gram."
    )
    dup_grams: dict[Annotated[int, Ge(2)], float] = Field(
        {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10},
        description="By n: largest share of characters in n-grams that stood before.",
    )
    max_bullet_lines: float | None = Field(0.9, description="Largest share of lines that begin with a bullet.")


def _writes(params: Any) -> dict[str, pa.DataType]:
    if not params.stats:
        return {"drop_reason": pa.string()}
    names = [f"curator_{name}" for name in STATS]
    names += [f"curator_top_{n}_gram" for n in sorted(params.top_grams)]
    names += [f"curator_dup_{n}_grams" for n in sorted(params.dup_grams)]
    return {"drop_reason": pa.string(), **dict.fromkeys(names, pa.float32())}


STATS = (
    "other_chars", "symbols", "digits", "url_chars", "spaces", "brackets", "boilerplate", "dup_lines", "dup_paragraphs",
    "dup_line_chars", "dup_paragraph_chars", "words", "open_lines", "letter_words", "common_words", "mean_word", "longest_word",
    "ellipsis_lines", "bullet_lines",
)  # fmt: skip


def _counted(batch: pa.Table, params: English) -> dict[str, NDArray[Any]]:
    """All raw counts by name, from the kernels of three families."""
    from stages.filters import curator_kernel, quality_kernel, repetition_kernel

    data, offsets = text_buffers(batch["text"])
    tokens, starts = token_view(batch["analysis"])
    rows = batch.num_rows
    own, prose, parts = (
        np.zeros((rows, len(m)), np.int64) for m in (curator_kernel.COUNTS, quality_kernel.COUNTS, repetition_kernel.PARTS)
    )
    marks = np.array([ord(char) for char in params.end_marks], np.int32)
    curator_kernel.counts(data, offsets, tokens, starts, marks, characters.classes(), *compiled({1: params.boilerplate}), own)
    stops = hashes(sorted(set(params.common_words)))
    ranges = np.array([0, len(stops)], np.int64)
    quality_kernel.quality_counts(data, offsets, tokens, starts, stops, ranges, np.zeros(rows, np.int64), prose)
    repetition_kernel.part_counts(data, offsets, parts)
    longest = max([1, *params.top_grams, *params.dup_grams])
    top, dup = (np.zeros((rows, longest + 1), np.int64) for _ in range(2))
    repetition_kernel.gram_chars(tokens, starts, longest, top, dup)
    found = {f"prose_{name}": column for name, column in zip(quality_kernel.COUNTS, prose.T, strict=True)}
    found |= dict(zip(repetition_kernel.PARTS, parts.T, strict=True))
    found |= {f"own_{name}": column for name, column in zip(curator_kernel.COUNTS, own.T, strict=True)}
    return found | {f"top_{n}": top[:, n] for n in params.top_grams} | {f"dup_{n}": dup[:, n] for n in params.dup_grams}


def _values(n: dict[str, NDArray[Any]], params: English) -> dict[str, NDArray[Any]]:
    """The measures that the rules compare, in the order of STATS and then the n-grams."""
    chars, words = n["own_chars"], n["own_words"]
    found = [share(n[f"own_{name}"], chars) for name in ("other_chars", "digits", "url_chars", "spaces", "brackets")]
    found.insert(1, share(n["prose_hashes"] + n["prose_ellipses"], words))
    found += [share(n["own_boilerplate"], n["own_paragraphs"])]
    found += [share(n["dup_lines"], n["lines"]), share(n["dup_paragraphs"], n["paragraphs"])]
    found += [share(n["dup_line_chars"], chars), share(n["dup_paragraph_chars"], chars), words]
    found += [share(n["own_open_lines"], n["own_lines"]), share(n["own_letter_words"], words), n["prose_stop_words"]]
    found += [share(n["own_word_chars"], words), n["own_longest_word"]]
    found += [share(n[f"prose_{name}"], n["own_lines"]) for name in ("ellipsis_lines", "bullet_lines")]
    named = {f"curator_{name}": value for name, value in zip(STATS, found, strict=True)}
    named |= {f"curator_top_{size}_gram": share(n[f"top_{size}"], chars) for size in sorted(params.top_grams)}
    return named | {f"curator_dup_{size}_grams": share(n[f"dup_{size}"], chars) for size in sorted(params.dup_grams)}


def _rules(v: dict[str, NDArray[Any]], at_edge: NDArray[Any], p: English) -> Iterator[Rule]:
    """The cascade, in Curator's order."""
    value = {name.removeprefix("curator_"): column for name, column in v.items()}
    for name in ("other_chars", "symbols", "digits", "url_chars", "spaces", "brackets"):
        yield Rule(f"too_many_{name}", above(value[name], getattr(p, f"max_{name}")))
    edge = at_edge & (p.boilerplate_at_edge and p.max_boilerplate is not None)
    yield Rule("boilerplate", above(value["boilerplate"], p.max_boilerplate) | edge)
    for name in ("lines", "paragraphs", "line_chars", "paragraph_chars"):
        least = getattr(p, f"min_unique_{name}")
        yield Rule(f"repeated_{name}", below(1 - value[f"dup_{name}"], least))
    yield Rule("too_few_words", below(value["words"], p.min_words))
    yield Rule("too_many_words", above(value["words"], p.max_words))
    yield Rule("too_many_open_lines", above(value["open_lines"], p.max_open_lines))
    yield Rule("too_few_letter_words", below(value["letter_words"], p.min_letter_words))
    yield Rule("too_few_common_words", below(value["common_words"], p.min_common_words))
    yield Rule("mean_word_too_short", below(value["mean_word"], p.min_mean_word))
    yield Rule("mean_word_too_long", above(value["mean_word"], p.max_mean_word))
    yield Rule("word_too_long", above(value["longest_word"], p.max_longest_word))
    yield Rule("too_many_ellipsis_lines", above(value["ellipsis_lines"], p.max_ellipsis_lines))
    for size, limit in sorted(p.top_grams.items()):
        yield Rule(f"top_{size}_gram", above(value[f"top_{size}_gram"], limit))
    for size, limit in sorted(p.dup_grams.items()):
        yield Rule(f"dup_{size}_grams", above(value[f"dup_{size}_grams"], limit))
    yield Rule("too_many_bullet_lines", above(value["bullet_lines"], p.max_bullet_lines))


@map_stage(
    version=1, reads={"text": TEXT, "language": pa.string(), "analysis": pa.large_binary()}, writes=_writes, derived=PROVIDERS
)
def english(batch: pa.Table, params: English) -> pa.Table:
    """Curator's English cascade: `text` and its words in, `drop_reason` out, and with `stats` the values that decided.

    Reasons, in order: too_many_other_chars, _symbols, _digits, _url_chars, _spaces, _brackets; boilerplate;
    repeated_lines, _paragraphs, _line_chars, _paragraph_chars; too_few_words, too_many_words, too_many_open_lines,
    too_few_letter_words, too_few_common_words, mean_word_too_short, mean_word_too_long, word_too_long,
    too_many_ellipsis_lines, top_N_gram, dup_N_grams, too_many_bullet_lines. Nemotron-CC never applies it to documents that
    its classifiers call high quality: use `where`. Rows of other languages stand (`languages`).
    """
    spoken = languages(batch, params)
    counted = _counted(batch, params)
    values = _values(counted, params)
    rules = list(_rules(values, counted["own_boilerplate_at_edge"] > 0, params))
    judged = np.asarray(pc.is_in(spoken, value_set=pa.array(params.languages, pa.string())))
    rules = [Rule(rule.reason, rule.failing & judged) for rule in rules]
    return with_columns(batch, verdict(rules, spoken, params), values, _writes(params))
