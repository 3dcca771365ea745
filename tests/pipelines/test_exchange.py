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


MERGED = """
name: merged
steps:
  read:  {uses: stages.ingest.jsonl.rows, with: {paths: "${here}/rows*.jsonl", columns: {id: id}}}
  mixed: {uses: stages.shuffle.by_hash, from: read, with: {shards: 2, seed: 3}}
  exact: {uses: stages.dedup.exact.documents, from: read, with: {partitions: 2}}
  sizes: {uses: mine.sizes, from: exact}
"""
SIZES = '''
import pyarrow as pa
import pyarrow.compute as pc
from stages.contract import Params, reduce_stage


class Plain(Params):
    """No parameters."""


def summed(table, params):
    found = table.group_by("key").aggregate([("n", "sum")])
    return pa.table({"key": found["key"], "n": found["n_sum"]}, schema=pa.schema({"key": pa.uint64(), "n": pa.int64()}))


def settle(batches, params):
    for batch in batches:
        lengths = pc.shift_right(batch["key"], pa.scalar(62, pa.uint64()))
        yield pa.table({"length": lengths.cast(pa.int64()), "n": batch["n"]})


@reduce_stage(
    version=1, reads={"text": pa.large_string()}, emits={"key": pa.uint64(), "n": pa.int64()}, settle=settle,
    writes={"length": pa.int64(), "n": pa.int64()}, result="dataset", combine=summed, partitions=lambda params: 2,
)
def sizes(batch: pa.Table, params: Plain) -> pa.Table:
    """How many texts have a length, modulo 4."""
    lengths = pc.utf8_length(batch["text"]).cast(pa.uint64())
    return pa.table({"key": pc.shift_left(lengths, pa.scalar(62, pa.uint64())), "n": pa.array([1] * len(lengths), pa.int64())})
'''


@pytest.fixture
def seven(engines):
    def make(name):
        engine = engines(name)
        engine.write("mine.py", SIZES)
        for unit in range(7):
            engine.rows(f"rows{unit}.jsonl", [{"id": f"{unit}{i}", "text": f"text {i * unit % 9} of the mill"} for i in range(10)])
        return engine

    return make


def test_more_spills_than_a_settle_should_read_are_merged_first_with_the_same_bytes(seven, inline, monkeypatch):
    plain, merged = seven("plain"), seven("merged")
    assert plain.run(MERGED).code == 0
    assert not any(a.do == "merge" for a in plain.last.actions)
    monkeypatch.setattr("pipelines.plan.MANY", 6)
    monkeypatch.setattr("pipelines.plan.FAN_IN", 3)
    plan = merged.plan(MERGED)
    assert "exchange exact: 13 requests (7 to merge, then 3 x 2)" in "\n".join(describe(plan))

    def stops(task):
        if "spills 1 of 3" in task.unit.name:
            raise OSError(28, "the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        merged.run(MERGED, executor=inline(stops))
    plan = merged.plan(MERGED)
    assert any(a.do == "merge" and len(a.tasks) == 2 and a.total == 3 for a in plan.actions), "a merged spill is not merged again"
    assert exchanges(plan)[0].measured
    assert merged.run(MERGED).code == 0
    assert merged.digests() == plain.digests()
    assert not list((merged.store.root / "spills").glob("*/parts/*")), "nothing of the exchange is left"
    assert merged.plan(MERGED).tasks == 0
