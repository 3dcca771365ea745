"""The plan says what an exchange costs before it runs, and exactly once its emits are there."""

from __future__ import annotations

import pytest

from pipelines.exchange import exchanges
from pipelines.explain import as_json, describe

RECIPE = """
name: near
steps:
  read:     {uses: stages.ingest.jsonl.rows, with: {paths: "${here}/rows*.jsonl", columns: {id: id}}}
  signed:   {uses: stages.dedup.minhash.signatures, from: read, with: {bands: 4, rows: 2}}
  pairs:    {uses: stages.dedup.minhash.pairs, from: signed, with: {partitions: 3}}
  clusters: {uses: stages.dedup.minhash.clusters, from: pairs, with: {memory_mb: 64}}
  near:     {uses: stages.dedup.minhash.twins, from: clusters, with: {partitions: 2}}
"""


@pytest.fixture
def filled(engine):
    for unit in range(2):
        engine.rows(f"rows{unit}.jsonl", [{"id": f"{unit}{i}", "text": f"text {i} about the mill by the river"} for i in range(10)])
    return engine


def test_before_anything_is_read_the_plan_says_bytes_a_row_and_the_limit_of_the_clusters(filled):
    pairs, clusters, near = exchanges(filled.plan(RECIPE))
    assert (pairs.requests, pairs.rows, pairs.memory) == (2 * 3, None, None)
    # 64 MB of arrays, and one batch of a million edges with key, row, other and the place of a survivor
    assert clusters.memory == (64 << 20) + (1 << 20) * (3 * 8 + 40)
    assert near.requests == 2 * 2
    text = "\n".join(describe(filled.last))
    assert "exchange pairs: 6 requests (2 x 3), 56 bytes a row; a settle holds 56 bytes a row of its part" in text
    assert "exchange clusters: 3 requests (3 x 1), 64 bytes a row; a settle holds 134 MB, 56 bytes of scratch files a row" in text


def test_once_rows_are_counted_it_estimates_and_once_they_are_emitted_it_knows(filled, inline):
    def stops(task):
        if "part 0 of 3" in task.unit.name:
            raise OSError(28, "the disk is full")

    only = RECIPE.partition("  pairs:")[0]
    assert filled.run(only).code == 0
    pairs, clusters, _ = exchanges(filled.plan(RECIPE))
    assert (pairs.rows, pairs.measured) == (400, False)
    assert pairs.memory == round(1.1 * 400 / 3 * 56)
    assert clusters.rows is None
    with pytest.raises(OSError, match="the disk is full"):
        filled.run(RECIPE, executor=inline(stops))
    pairs, _, _ = exchanges(filled.plan(RECIPE))
    assert (pairs.rows, pairs.measured, pairs.bytes) == (80, True, 80 * 56)
    assert "80 rows, 0.0 MB; a settle holds 0.0 MB" in "\n".join(describe(filled.last))
    assert as_json(filled.last)["exchanges"][0]["rows"] == 80
