"""Exports copied to a bucket that fails now and then."""

from __future__ import annotations

import hashlib

import pytest

from manifests.place import place_of
from pipelines.deliver import SUMS, deliver

pytestmark = pytest.mark.far

RECIPE = """
name: out
steps:
  docs:   {uses: stages.ingest.jsonl.rows, with: {paths: "${here}/rows.jsonl", columns: {id: id, text: text}}}
  spread: {uses: stages.shuffle.by_hash, from: docs, with: {shards: 5}}
  files:  {uses: stages.export.parquet.files, from: spread}
publish: {grist: files}
"""


def test_an_export_is_copied_to_a_bucket_and_checked_there(engine, s3) -> None:
    engine.rows("rows.jsonl", [{"id": f"d{n}", "text": f"row {n} of the mill"} for n in range(50)])
    assert engine.run(RECIPE).code == 0
    where = s3.root()
    s3.faults(rate=0.2, kinds=["503", "429"], seed=3)
    assert deliver(engine.store, "grist", where, lambda _: None) == 6
    s3.faults()
    place = place_of(where)
    sums = dict(line.split("  ")[::-1] for line in place.read(SUMS).decode().splitlines())
    assert {key: hashlib.sha256(place.read(key)).hexdigest() for key in sums} == sums
    assert len(sums) == 6
    assert deliver(engine.store, "grist", where, lambda _: None) == 0
    place.remove(next(iter(sums)))
    assert deliver(engine.store, "grist", where, lambda _: None) == 1
