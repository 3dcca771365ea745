"""What a text looks like, in numbers: length, lines, sentences, words, marks. Features for a linear head.

Forms of what C4, Gopher and FineWeb measure, and of readability formulas, as shares that hardly depend on length. On 265 web
pages judged by people such numbers tell good from poor better than its words or a sentence embedding do
(benchmarks/quality.py): people judged form, and few rows cannot teach a vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import numpy as np
import pyarrow as pa
from pydantic import Field

from stages.contract import TEXT, Params, map_stage

TOKEN = re.compile(r"\w+|[^\w\s]")
SENTENCE = re.compile(r"[.!?。！？]+[\s\"'”’)]")
STATISTICS = pa.list_(pa.float32())
CLOSING = '.!?"”’)。！？'
FUNCTION = frozenset("the be to of and that have with a in is it for was on as are this by at from".split())  # noqa: SIM905
FIRST = frozenset("i me my we our us".split())  # noqa: SIM905
SECOND = frozenset("you your yours".split())  # noqa: SIM905
THIRD = frozenset("he she his her him they their them who".split())  # noqa: SIM905
REPORTING = frozenset("said says told according reported asked wrote explained".split())  # noqa: SIM905
OFFERING = frozenset("free buy shop sale price order discount shipping cart deal deals offer offers click".split())  # noqa: SIM905
FURNITURE = frozenset(
    "copyright reserved login email privacy terms posted comments reply page site website online contact home menu search".split()  # noqa: SIM905
)
LISTS: tuple[frozenset[str], ...] = (FUNCTION, FIRST, SECOND, THIRD, REPORTING, OFFERING, FURNITURE)
MARKS = '!?,:|$"(.#*@'
NAMES = (
    "log_words", "log_lines", "word_length", "line_words_median", "line_words_spread", "line_words_max", "short_lines",
    "closed_lines", "distinct_lines", "sentence_words", "distinct_words", "capitalised", "shouted", "digits", "symbols",
    "ed_words", "ing_words", "closed_end", "ellipses", "links", "the", "function_words", "first_person", "second_person",
    "third_person", "reporting", "offering", "furniture",
    *(f"mark_{ord(mark):x}" for mark in MARKS),
)  # fmt: skip
"""The features, in the order of the vector."""


class Statistics(Params):
    """Where the vector goes."""

    column: str = Field("statistics", description="Name of the column.")
    max_chars: int = Field(20_000, ge=1, description="Characters that are looked at, from the start.")


def _of_lines(text: str, words: int) -> list[float]:
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    count = len(lines)
    sizes = np.array([len(line.split()) for line in lines])
    sentences = max(len(SENTENCE.findall(text + " ")), 1)
    return [
        float(np.log(count)), float(np.median(sizes)), float(sizes.std()), float(sizes.max()),
        sum(len(line) < 30 for line in lines) / count, sum(line[-1] in CLOSING for line in lines) / count,
        len(set(lines)) / count, min(words / sentences, 200.0),
    ]  # fmt: skip


def _share(words: Collection[str], chosen: frozenset[str]) -> float:
    return sum(word in chosen for word in words) / max(len(words), 1)


def statistics_of(text: str) -> list[float]:
    """The vector of one text with something in it; its order is NAMES."""
    tokens = TOKEN.findall(text)
    words = [token for token in tokens if token[0].isalnum()]
    count = max(len(words), 1)
    low = [word.lower() for word in words]
    lines = _of_lines(text, count)
    size = len(text)
    return [
        float(np.log(count)), lines[0], sum(map(len, words)) / count, *lines[1:],
        len(set(low)) / count**0.8, sum(word[0].isupper() for word in words) / count,
        sum(word.isupper() and len(word) > 1 for word in words) / count, sum(map(str.isdigit, text)) / size,
        (len(tokens) - len(words)) / size, sum(word.endswith("ed") for word in low) / count,
        sum(word.endswith("ing") for word in low) / count, float(text.rstrip()[-1] in CLOSING),
        (text.count("...") + text.count("…")) / count, (text.count("http") + text.count("www.")) / count, low.count("the") / count,
        *(_share(low, chosen) for chosen in LISTS), *(text.count(mark) / count for mark in MARKS),
    ]  # fmt: skip


@map_stage(version=1, reads={"text": TEXT}, writes=lambda p: {p.column: STATISTICS})
def measure(batch: pa.Table, params: Statistics) -> pa.Table:
    """The statistics of `text` as one vector a document (`classifiers.statistics.NAMES`), for `classifiers.linear.train`.

    Null for a text with nothing but white space. Word lists are English; the other features hold for any script with spaces.
    """
    texts = [(text or "")[: params.max_chars] for text in batch["text"].to_pylist()]
    return pa.table({params.column: pa.array([statistics_of(t) if t.strip() else None for t in texts], STATISTICS)})
