"""Killed anywhere, resumed, and every byte is the same."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import Engine

ROOT = Path(__file__).parents[2]
DRIVE = Path(__file__).with_name("drive.py")
RECIPE = """
name: small
steps:
  lines:    {uses: stages.ingest.jsonl.rows, with: {paths: "${here}/rows*.jsonl", columns: {id: id, text: text}}}
  repaired: {uses: stages.clean.unicode.repair, from: lines}
  twins:    {uses: stages.dedup.exact.documents, from: repaired, with: {partitions: 2}}
  kept:     {uses: stages.compact.keep, from: [repaired, twins]}
  shuffled: {uses: stages.shuffle.by_hash, from: kept, with: {shards: 2, seed: 1}}
  shards:   {uses: stages.export.megatron.shards, from: shuffled}
publish: {small_shards: shards}
"""
POINTS = [
    ("before_part", 1), ("before_part", 4), ("after_part", 2), ("before_rename", 1), ("after_rename", 1), ("after_rename", 12),
    ("before_journal", 1), ("before_journal", 5), ("torn_journal_line", 1), ("torn_journal_line", 6), ("after_journal", 3),
    ("before_question", 2), ("after_question", 1), ("before_manifest", 1), ("before_manifest", 2), ("before_manifest", 4), ("before_manifest_head", 1), ("before_manifest_head", 3),
    ("torn_draft", 2), ("after_manifest", 2), ("before_drop_spill", 1), ("after_drop_spill", 1), ("before_record", 1),
    ("after_record", 1),
]  # fmt: skip


def fill(engine):
    words = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "it", "rains"]
    for unit in range(3):
        rows = [{"id": f"u{unit}r{i}", "text": " ".join(words[(i * unit) % 7 : 5 + i % 6])} for i in range(20)]
        engine.rows(f"rows{unit}.jsonl", rows)
    engine.write("recipe.yaml", RECIPE)
    return engine


@pytest.fixture
def small(engine):
    return fill(engine)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    engine = fill(Engine(tmp_path_factory.mktemp("clean")))
    assert engine.run(RECIPE).code == 0
    return engine.digests()


@pytest.mark.parametrize(("point", "n"), POINTS)
def test_killed_at_a_commit_point_and_resumed_the_bytes_are_the_same(small, clean, point, n):
    died = subprocess.run(
        [sys.executable, str(DRIVE), str(small.folder / "recipe.yaml"), str(small.store.root), point, str(n)],
        cwd=ROOT, capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    assert died.returncode == -signal.SIGKILL, f"the point was not passed {n} times: {died.stderr.decode()[-500:]}"
    if point not in ("before_question", "after_question", "before_record"):
        assert list(small.store.records("recipes")) == ["small"], "status knows the steps of a run that was killed"
    assert small.run(RECIPE).code == 0
    assert small.digests() == clean
    assert not list((small.store.root / "objects").glob("*/drafts/*"))
    assert not (small.store.root / "spills").exists() or not list((small.store.root / "spills").iterdir())
    assert small.plan(RECIPE).actions == ()


def gristmill(*words: str, store: Path) -> list[str]:
    return [sys.executable, "-m", "pipelines.cli", *words, "--store", str(store)]


def part_digests(store: Path) -> dict[str, bytes]:
    import hashlib

    found = sorted((store / "objects").glob("*/parts/*"))
    return {str(p.relative_to(store)): hashlib.sha256(p.read_bytes()).digest() for p in found}


@pytest.mark.slow
def test_one_two_and_four_workers_and_ten_kills_give_the_same_bytes(tmp_path):
    """The packaged main job: real processes, killed with SIGKILL at ten random moments of the whole run."""
    stores = {n: tmp_path / f"workers{n}" for n in (1, 2, 4)}
    took = 0.0
    for workers, store in stores.items():
        started = time.monotonic()
        done = subprocess.run(
            gristmill("run", "quickstart", "--workers", str(workers), store=store), cwd=ROOT, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        took = time.monotonic() - started
    expected = part_digests(stores[1])
    assert len(expected) >= 10
    assert part_digests(stores[2]) == expected
    assert part_digests(stores[4]) == expected
    random_moments = random.Random(20261122)
    kills, lives = 0, 0
    killed = tmp_path / "killed0"
    while kills < 10:
        process = subprocess.Popen(
            gristmill("run", "quickstart", "--workers", "2", store=killed),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(random_moments.uniform(0.1, max(took, 0.5)))
        if process.poll() is None:
            process.kill()
            process.wait()
            kills += 1
        else:  # it was faster than the moment chosen: its bytes count as well, and the next life begins with an empty store
            assert process.returncode == 0
            assert part_digests(killed) == expected
            lives += 1
            assert lives < 40, "every run ended before it could be killed"
            killed = tmp_path / f"killed{lives}"
    done = subprocess.run(gristmill("run", "quickstart", store=killed), cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert part_digests(killed) == expected
    assert subprocess.run(gristmill("verify", store=killed), cwd=ROOT, capture_output=True, check=False).returncode == 0
