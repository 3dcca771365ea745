"""Rows of a frame that a Reduce made have ids, whether its stage writes them or not."""

from __future__ import annotations

import string

import orjson
import pytest
import zstandard

STAGES = """
import numpy as np
import pyarrow as pa
from stages.contract import TEXT, Params, map_stage, reduce_stage

class Nothing(Params):
    pass

def settled(batches, params):
    for batch in batches:
        yield batch.select(["text"])

@reduce_stage(
    version=1, reads={"text": TEXT}, emits={"key": pa.uint64(), "text": TEXT}, writes={"text": TEXT}, settle=settled,
    result="dataset", partitions=lambda params: 3,
)
def copied(batch, params: Nothing):
    keys = [(len(t) * 0x9E3779B97F4A7C15) % 2**64 for t in batch["text"].to_pylist()]
    return pa.table({"key": pa.array(keys, pa.uint64()), "text": batch["text"]})

@map_stage(version=1, rows="any", reads={"text": TEXT}, writes={"text": TEXT, "k": pa.int32()})
def letters(batch, params: Nothing):
    texts = batch["text"].to_pylist()
    parent = np.repeat(np.arange(len(texts)), [len(t) for t in texts])
    k = [n for t in texts for n in range(len(t))]
    return pa.table({"parent": parent, "k": pa.array(k, pa.int32()), "text": pa.array([c for t in texts for c in t], TEXT)})
"""
RECIPE = """
name: made
steps:
  lines:   {uses: stages.ingest.jsonl.rows, with: {paths: "${here}/rows.jsonl"}}
  copied:  {uses: mine.copied, from: lines}
  spoken:  {uses: stages.clean.unicode.repair, from: copied}
  once:    {uses: stages.dedup.exact.documents, from: spoken, with: {partitions: 2}}
  letters: {uses: mine.letters, from: once}
  whole:   {uses: stages.export.jsonl.files, from: once, with: {known: [id, text]}}
  spelled: {uses: stages.export.jsonl.files, from: letters, with: {known: [id, text]}}
"""


def exported(engine, step):
    target, _ = engine.last.layout.holder[step]
    folder = engine.last.layout.object(target).path / "parts"
    lines = [line for path in sorted(folder.glob("*.jsonl.zst")) for line in decompressed(path)]
    return [orjson.loads(line) for line in lines]


def decompressed(path):
    with zstandard.open(path, "rb") as file:
        return file.read().splitlines()


@pytest.fixture
def made(engine):
    engine.write("mine.py", STAGES)
    texts = ["ab", "ab", "abc", "abcd", "abcd", "abcd", "fine text"]
    engine.rows("rows.jsonl", [{"text": text} for text in texts])
    assert engine.run(RECIPE).code == 0
    return engine


def test_rows_of_a_dataset_have_ids_of_their_own_in_every_later_step(made):
    whole = exported(made, "whole")
    ids = [row["id"] for row in whole]
    assert sorted(row["text"] for row in whole) == ["ab", "abc", "abcd", "fine text"]
    assert len(set(ids)) == 4
    assert all(len(i) == 32 and set(i) <= set(string.hexdigits.lower()) for i in ids)
    parents = {row["id"]: row["text"] for row in whole}
    for row in exported(made, "spelled"):
        parent, _, k = row["id"].partition("#")
        assert parents[parent][int(k)] == row["text"]


def test_a_dropped_row_of_a_dataset_names_its_twin_and_a_second_store_has_the_same_ids(made, engines):
    twins = [row["twin"] for row in made.table("once") if row["twin"] is not None]
    assert len(twins) == 3
    assert set(twins) <= {row["id"] for row in exported(made, "whole")}
    other = engines("other")
    other.write("mine.py", STAGES)
    other.write("rows.jsonl", (made.folder / "rows.jsonl").read_bytes())
    assert other.run(RECIPE).code == 0
    assert exported(other, "whole") == exported(made, "whole")
