import math
import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xxhash

from classifiers.buckets import cut_points, label
from classifiers.calibration import REPORT, SCHEMA, report
from stages.contract import TEXT, Unusable

COLUMNS = ["edu", "web"]


def cuts_from(batch: pa.Table) -> pa.Table:
    params = cut_points.params(columns=COLUMNS)
    emitted = cut_points.emit(batch, params).cast(pa.schema(list(cut_points.emits_of(params).items())))
    return pa.concat_tables(cut_points.settle(iter([emitted]), params))


def documents(count: int = 600, shift: float = 0.0) -> pa.Table:
    rng = np.random.default_rng(4)
    edu = rng.normal(size=count) + shift
    web = 0.5 * edu + rng.normal(size=count)
    return pa.table(
        {
            "id": [f"{i:032x}" for i in range(count)], "url": [f"http://x.example/{i}" for i in range(count)],
            "text": pa.array(["é" * (1 + i % 7) for i in range(count)], TEXT), "tokens": pa.array([i % 5 for i in range(count)], pa.int64()),
            "edu": pa.array([None if i == 3 else v for i, v in enumerate(edu)], pa.float32()), "web": pa.array(web, pa.float32()),
        }
    )  # fmt: skip


def labelled(batch: pa.Table, cuts: pa.Table) -> pa.Table:
    out = label(batch, label.params(columns=COLUMNS), cuts=cuts)
    return batch.append_column("bucket", out["bucket"]).append_column("label", out["label"])


def reported(batches: list[pa.Table], cuts: pa.Table, **params: Any) -> list[dict[str, Any]]:
    chosen = report.params(columns=COLUMNS, **params)
    emitted = [report.emit(b, chosen, cuts=cuts) for b in batches]
    assert all(e.schema.equals(SCHEMA) for e in emitted)
    tables = list(report.settle(iter(emitted), chosen, cuts=cuts))
    assert tables[0].schema.equals(REPORT)
    rows: list[dict[str, Any]] = tables[0].to_pylist()
    return rows


@pytest.fixture(scope="module")
def made() -> tuple[pa.Table, pa.Table, list[dict[str, Any]]]:
    batch = documents()
    cuts = cuts_from(batch)
    return labelled(batch, cuts), cuts, reported([labelled(batch, cuts)], cuts)


def kind(rows: list[dict[str, Any]], name: str, **where: Any) -> list[dict[str, Any]]:
    return [r for r in rows if r["kind"] == name and all(r[k] == v for k, v in where.items())]


def test_masses_add_up_to_all_documents(made: Any) -> None:
    batch, _, rows = made
    for name in (None, "web"):
        found = kind(rows, "bucket", column=name)
        assert sum(r["documents"] for r in found) == 600
        assert sum(r["share"] for r in found) == pytest.approx(1)
        assert sum(r["bytes"] for r in found) == sum(len(t.encode()) for t in batch["text"].to_pylist())
        assert sum(r["tokens"] for r in found) == sum(batch["tokens"].to_pylist())
    assert sum(r["documents"] for r in kind(rows, "bucket", column="edu")) == 599
    said = {r["label"]: r["documents"] for r in kind(rows, "label")}
    labels = batch["label"].to_pylist()
    assert said == {name: labels.count(name) for name in set(labels)}


def test_histograms_count_every_score_between_their_limits(made: Any) -> None:
    batch, _, rows = made
    for column in COLUMNS:
        scores = np.array([s for s in batch[column].to_pylist() if s is not None], np.float32)
        for r in kind(rows, "histogram", column=column):
            low, high = (-np.inf if r["low"] is None else r["low"]), (np.inf if r["high"] is None else r["high"])
            assert r["documents"] == int(((scores > np.float32(low)) & (scores <= np.float32(high))).sum())
        assert sum(r["documents"] for r in kind(rows, "histogram", column=column)) == len(scores)


def test_overlap_is_common_over_either_top(made: Any) -> None:
    batch, cuts, _ = made
    for top in (None, 15):
        rows = reported([batch], cuts, **({} if top is None else {"top": top}))
        out = label(batch, label.params(columns=COLUMNS), cuts=cuts)
        edu, web = (
            {i for i, b in enumerate(out[f"{c}_bucket"].to_pylist()) if b is not None and b >= (top or 19)} for c in COLUMNS
        )
        (pair,) = kind(rows, "overlap", column="edu", other="web")
        assert (pair["documents"], pair["total"]) == (len(edu & web), len(edu | web))
        assert pair["share"] == pytest.approx(len(edu & web) / len(edu | web))
        (alone,) = kind(rows, "overlap", column="edu", other=None)
        assert (alone["documents"], alone["total"]) == (len(edu - web), len(edu))


def test_a_crawl_like_the_one_that_was_cut_is_stable_and_another_has_drifted(made: Any) -> None:
    batch, cuts, rows = made
    assert kind(rows, "stability", column="edu")[0]["share"] == pytest.approx(0, abs=1e-6)
    assert all(r["share"] == pytest.approx(r["expected"]) for r in kind(rows, "drift"))
    moved = reported([labelled(documents(shift=1.0), cuts)], cuts)
    found = kind(moved, "drift", column="edu")
    p, q = (np.maximum([r[n] for r in found], 0.5 / 599) for n in ("share", "expected"))
    (index,) = kind(moved, "stability", column="edu")
    assert index["share"] == pytest.approx(float(((p - q) * np.log(p / q)).sum()), abs=1e-5)
    assert index["share"] > 0.25
    assert math.isclose(sum(r["share"] for r in found), 1)
    assert batch.num_rows == 600


def test_samples_are_the_documents_of_smallest_hash_in_each_bucket(made: Any) -> None:
    batch, _, rows = made
    everything = list(zip(batch["id"].to_pylist(), batch["bucket"].to_pylist(), batch["text"].to_pylist(), strict=True))
    for bucket in range(20):
        mine = sorted((xxhash.xxh3_64_intdigest(i, 0), i, t) for i, b, t in everything if b == bucket)[:5]
        found = kind(rows, "sample", bucket=bucket)
        assert {(r["document"], r["text"]) for r in found} == {(i, t) for _, i, t in mine}
        assert all(r["url"] == f"http://x.example/{int(r['document'], 16)}" for r in found)


def test_batches_and_merging_change_nothing(made: Any) -> None:
    batch, cuts, rows = made
    pieces = [batch.slice(low, 70) for low in range(0, 600, 70)]
    random.Random(1).shuffle(pieces)
    assert reported(pieces, cuts) == rows
    chosen = report.params(columns=COLUMNS)
    emitted = [report.emit(b, chosen, cuts=cuts) for b in pieces]
    assert report.combine is not None
    merged = report.combine(pa.concat_tables(emitted), chosen)
    assert merged.num_rows < sum(e.num_rows for e in emitted) / 3
    assert pa.concat_tables(report.settle(iter([merged]), chosen, cuts=cuts)).to_pylist() == rows
    assert reported([batch], cuts, samples=0) == [r for r in rows if r["kind"] != "sample"]


def test_a_top_beyond_the_buckets_is_refused(made: Any) -> None:
    batch, cuts, _ = made
    with pytest.raises(Unusable, match="top 20 is beyond the last bucket, 19"):
        reported([batch], cuts, top=20)


RECIPE = """
name: calibrated
steps:
  read:   {{uses: stages.ingest.jsonl.rows, with: {{paths: "{path}", columns: {{id: id}}, keep: {{edu: float32, web: float32}}}}}}
  cuts:   {{uses: classifiers.buckets.cut_points, from: read, with: {{columns: [edu, web]}}}}
  ranked: {{uses: classifiers.buckets.label, from: read, given: {{cuts: cuts}}, with: {{columns: [edu, web]}}}}
  report: {{uses: classifiers.calibration.report, from: ranked, given: {{cuts: cuts}}, with: {{columns: [edu, web]}}}}
"""


def test_the_report_of_a_recipe_needs_no_tokens(engine: Any) -> None:
    rows = [r for r in documents().select(["id", "text", "edu", "web"]).to_pylist() if r["edu"] is not None]
    path = engine.rows("rows.jsonl", rows)
    assert engine.run(RECIPE.format(path=path)).code == 0
    found = engine.table("report")
    assert sum(r["documents"] for r in found if r["kind"] == "bucket" and r["column"] is None) == 599
    assert {r["kind"] for r in found} == {"histogram", "bucket", "label", "overlap", "drift", "stability", "sample"}
