"""Exact, near and substring duplicates in one chain: the same survivors whatever happens on the way."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import Engine

from pipelines.executors.local import Local

ROOT = Path(__file__).parents[2]
DRIVE = Path(__file__).with_name("drive.py")
RECIPE = """
name: chained
steps:
  read:     {uses: stages.ingest.jsonl.rows, with: {paths: "${here}/rows*.jsonl", columns: {id: id}}}
  same:     {uses: stages.dedup.exact.documents, from: read, with: {partitions: 2}}
  signed:   {uses: stages.dedup.minhash.signatures, from: same}
  pairs:    {uses: stages.dedup.minhash.pairs, from: signed, with: {partitions: 3}}
  clusters: {uses: stages.dedup.minhash.clusters, from: pairs}
  near:     {uses: stages.dedup.minhash.twins, from: clusters, with: {partitions: 2, keep: [longest]}}
  unique:   {uses: stages.compact.keep, from: near}
  grams:    {uses: stages.dedup.substrings.anchors, from: unique, with: {size: 60, partitions: 2}}
  anchored: {uses: stages.dedup.spans.gather, from: grams, with: {column: anchors, partitions: 2}}
  windows:  {uses: stages.dedup.substrings.repeats, from: anchored, with: {size: 60, partitions: 3}}
  spans:    {uses: stages.dedup.spans.gather, from: windows, with: {partitions: 2}}
  cleared:  {uses: stages.dedup.spans.cut, from: spans, with: {borders: words}}
"""
KILLS = [
    ("before_rename", 3), ("torn_journal_line", 4), ("after_part", 5), ("after_journal", 3), ("before_manifest", 2),
    ("after_drop_spill", 1), ("before_drop_spill", 2), ("torn_draft", 2),
]  # fmt: skip
WORDS = [f"{a}{b}" for a in "bdfgklmnprst" for b in ("an", "orl", "isk", "ult", "em")]


def documents() -> list[dict[str, str]]:
    """120 documents: copies, near copies, and some that share a sentence."""
    rng = random.Random(17)
    shared = [" ".join(rng.choices(WORDS, k=20)) for _ in range(4)]
    found = []
    for number in range(60):
        words = rng.choices(WORDS, k=160)
        text = " ".join([*words[:80], *([shared[number % 4]] if number % 5 == 0 else []), *words[80:]])
        copies = [text, text, text + " end"][: 1 + number % 3]
        found += [{"id": f"{number * 10 + copy:032x}", "text": copy_text} for copy, copy_text in enumerate(copies)]
    return found


def fill(engine: Engine, rows: list[dict[str, str]], shards: int) -> Engine:
    for shard in range(shards):
        engine.rows(f"rows{shard}.jsonl", rows[shard::shards])
    engine.write("recipe.yaml", RECIPE)
    return engine


def fate(engine: Engine) -> tuple[dict[str, str], dict[str, str]]:
    """Text of each survivor, and of each lost document its twin."""
    ids = [row["id"] for row in engine.table("read")]
    lost = {}
    for step in ("same", "near"):
        lost |= {i: row["twin"] for i, row in zip(ids, engine.table(step), strict=True) if row["twin"] is not None}
    kept = [i for i in ids if i not in lost]
    rows = engine.table("cleared")
    assert [row["id"] for row in rows] == kept
    return {row["id"]: row["text"] for row in rows}, lost


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    engine = fill(Engine(tmp_path_factory.mktemp("clean")), documents(), 3)
    assert engine.run(RECIPE).code == 0
    return engine


def test_the_chain_removes_what_was_planted_and_a_second_run_has_nothing_to_do(clean: Engine) -> None:
    texts, lost = fate(clean)
    rows = {row["id"]: row["text"] for row in documents()}
    copies = {f"{n * 10 + 1:032x}": f"{n * 10:032x}" for n in range(60) if n % 3}
    longer = {f"{n * 10:032x}": f"{n * 10 + 2:032x}" for n in range(60) if n % 3 == 2}
    assert lost == copies | longer, "equal texts fall to the smaller id, near ones to the longer text"
    cut = [i for i in texts if texts[i] != rows[i]]
    assert len(cut) == 12 - 4, "of the 12 documents with one of 4 shared sentences, one each keeps it"
    before = clean.digests()
    assert clean.plan(RECIPE).actions == ()
    assert clean.run(RECIPE).tasks == 0
    assert clean.digests() == before


@pytest.mark.parametrize("workers", [1, 4])
def test_any_number_of_workers_gives_the_same_bytes(clean: Engine, engine: Engine, workers: int) -> None:
    fill(engine, documents(), 3)
    executor = Local(workers)
    assert engine.run(RECIPE, executor=executor).code == 0
    executor.close()
    assert engine.digests() == clean.digests()


def test_shards_in_any_order_give_the_same_survivors_and_texts(clean: Engine, engine: Engine) -> None:
    rows = documents()
    random.Random(3).shuffle(rows)
    fill(engine, rows, 5)
    assert engine.run(RECIPE).code == 0
    assert fate(engine) == fate(clean)


def test_killed_at_eight_commit_points_one_after_the_other_and_resumed_the_bytes_are_the_same(
    clean: Engine, engine: Engine
) -> None:
    fill(engine, documents(), 3)
    deaths = Counter[int]()
    for point, n in KILLS:
        command = [sys.executable, str(DRIVE), str(engine.folder / "recipe.yaml"), str(engine.store.root), point, str(n)]
        died = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=300)
        deaths[died.returncode] += 1
        assert died.returncode == -signal.SIGKILL, f"{point} was not passed {n} times: {died.stderr.decode()[-500:]}"
    assert engine.run(RECIPE).code == 0
    assert engine.digests() == clean.digests()
    assert engine.plan(RECIPE).actions == ()
    assert not list((engine.store.root / "objects").glob("*/drafts/*"))
    assert not (engine.store.root / "spills").exists() or not list((engine.store.root / "spills").iterdir())
