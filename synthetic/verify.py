"""Checks of a rewritten text against its source: what a language model wrote does not become data unseen.

Peers keep whatever came back. Here every rewrite passes this step before it counts; each reason is a column value that one
can count by prompt and model. Limits are parameters; the defaults were set on rewrites of small models, which fail often.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable

import pyarrow as pa
from pydantic import Field

from stages.contract import TEXT, Params, map_stage
from synthetic.answers import has_preamble, is_commentary, is_refusal

_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"\d+(?:[.,:/]\d+)*")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_NAME = re.compile(r"(?<![.!?:\n\"\u201c] )(?<!^)\b([A-Z][\w'-]+(?: [A-Z][\w'-]+)*)", re.MULTILINE)
_GRAM = 8
"""Words of an n-gram that counts as copied."""


class Rewrite(Params):
    """Limits of an acceptable rewrite."""

    min_length_ratio: float = Field(0.2, ge=0, description="Words of the rewrite over words of the source, at least.")
    max_length_ratio: float = Field(3.0, gt=0, description="Words of the rewrite over words of the source, at most.")
    max_repetition: float = Field(
        0.3, ge=0, le=1, description="Share of 5-word sequences that occurred before in the rewrite, at most."
    )
    max_copy_rate: float = Field(
        0.9, ge=0, le=1, description="Share of the rewrite's 8-word sequences that stand in the source, at most."
    )
    min_overlap: float = Field(
        0.3, ge=0, le=1, description="Share of the rewrite's long words (5 letters or more) that stand in the source, at least."
    )
    min_numbers_known: float = Field(
        1.0, ge=0, le=1, description="Share of the rewrite's numbers that stand in the source, at least."
    )
    min_names_known: float = Field(
        0.8, ge=0, le=1, description="Share of the rewrite's capitalised names that stand in the source, at least."
    )
    min_numbers_kept: float = Field(
        0.0, ge=0, le=1, description="Share of the source's numbers that stand in the rewrite, at least."
    )
    commentary: bool = Field(
        False, description="Whether a rewrite may speak of `the text`, of rewriting or of itself where its source does not."
    )
    languages: tuple[str, ...] = Field(
        (), description="Languages the rewrite may have; empty: not asked. Needs a language column made after the rewrite."
    )


MEASURES = {
    "length_ratio": pa.float32(), "repetition": pa.float32(), "copy_rate": pa.float32(), "overlap": pa.float32(),
    "numbers_known": pa.float32(), "names_known": pa.float32(), "numbers_kept": pa.float32(),
}  # fmt: skip


@map_stage(
    version=2,
    reads=lambda p: {"text": TEXT, "source_text": TEXT, **({"language": pa.string()} if p.languages else {})},
    writes={**MEASURES, "drop_reason": pa.string()},
)
def rewrites(batch: pa.Table, params: Rewrite) -> pa.Table:
    """Measure each rewrite against its source and name the first limit it breaks.

    Reasons in this order: refusal, preamble, commentary, language, too_short, too_long, repetition, copy, unrelated,
    invented_number, invented_name, lost_numbers. A passage that is followed by its question-answer pairs is measured by the
    pairs alone, and these may speak of it.
    """
    languages = batch["language"].to_pylist() if params.languages else [None] * batch.num_rows
    columns: dict[str, list[float | str | None]] = {name: [] for name in (*MEASURES, "drop_reason")}
    for text, source, language in zip(batch["text"].to_pylist(), batch["source_text"].to_pylist(), languages, strict=True):
        measured = measure(text or "", source or "")
        for name in MEASURES:
            columns[name].append(round(measured[name], 4))
        columns["drop_reason"].append(_reason(text or "", source or "", measured, language, params))
    schema = pa.schema([*MEASURES.items(), ("drop_reason", pa.string())])
    return pa.table(columns, schema=schema)


def measure(text: str, source: str) -> dict[str, float]:
    """The measures of one rewrite; shares of nothing are 1 (nothing was invented) and 0 for repetition and copying."""
    new = _new(text, source)
    ours, theirs = _words(new), _words(source)
    known = set(theirs)
    long = [w for w in ours if len(w) > 4 or _CJK.match(w)]
    numbers, there = _NUMBER.findall(new), set(_NUMBER.findall(source))
    names = [part.lower() for name in _NAME.findall(new) for part in name.split()]
    return {
        "length_ratio": len(ours) / max(len(theirs), 1),
        "repetition": _repetition(ours),
        "copy_rate": _share(_grams(ours, _GRAM), set(_grams(theirs, _GRAM)).__contains__, 0.0),
        "overlap": _share(long, known.__contains__, 1.0),
        "numbers_known": _share(numbers, there.__contains__, 1.0),
        "names_known": _share(names, known.__contains__, 1.0),
        "numbers_kept": _share(sorted(there), set(numbers).__contains__, 1.0),
    }


def _new(text: str, source: str) -> str:
    """What the model wrote, where its source stands before it."""
    behind = text[len(source) :] if source and text.startswith(source) else ""
    return behind if behind.strip() else text


def _words(text: str) -> list[str]:
    """Lower-case words; a Chinese, Japanese or Korean character is a word."""
    return _WORD.findall(_CJK.sub(lambda m: f" {m.group()} ", text.lower()))


def _grams(words: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def _repetition(words: list[str]) -> float:
    counts = Counter(_grams(words, 5))
    total = sum(counts.values())
    return (total - len(counts)) / total if total else 0.0


def _share(items: Iterable[object], known: Callable[[object], bool], empty: float) -> float:
    judged = [known(item) for item in items]
    return sum(judged) / len(judged) if judged else empty


def _reason(text: str, source: str, m: dict[str, float], language: str | None, p: Rewrite) -> str | None:
    judged = (
        ("refusal", is_refusal(text)),
        ("preamble", has_preamble(text)),
        ("commentary", not p.commentary and _new(text, source) is text and is_commentary(text, source)),
        ("language", bool(p.languages) and language not in p.languages),
        ("too_short", m["length_ratio"] < p.min_length_ratio),
        ("too_long", m["length_ratio"] > p.max_length_ratio),
        ("repetition", m["repetition"] > p.max_repetition),
        ("copy", m["copy_rate"] > p.max_copy_rate),
        ("unrelated", m["overlap"] < p.min_overlap),
        ("invented_number", m["numbers_known"] < p.min_numbers_known),
        ("invented_name", m["names_known"] < p.min_names_known),
        ("lost_numbers", m["numbers_kept"] < p.min_numbers_kept),
    )
    return next((reason for reason, broken in judged if broken), None)
