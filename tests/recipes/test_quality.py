"""The packaged quality recipes: demonstration classifiers, ranks, labels, and filters that spare the best label."""

from pathlib import Path

import pytest

from pipelines.graph import build
from pipelines.recipe import load

RECIPES = Path(__file__).parents[2] / "pipelines" / "recipes"


@pytest.fixture(scope="module")
def done(ran):
    found = ran("quality")
    assert found.result.code == 0, found.result.errors
    return found


def test_every_document_has_a_rank_and_the_label_of_its_best_one(done):
    rows = done.ask("select bag_bucket, grams_bucket, form_bucket, bucket, label from quality.ranked")
    assert len(rows) == 49
    for *members, bucket, label in rows:
        assert bucket == max(members)
        assert label == (
            "high"
            if bucket == 19
            else "medium_high"
            if bucket == 18
            else "medium"
            if bucket > 11
            else "medium_low"
            if bucket > 6
            else "low"
        )
    assert {row[-1] for row in rows} == {"high", "medium_high", "medium", "medium_low", "low"}


def test_each_training_says_how_it_does_on_rows_held_out(done):
    for step in ("bags", "heads", "forms"):
        said = dict(done.ask(f"select metric, value from quality.{step} where metric is not null"))
        assert said["auc"] > 0.95, "its own junk is easy to tell from documentation"
        assert 60 < said["held_out_documents"] < 120


def test_spam_ranks_low_and_filters_never_see_the_best_label(done, truth):
    spam = {offset for offset, record in truth.items() if record["kind"] == "spam" and record["url"].endswith("locksmith-near-me")}
    rows = done.ask("select origin, bucket from quality.ranked")
    assert [bucket for origin, bucket in rows if origin["offset"] in spam] == [0]
    dropped = done.ask("select r.label from dropped d join quality.ranked r using (id) where d.step in ('rules', 'repeats')")
    assert dropped
    assert "high" not in {label for (label,) in dropped}
    assert done.funnel["kept"].left == 49 - len(dropped)


def test_the_report_and_the_cuts_are_datasets(done):
    kinds = {kind for (kind,) in done.ask("select distinct kind from quality.calibrated")}
    assert {"histogram", "overlap", "drift", "label", "sample"} <= kinds
    assert done.ask('select "column", count(*) from quality.cuts group by all order by all') == [
        ("bag", 20),
        ("form", 20),
        ("grams", 20),
    ]


def test_the_labels_of_the_paper_are_a_whole_recipe():
    graph = build(load(RECIPES / "nemotron-cc-quality.yaml", {}))
    assert [graph[step].stage.name for step in ("first", "second", "scored")] == [
        "classifiers.encoder.score", "classifiers.encoder.score", "classifiers.fasttext.score",
    ]  # fmt: skip
    assert {graph[step].where.text for step in ("rules", "repeats", "fluent")} == {"label <> 'high'"}
    assert graph["cuts"].params.weigh == "bytes"


ROUTED = """
name: routed
steps:
  read:   {{uses: stages.ingest.jsonl.rows, with: {{paths: {path}, columns: {{id: id}}, keep: {{edu: float32}}}}}}
  cuts:   {{uses: classifiers.buckets.cut_points, from: read, with: {{columns: [edu]}}}}
  ranked: {{uses: classifiers.buckets.label, from: read, given: {{cuts: cuts}}, with: {{columns: [edu], labels: {{high: 15, rest: 0}}}}}}
  long:   {{uses: stages.filters.length.by_words, from: ranked, where: "{spared}", with: {{min_words: 50}}}}
  kept:   {{uses: stages.compact.keep, from: long}}
"""


def test_short_documents_stay_when_their_label_is_spared_and_every_drop_is_recorded(engines):
    from manifests.catalog import Catalog

    rows = [{"id": f"{i:032x}", "text": "word " * (10 if i % 2 else 60), "edu": i / 40} for i in range(40)]
    for name, spared in (("best", "label <> 'high'"), ("both", "label not in ('high', 'rest')")):
        engine = engines(name)
        assert engine.run(ROUTED.format(path=engine.rows("rows.jsonl", rows), spared=spared)).code == 0
        dropped = Catalog(engine.store).run("select id, step, drop_reason from dropped").fetchall()
        low_and_short = {i for i in range(30) if i % 2} if name == "best" else set()
        assert {int(i, 16) for i, _, _ in dropped} == low_and_short
        assert {(step, why) for _, step, why in dropped} <= {("long", "too_short"), ("long", "too_few_words")}
        assert engine.head("kept")["rows"] == 40 - len(low_and_short)
