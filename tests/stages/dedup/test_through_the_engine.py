"""Near duplicates and an index through recipes: workers, the order of shards and a second run change nothing."""

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.store import Store
from pipelines.executors.local import Local
from pipelines.graph import build
from pipelines.plan import make_plan
from pipelines.recipe import load
from pipelines.run import Run
from pipelines.targets import lay_out

RECIPE = """
name: near
steps:
  read:     {{uses: stages.ingest.jsonl.rows, with: {{paths: {paths}, columns: {{id: id}}}}}}
  signed:   {{uses: stages.dedup.minhash.signatures, from: read}}
  pairs:    {{uses: stages.dedup.minhash.pairs, from: {against}, with: {{partitions: 3}}}}
  clusters: {{uses: stages.dedup.minhash.clusters, from: pairs}}
  twins:    {{uses: stages.dedup.minhash.twins, from: clusters, with: {{partitions: 2, keep: [longest]}}}}
  index:    {{uses: stages.dedup.minhash.index, from: clusters, with: {{partitions: 2, keep: [longest]}}}}
{more}
"""
OLD = "  old: {{uses: stages.dedup.minhash.known, with: {{paths: {paths}}}}}"


def documents(seed: int) -> list[dict[str, str]]:
    rng = random.Random(seed)
    words = [f"{a}{b}" for a in "bdfgklmnprst" for b in ("an", "orl", "isk", "ult", "em")]
    found = []
    for number in range(40):
        text = [rng.choice(words) for _ in range(150)]
        for copy in range(1 + number % 3):
            found.append({"id": f"{number * 10 + copy:032x}", "text": " ".join([*text, *["end"] * copy])})
    rng.shuffle(found)
    return found


def write(folder: Path, rows: list[dict[str, str]], shards: int, reverse: bool = False) -> str:
    folder.mkdir()
    for shard in range(shards):
        name = f"{shards - shard if reverse else shard}.jsonl"
        (folder / name).write_text("".join(json.dumps(r) + "\n" for r in rows[shard::shards]))
    return str(folder / "*.jsonl")


def run(tmp: Path, name: str, text: str, workers: int) -> tuple[Any, Any]:
    (tmp / f"{name}.yaml").write_text(text)
    recipe = load(str(tmp / f"{name}.yaml"))
    graph = build(recipe)
    layout = lay_out(recipe, graph, Store.open(str(tmp / f"store-{name}")))
    plan = make_plan(layout)
    executor = Local(workers)
    result = Run(plan, executor, lambda event: None, 0.01).go()
    executor.close()
    assert result.code == 0, result.errors
    return layout, plan


def column(layout: Any, step: str, names: list[str]) -> pa.Table:
    target, _ = layout.holder[step]
    units = layout.frames[layout.graph[step].frame]
    return pa.concat_tables(pq.read_table(layout.object(target).part(u.key), columns=names) for u in units)


def verdicts(layout: Any) -> dict[str, str]:
    ids = column(layout, "read", ["id"])["id"].to_pylist()
    twins = column(layout, "twins", ["twin"])["twin"].to_pylist()
    return {i: t for i, t in zip(ids, twins, strict=True) if t is not None}


def test_the_same_survivors_with_any_workers_and_shards_and_nothing_to_do_twice(tmp_path: Path) -> None:
    rows = documents(1)
    straight, reverse = write(tmp_path / "a", rows, 3), write(tmp_path / "b", rows, 5, reverse=True)
    text = RECIPE.format(paths=straight, against="signed", more="")
    layout, _ = run(tmp_path, "one", text, 1)
    expected = verdicts(layout)
    assert expected == {f"{n * 10 + c:032x}": f"{n * 10 + n % 3:032x}" for n in range(40) for c in range(n % 3)}
    _, again = run(tmp_path, "one", text, 1)
    assert again.tasks == 0
    assert verdicts(run(tmp_path, "two", text, 2)[0]) == expected
    assert verdicts(run(tmp_path, "three", RECIPE.format(paths=reverse, against="signed", more=""), 1)[0]) == expected


def test_a_new_crawl_loses_to_the_published_index_of_an_old_one(tmp_path: Path) -> None:
    rows = documents(2)
    first, second = write(tmp_path / "a", rows[:40], 2), write(tmp_path / "b", rows[40:], 2)
    before, _ = run(tmp_path, "before", RECIPE.format(paths=first, against="signed", more=""), 1)
    target, _ = before.holder["index"]
    parts = str(before.object(target).path / "parts" / "*.parquet")
    more = OLD.format(paths=parts)
    after, _ = run(tmp_path, "after", RECIPE.format(paths=second, against="[signed, old]", more=more), 1)
    old, found = verdicts(before), verdicts(after)
    known = {r["id"]: old.get(r["id"], r["id"]) for r in rows[:40]}
    for row in rows[40:]:
        family = int(row["id"], 16) // 10
        pinned = {s for i, s in known.items() if int(i, 16) // 10 == family}
        longest = max((r["id"] for r in rows[40:] if int(r["id"], 16) // 10 == family), key=lambda i: int(i, 16))
        expected = pinned.pop() if pinned else longest
        assert found.get(row["id"], row["id"]) == expected
