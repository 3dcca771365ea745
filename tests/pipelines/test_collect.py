"""What `gristmill gc` removes, and what it leaves: spills that come back after their settle, and those that a run still needs."""

from __future__ import annotations

from typing import Any

from pipelines.upkeep import collect

RECIPE = """
name: small
steps:
  lines: {uses: stages.ingest.jsonl.rows, with: {paths: "${here}/rows*.jsonl", columns: {id: id, text: text}}}
  twins: {uses: stages.dedup.exact.documents, from: lines, with: {partitions: 2}}
"""


def late(engine: Any, address: str) -> None:
    """The upload of a worker that was killed, ended by the store when the run was over."""
    engine.write(f"store/spills/{address}/parts/late.spill", b"left")


def made(engine: Any) -> str:
    for unit in range(2):
        engine.rows(f"rows{unit}.jsonl", [{"id": f"u{unit}r{i}", "text": f"text {i}"} for i in range(5)])
    assert engine.run(RECIPE).code == 0
    return next(o.address for o in engine.store.objects() if o.address.startswith("twins"))


def test_a_spill_that_comes_back_is_dropped_by_the_next_run_and_by_gc(engine: Any) -> None:
    twins = made(engine)
    assert list(engine.store.spills()) == []
    late(engine, f"{twins}-emits")
    assert engine.run(RECIPE).code == 0
    assert list(engine.store.spills()) == []
    late(engine, f"{twins}-verdicts")
    told: list[str] = []
    assert collect(engine.store, told.append, really=False) == 0
    assert any(line.startswith(f"would remove {twins}-verdicts") for line in told)
    collect(engine.store, told.append, really=True)
    assert list(engine.store.spills()) == []
    assert engine.run(RECIPE).code == 0
    assert engine.last.actions == (), "nothing that the recipe needs is gone"


def test_gc_keeps_the_spills_of_a_reduce_without_an_answer_and_drops_those_that_nobody_named(engine: Any) -> None:
    twins = made(engine)
    for answer in (engine.store.root / "objects" / twins / "manifests").iterdir():
        answer.unlink()
    late(engine, f"{twins}-emits")
    late(engine, "other-0123456789abcdef0123-emits")
    collect(engine.store, lambda _: None, really=True)
    assert [spill.address for spill in engine.store.spills()] == [f"{twins}-emits"]
