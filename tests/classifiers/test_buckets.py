import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifiers.buckets import CUTS, LABELS, cut_points, label, relabel
from classifiers.quantiles import bucket_of
from pipelines.executors.local import Local
from stages.contract import Unusable

RECIPE = """
name: ranked
params: {{files: "*.jsonl", borders: {{high: 19, medium_high: 18, medium: 12, medium_low: 7, low: 0}}}}
steps:
  read:   {{uses: stages.ingest.jsonl.rows, with: {{paths: "{folder}/${{files}}", columns: {{id: id}}, keep: {{edu: float64, web: float64}}}}}}
  scored: {{uses: classifiers.scale.oriented, from: read, with: {{source: edu, column: edu_score}}}}
  other:  {{uses: classifiers.scale.oriented, from: scored, with: {{source: web, column: web_score, better: lower}}}}
  cuts:   {{uses: classifiers.buckets.cut_points, from: other, with: {{columns: [edu_score, web_score], weigh: bytes}}}}
  ranked: {{uses: classifiers.buckets.label, from: other, given: {{cuts: cuts}}, with: {{columns: [edu_score, web_score], labels: "${{borders}}"}}}}
"""


def settled(rows: list[pa.Table], **params: Any) -> pa.Table:
    chosen = cut_points.params(**params)
    emitted = pa.concat_tables(
        [cut_points.emit(batch, chosen).cast(pa.schema(list(cut_points.emits_of(chosen).items()))) for batch in rows]
    )
    return pa.concat_tables(cut_points.settle(iter([emitted.sort_by("key")]), chosen))


def scores(*values: float | None) -> pa.Table:
    return pa.table({"s": pa.array(values, pa.float32())})


def labelled(batch: pa.Table, cuts: pa.Table, **params: Any) -> dict[str, list[Any]]:
    out: dict[str, list[Any]] = label(batch, label.params(**params), cuts=cuts).to_pydict()
    return out


def test_twenty_buckets_of_equal_size_and_the_five_labels() -> None:
    batch = scores(*[i / 100 for i in range(100)])
    cuts = settled([batch], columns=["s"])
    assert cuts.schema == CUTS
    assert cuts["documents"].to_pylist() == cuts["weight"].to_pylist() == [5] * 20
    assert cuts["above"].to_pylist()[:3] == pytest.approx([None, 0.04, 0.09])
    out = labelled(batch, cuts, columns=["s"])
    assert out["bucket"] == out["s_bucket"] == [i // 5 for i in range(100)]
    assert {name: out["label"].count(name) for name in LABELS} == {
        "high": 5,
        "medium_high": 5,
        "medium": 30,
        "medium_low": 25,
        "low": 35,
    }


def test_ties_constants_and_few_documents_follow_the_rules() -> None:
    top = scores(*[0.1, 0.2, 0.3, 0.4], *[1.0] * 6)
    assert (
        labelled(top, settled([top], columns=["s"], buckets=5), columns=["s"], labels={"x": 0})["bucket"] == [0, 0, 1, 1] + [2] * 6
    )
    same = scores(0.5, 0.5, 0.5)
    assert labelled(same, settled([same], columns=["s"]), columns=["s"])["bucket"] == [0, 0, 0]
    few = scores(0.1, 0.9, None)
    out = labelled(few, settled([few], columns=["s"]), columns=["s"])
    assert out["bucket"] == [0, 10, None]
    assert out["label"] == ["low", "medium_low", None]


def test_what_cannot_be_cut_is_said() -> None:
    with pytest.raises(ValueError, match="the score 's' is nan; mend the scorer"):
        settled([scores(0.1, float("nan"))], columns=["s"])
    with pytest.raises(Unusable, match="'s' is null, or weighs nothing"):
        settled([pa.table({"s": pa.array([None], pa.float32()), "t": pa.array([1], pa.float32())})], columns=["t", "s"])
    cuts = settled([scores(*range(9))], columns=["s"], buckets=5)
    with pytest.raises(Unusable, match="5 buckets: 0 to 4"):
        labelled(scores(1), cuts, columns=["s"])
    with pytest.raises(Unusable, match=r"hold \['s'\] and nothing for \['t'\]"):
        labelled(scores(1), cuts, columns=["s", "t"])
    with pytest.raises(ValueError, match="begin at 0"):
        label.params(columns=["s"], labels={"high": 19, "low": 1})
    with pytest.raises(ValueError, match="one for each"):
        label.params(columns=["s", "t"], combine="weights", weights={"s": 1.0})


def test_members_combine_by_max_mean_and_weights_and_missing_ones_are_left_out() -> None:
    batch = pa.table(
        {"a": pa.array([float(i) for i in range(20)], pa.float32()), "b": pa.array([*range(19, 0, -1), None], pa.float32())}
    )
    cuts = settled([batch], columns=["a", "b"])
    a = list(range(20))
    b = [x + 0 if x is not None else None for x in labelled(batch, cuts, columns=["b"])["b_bucket"]]
    assert labelled(batch, cuts, columns=["a", "b"])["bucket"] == [
        max(x, -1 if y is None else y) for x, y in zip(a, b, strict=True)
    ]
    mean = [int(np.floor((x + y) / 2 + 0.5)) if y is not None else x for x, y in zip(a, b, strict=True)]
    assert labelled(batch, cuts, columns=["a", "b"], combine="mean")["bucket"] == mean
    one = labelled(batch, cuts, columns=["a", "b"], combine="weights", weights={"a": 1, "b": 0})["bucket"]
    assert one == a


def test_borders_may_come_from_a_dataset() -> None:
    borders = pa.table({"label": ["top", "rest"], "low": pa.array([3, 0], pa.int32())})
    out = relabel(pa.table({"bucket": pa.array([0, 2, 3, None], pa.int32())}), relabel.params(), borders=borders)
    assert out["label"].to_pylist() == ["rest", "rest", "top", None]
    with pytest.raises(Unusable, match="begin at bucket 0"):
        relabel(pa.table({"bucket": pa.array([0], pa.int32())}), relabel.params(), borders=borders.slice(0, 1))


batches = st.lists(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 40)), max_size=12), min_size=1, max_size=6)


@given(batches, st.randoms())
def test_no_order_of_batches_and_no_merging_moves_a_cut(rows: list[list[tuple[int, int]]], rng: random.Random) -> None:
    rows[0].append((3, 7))
    tables = [
        pa.table({"s": pa.array([s / 4 for s, _ in r], pa.float32()), "text": pa.array(["x" * w for _, w in r], pa.large_string())})
        for r in rows
    ]
    expected = settled(tables, columns=["s"], weigh="bytes")
    rng.shuffle(tables)
    assert settled(tables, columns=["s"], weigh="bytes").equals(expected)
    chosen = cut_points.params(columns=["s"], weigh="bytes")
    schema = pa.schema(list(cut_points.emits_of(chosen).items()))
    emitted = [cut_points.emit(t, chosen).cast(schema) for t in tables]
    assert cut_points.combine is not None
    half = cut_points.combine(pa.concat_tables(emitted[: len(emitted) // 2 + 1]), chosen)
    whole = cut_points.combine(pa.concat_tables([half, *emitted[len(emitted) // 2 + 1 :]]), chosen)
    assert pa.concat_tables(cut_points.settle(iter([whole]), chosen)).equals(expected)


def documents(count: int = 400) -> list[dict[str, Any]]:
    rng = random.Random(5)
    return [
        {
            "id": f"{i:032x}",
            "text": "word " * rng.randint(1, 60),
            "edu": round(rng.random() ** 2, 2),
            "web": round(rng.gauss(0, 3), 4),
        }
        for i in range(count)
    ]


def write(folder: Path, rows: list[dict[str, Any]], shards: int, reverse: bool = False) -> Path:
    folder.mkdir()
    for shard in range(shards):
        name = f"{shards - shard if reverse else shard}.jsonl"
        (folder / name).write_text("".join(json.dumps(r) + "\n" for r in rows[shard::shards]))
    return folder


def ranked(engine: Any) -> dict[str, tuple[Any, ...]]:
    ids = [row["id"] for row in engine.table("read")]
    return {
        i: (r["edu_score_bucket"], r["web_score_bucket"], r["bucket"], r["label"])
        for i, r in zip(ids, engine.table("ranked"), strict=True)
    }


def test_workers_and_shards_change_nothing_and_each_document_has_its_plain_rank(
    engines: Callable[[str], Any], tmp_path: Path
) -> None:
    rows = documents()
    straight, reverse = write(tmp_path / "a", rows, 3), write(tmp_path / "b", rows, 5, reverse=True)
    runs = {}
    for name, folder, workers in (("one", straight, 1), ("four", straight, 4), ("other", reverse, 1)):
        engine = engines(name)
        executor = Local(workers)
        assert engine.run(RECIPE.format(folder=folder), executor=executor).code == 0
        executor.close()
        runs[name] = (engine.table("cuts"), ranked(engine), engine.digests())
    assert runs["one"][2] == runs["four"][2]
    assert runs["one"][:2] == runs["other"][:2]
    cuts, found, _ = runs["one"]
    line = np.sort(np.repeat(np.array([r["edu"] for r in rows], np.float32), [len(r["text"]) for r in rows]))
    plain = [line[-(-k * len(line) // 20) - 1] for k in range(1, 20)]
    assert [c["above"] for c in cuts if c["column"] == "edu_score"] == [None, *plain]
    ranks = bucket_of(np.array([r["edu"] for r in rows], np.float32), np.array(plain))
    assert {i: r[0] for i, r in found.items()} == {row["id"]: int(b) for row, b in zip(rows, ranks, strict=True)}
    assert {r[3] for r in found.values()} == set(LABELS)


def test_other_borders_make_labels_again_and_nothing_else(engine: Any, tmp_path: Path) -> None:
    folder = write(tmp_path / "a", documents(), 2)
    assert engine.run(RECIPE.format(folder=folder)).code == 0
    before = engine.digests()
    names = {Path(p).parts[1].rpartition("-")[0] for p in before}
    again = engine.run(
        RECIPE.replace("{{high: 19, medium_high: 18, medium: 12, medium_low: 7, low: 0}}", "{{good: 15, bad: 0}}").format(
            folder=folder
        )
    )
    assert again.code == 0
    fresh = {path.split("/")[1].rpartition("-")[0] for path in engine.digests().keys() - before.keys()}
    assert fresh == {"ranked"}
    assert "cuts" in names
    assert {r[3] for r in ranked(engine).values()} == {"good", "bad"}


PUBLISHED = """
name: later
steps:
  read:   {{uses: stages.ingest.jsonl.rows, with: {{paths: "{folder}/0.jsonl", columns: {{id: id}}, keep: {{edu: float64, web: float64}}}}}}
  scored: {{uses: classifiers.scale.oriented, from: read, with: {{source: edu, column: edu_score}}}}
  cuts:   {{uses: classifiers.buckets.published, with: {{paths: "{cuts}"}}}}
  ranked: {{uses: classifiers.buckets.label, from: scored, given: {{cuts: cuts}}, with: {{columns: [edu_score]}}}}
"""


def test_a_later_crawl_uses_published_cuts_unchanged(engines: Callable[[str], Any], tmp_path: Path) -> None:
    folder = write(tmp_path / "a", documents(), 2)
    first = engines("first")
    assert first.run(RECIPE.format(folder=folder)).code == 0
    (parts,) = (first.store.root / "objects").glob("cuts-*/parts")
    later = engines("later")
    assert later.run(PUBLISHED.format(folder=folder, cuts=parts / "*.parquet")).code == 0
    ids = [row["id"] for row in later.table("read")]
    found = {i: r["edu_score_bucket"] for i, r in zip(ids, later.table("ranked"), strict=True)}
    assert found == {i: r[0] for i, r in ranked(first).items() if i in found}
    assert len(found) == 200


def test_a_nan_from_a_file_costs_its_row_and_cuts_of_other_columns_stop_the_step(engine: Any, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    table = pa.table({"text": ["a"] * 100, "edu": [float("nan"), *np.arange(99) / 100], "web": np.arange(100.0)})
    pq.write_table(table, folder / "0.parquet")
    recipe = RECIPE.replace("jsonl.rows", "parquet.rows").replace('"*.jsonl"', '"*.parquet"').replace("columns: {{id: id}}, ", "")
    recipe += "run: {{max_error_rate: 0.1}}\n"
    assert engine.run(recipe.format(folder=folder)).code == 0
    assert engine.head("scored")["counts"]["quarantined"] == 1
    assert sum(c["documents"] for c in engine.table("cuts") if c["column"] == "edu_score") == 99
    wrong = recipe.replace("columns: [edu_score, web_score], labels", "columns: [edu_score, web], labels")
    result = engine.run(wrong.format(folder=folder))
    assert result.code != 0
    assert "the cut points hold ['edu_score', 'web_score'] and nothing for ['web']" in str(result.errors)
