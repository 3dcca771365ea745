"""The disk is full while the last shard is written: one clear fault, nothing torn, and the run goes on when there is room."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from manifests.shard import HashingFile

RECIPE = """
name: small
steps:
  lines:  {uses: stages.ingest.jsonl.rows, with: {paths: "${here}/rows.jsonl", columns: {id: id, text: text}}}
  spread: {uses: stages.shuffle.by_hash, from: lines, with: {shards: 3}}
  shards: {uses: stages.export.megatron.shards, from: spread, with: {tokenizer: "${here}/bytes.tiktoken", pattern: '.', specials: {"<|endoftext|>": 256}}}
publish: {small_shards: shards}
"""


def test_a_full_disk_in_the_last_shard_costs_that_shard_only(engines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    straight, full = engines("straight"), engines("full")
    for one in (straight, full):
        one.write("bytes.tiktoken", b"".join(base64.b64encode(bytes([b])) + b" %d\n" % b for b in range(256)))
        one.rows("rows.jsonl", [{"id": f"d{n}", "text": f"line {n} of the mill"} for n in range(60)])
    assert straight.run(RECIPE).code == 0
    real = HashingFile.__init__

    def no_room(self: HashingFile, path: Any) -> None:
        if "/shards-" in str(path) and "part-00002-of-00003.idx" in str(path):
            raise OSError(28, "No space left on device", str(path))
        real(self, path)

    monkeypatch.setattr(HashingFile, "__init__", no_room)
    failed = full.run(RECIPE)
    assert failed.code == 1
    assert "part 2 of 3" in failed.errors[0]
    assert "No space left on device" in failed.errors[0]
    assert not full.store.records("refs")
    parts = sorted(p.name for p in (full.store.root / "objects").glob("shards-*/parts/*"))
    assert [p for p in parts if p.startswith("part-00002")] == []
    assert len([p for p in parts if p.endswith(".bin")]) == 2
    monkeypatch.setattr(HashingFile, "__init__", real)
    plan = full.plan(RECIPE)
    assert [len(action.tasks) for action in plan.actions] == [1, 1]
    assert full.run(RECIPE).code == 0
    assert full.digests() == straight.digests()
