"""Synthetic retrieval documents and buckets by length."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from stages.lengths import Lengths, by_tokens
from stages.retrieval import Retrieval, documents
from stages.tokenizers import Tokenizer

WORDS = Tokenizer(lambda texts: [np.arange(len(re.findall(r"\w+|[^\w\s]|\n", t)), dtype=np.int32) for t in texts], 100, 0, None)
SMALL: dict[str, Any] = {"documents": 12, "min_tokens": 1024, "max_tokens": 4096, "unit_documents": 5}


def made(**params: Any) -> list[dict[str, Any]]:
    settings = Retrieval.model_validate(SMALL | params)
    units = list(documents.units(settings))
    return [row for unit in units for chunk in documents.read(unit, settings, model=WORDS) for row in chunk.rows.to_pylist()]


def test_every_answer_can_be_found_by_reading_the_document() -> None:
    rows = made()
    assert [row["kind"] for row in rows[:3]] == ["lookup", "latest", "several"]
    for row in rows:
        facts = re.findall(r"^The number of (.*) is (\d+)\.$", row["text"], re.MULTILINE)
        last = dict(facts)
        asked = re.findall(r"^Question: (.*)\nAnswer: (.*)$", row["text"], re.MULTILINE)
        assert [answer for _, answer in asked] == row["answers"]
        assert len(asked) == 8
        for question, answer in asked:
            keys = [key for key in last if key + "?" in question or key + "," in question]
            assert sorted(answer.split(", ")) == sorted(last[key] for key in keys)
        assert (len(facts) > len(last)) == (row["kind"] == "latest")


def test_lengths_are_spread_and_never_over_the_limit() -> None:
    rows = made(documents=40)
    tokens = [row["tokens"] for row in rows]
    assert all(len(WORDS.encode([row["text"]])[0]) == row["tokens"] for row in rows)
    assert max(tokens) <= 4096
    assert min(tokens) < 1500 < 3000 < max(tokens)
    assert all(n > 950 for n in tokens)


def test_documents_depend_on_seed_and_number_alone() -> None:
    assert made() == made(unit_documents=3) != made(seed=1)
    assert [row["text"] for row in made(documents=4)] == [row["text"] for row in made()][:4]
    assert len({row["text"] for row in made()}) == 12


def test_lengths_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(ValueError, match="min_tokens is 9000, max_tokens 4096"):
        list(documents.units(Retrieval.model_validate(SMALL | {"min_tokens": 9000})))


def test_buckets_are_named_by_where_they_end() -> None:
    table = pa.table({"id": list("abcdef"), "tokens": pa.array([1, 4096, 4097, 524_288, 524_289, None], pa.int64())})
    assert by_tokens(table, Lengths())["length_bucket"].to_pylist() == ["to_4k", "to_4k", "to_32k", "to_512k", "over_512k", None]
    assert by_tokens(table, Lengths(edges=(100,)))["length_bucket"].to_pylist()[:2] == ["to_100", "over_100"]
    with pytest.raises(ValueError, match="they have to rise"):
        Lengths(edges=(5, 5))
