"""The engine on small rows: frames, layers, drops, verdicts, selections, fills, accounting."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipelines.executors.local import Local

SAMPLE = Path(__file__).parents[2] / "pipelines" / "recipes" / "sample" / "sample.warc.gz"
STAGES = """
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field
from stages.contract import TEXT, Params, map_stage, reduce_stage

class Least(Params):
    least: int = Field(3, description="fewest characters")

@map_stage(version=1, reads={"text": TEXT}, writes={"drop_reason": pa.string(), "size": pa.int64()})
def long_enough(batch, params: Least):
    size = pc.utf8_length(batch["text"]).cast(pa.int64())
    reason = pc.if_else(pc.less(size, params.least), pa.scalar("too_short"), pa.scalar(None, pa.string()))
    return pa.table({"drop_reason": reason, "size": size})

class Nothing(Params):
    pass

calls = []

@map_stage(version=1, reads={"text": TEXT}, writes={"score": pa.float64()})
def score(batch, params: Nothing):
    calls.extend(batch["text"].to_pylist())
    return pa.table({"score": pc.cast(pc.utf8_length(batch["text"]), pa.float64())})

@map_stage(version=1, reads={"text": TEXT}, writes={"text": TEXT})
def upper(batch, params: Nothing):
    return pa.table({"text": pc.utf8_upper(batch["text"])})

class Mark(Params):
    word: str = Field("bad", description="text that raises")

@map_stage(version=1, reads={"text": TEXT}, writes={"seen": pa.bool_()})
def fragile(batch, params: Mark):
    if any(params.word in t for t in batch["text"].to_pylist()):
        raise ValueError(f"met {params.word}")
    return pa.table({"seen": pa.array([True] * batch.num_rows)})

@map_stage(version=1, rows="any", reads={"text": TEXT}, writes={"text": TEXT, "k": pa.int32()})
def words(batch, params: Nothing):
    parent, k, out = [], [], []
    for i, text in enumerate(batch["text"].to_pylist()):
        for j, word in enumerate(text.split()):
            parent.append(i); k.append(j); out.append(word)
    return pa.table({"parent": pa.array(parent, pa.int64()), "k": pa.array(k, pa.int32()), "text": pa.array(out, TEXT)})

@map_stage(version=1, reads={"text": TEXT}, writes={"loud": pa.bool_()})
def loses_rows(batch, params: Nothing):
    return pa.table({"loud": pa.array([True] * (batch.num_rows - 1))})
"""

ROWS = [
    {"id": f"r{i}", "text": t} for i, t in enumerate(["alpha", "be", "gamma ray", "alpha", "delta", "x", "epsilon", "gamma ray"])
]

PAGES = """
name: pages
steps:
  crawl: {uses: stages.ingest.warc.pages, with: {paths: "SAMPLE"}}
  text:  {uses: stages.extract.resiliparse.main_text, from: crawl}
"""

MAIN = """
name: small
params: {least: 3}
steps:
  lines:  {uses: stages.ingest.jsonl.rows, with: {paths: "${here}/rows*.jsonl", columns: {id: id, text: text}}}
  long:   {uses: mine.long_enough, from: lines, with: {least: "${least}"}}
  twins:  {uses: stages.dedup.exact.documents, from: long, with: {partitions: 3}}
  kept:   {uses: stages.compact.keep, from: [long, twins]}
  scored: {uses: mine.score, from: kept}
  loud:   {uses: mine.upper, from: scored}
"""


@pytest.fixture
def small(engine):
    engine.write("mine.py", STAGES)
    engine.rows("rows0.jsonl", ROWS[:5])
    engine.rows("rows1.jsonl", ROWS[5:])
    before = list(sys.path)
    yield engine
    sys.path[:] = before
    sys.modules.pop("mine", None)


def members(engine, step):
    return engine.head(step)["counts"]


def test_a_recipe_runs_from_rows_to_a_selection_and_every_row_is_accounted_for(small):
    assert small.run(MAIN).code == 0
    assert members(small, "lines") == {"records": 8, "standing": 8}
    assert members(small, "long") == {"in": 8, "standing": 6, "dropped": {"too_short": 2}}
    assert members(small, "twins") == {"in": 6, "standing": 4, "dropped": {"exact_duplicate": 2}}
    assert members(small, "kept") == {"in": 4, "standing": 4, "made": 4}
    assert sorted(r["text"] for r in small.table("loud")) == ["ALPHA", "DELTA", "EPSILON", "GAMMA RAY"]


def test_a_second_run_has_nothing_to_do(small):
    small.run(MAIN)
    assert small.plan(MAIN).actions == ()


def test_one_more_input_file_computes_one_more_part_and_the_global_decisions(small):
    small.run(MAIN)
    small.rows("rows2.jsonl", [{"id": "r8", "text": "delta"}, {"id": "r9", "text": "zeta"}])
    plan = small.plan(MAIN)
    passes = [len(a.tasks) for a in plan.actions if a.do == "pass" and "lines" in a.steps]
    assert passes == [3], "the emit of the new verdict reads all three units"
    work = next(w for a in plan.actions if "lines" in a.steps for w in a.work.values() if w.mode == "source")
    assert [t.unit.name for a in plan.actions if "lines" in a.steps for t in a.tasks if t.program == work.id] == ["rows2.jsonl"]
    assert small.run(MAIN).code == 0
    assert members(small, "twins")["dropped"] == {"exact_duplicate": 3}


def test_dropped_rows_keep_their_id_reason_and_deciding_values_but_not_their_text(small):
    small.run(MAIN)
    dropped = [r for r in small.table("long") if r["drop_reason"] == "too_short"]
    assert [(r["id"], r["size"], r["text"]) for r in dropped] == [("r1", 2, None), ("r5", 1, None)]


def test_text_of_dropped_rows_is_kept_when_asked(small):
    small.run(MAIN + "run: {keep_text_of_dropped: true}\n")
    assert {r["text"] for r in small.table("long") if r["drop_reason"] == "too_short"} == {"be", "x"}


def test_a_new_last_step_reads_what_is_stored_and_runs_nothing_again(small):
    small.run(MAIN)
    longer = MAIN + "  again:  {uses: mine.score, from: loud}\n"
    plan = small.plan(longer)
    assert [a.steps for a in plan.actions] == [("again",)]


def test_moving_a_threshold_fills_the_scorer_from_what_is_known(small):
    small.run(MAIN)
    calls = sys.modules["mine"].calls
    calls.clear()
    assert small.run(MAIN, {"least": "2"}).code == 0
    assert calls == ["be"], "only the row that was not scored before is scored"
    fresh_scores = {r["id"]: r["score"] for r in small.table("scored")}
    assert fresh_scores["r1"] == 2.0
    assert members(small, "scored")["filled"] == 4


def test_a_filled_object_has_the_bytes_of_a_full_run(small, engines):
    small.run(MAIN)
    small.run(MAIN, {"least": "2"})
    other = engines("other")
    other.write("mine.py", STAGES)
    other.rows("rows0.jsonl", ROWS[:5])
    other.rows("rows1.jsonl", ROWS[5:])
    other.run(MAIN, {"least": "2"})
    here, there = small.digests(), other.digests()
    assert set(there) <= set(here)
    assert {k: here[k] for k in there} == there


def test_step_and_recipe_names_are_labels_and_not_identity(small):
    small.run(MAIN)
    renamed = (
        MAIN.replace("scored", "marks")
        .replace("name: small", "name: other")
        .replace("  kept:", "  web:")
        .replace("from: kept", "from: web")
    )
    assert small.plan(renamed).actions == ()


def test_a_failing_row_is_quarantined_and_its_batch_goes_on(small):
    recipe = MAIN + "  risky:  {uses: mine.fragile, from: loud, with: {word: DELTA}}\nrun: {max_error_rate: 0.5}\n"
    assert small.run(recipe).code == 0
    counts = members(small, "risky")
    assert (counts["standing"], counts["quarantined"]) == (3, 1)
    reasons = [r["drop_reason"] for r in small.table("risky") if r["drop_reason"]]
    assert reasons == ["quarantined: error: ValueError"]


def test_over_the_error_limit_everything_else_finishes_and_a_higher_limit_goes_on(small):
    recipe = (
        MAIN
        + "  risky:  {uses: mine.fragile, from: kept, with: {word: delta}}\n  after:  {uses: mine.score, from: [risky, loud]}\n"
    )
    result = small.run(recipe)
    assert result.code == 3
    assert "1 of 4 rows are quarantined" in result.over_limit[0]
    assert small.run(recipe).over_limit == result.over_limit, "asked again it says the same, and does nothing"
    assert small.run(recipe, executor=Local(1)).code == 3
    assert small.last.layout.object(small.last.layout.holder["long"][0]).answered(small.last.layout.units["lines"])
    again = small.run(recipe + "run: {max_error_rate: 0.5}\n")
    assert again.code == 0
    assert again.tasks <= 4


def test_children_get_numbered_ids_and_their_parents_columns(small):
    recipe = MAIN + "  parts:  {uses: mine.words, from: loud}\n"
    assert small.run(recipe).code == 0
    rows = {r["id"]: r["text"] for r in small.table("parts")}
    assert {k: v for k, v in rows.items() if k.startswith("r2")} == {"r2#0": "GAMMA", "r2#1": "RAY"}


def test_a_stage_that_loses_rows_is_stopped_by_the_engine(small):
    result = small.run(MAIN + "  bad:  {uses: mine.loses_rows, from: loud}\n")
    assert result.code == 1
    assert "rows='same' keeps every row" in result.errors[0]


def test_where_passes_other_rows_over_standing_and_null(small):
    recipe = MAIN + '  some:  {uses: mine.fragile, from: loud, where: "size > 5"}\n'
    assert small.run(recipe).code == 0
    seen = {r["id"]: r["seen"] for r in small.table("some")}
    assert members(small, "some")["passed"] == 2
    assert sorted(v is None for v in seen.values()) == [False, False, True, True]


def test_a_trial_on_some_units_never_poisons_a_full_run(small):
    small.run(MAIN, limit_units=1)
    assert members(small, "twins")["in"] == 4
    small.run(MAIN)
    assert members(small, "twins")["in"] == 6
    assert small.plan(MAIN, limit_units=1).actions == ()


def test_a_sample_is_its_own_question(small):
    small.run(MAIN, sample=0.5)
    sampled = members(small, "lines")
    assert sampled["skipped"]["not_sampled"] + sampled["standing"] == 8
    assert 0 < sampled["standing"] < 8
    small.run(MAIN)
    assert members(small, "lines") == {"records": 8, "standing": 8}


def test_branches_read_the_version_of_a_column_that_their_path_wrote(small):
    recipe = MAIN + "  quiet:  {uses: mine.long_enough, from: kept, with: {least: 6}}\n  shout:  {uses: mine.upper, from: quiet}\n"
    assert small.run(recipe).code == 0
    assert {r["text"] for r in small.table("shout") if r["text"]} == {"EPSILON", "GAMMA RAY"}


def test_an_id_that_occurs_twice_is_refused_by_name(small):
    small.rows("rows1.jsonl", [{"id": "r7", "text": "one"}, {"id": "r7", "text": "two"}])
    result = small.run(MAIN)
    assert result.code == 1
    assert "rows1.jsonl: the id 'r7' occurs twice" in result.errors[0]


def test_a_union_of_two_frames_is_shuffled_into_one(small):
    small.rows("more.jsonl", [{"id": "m0", "text": "omega"}, {"id": "m1", "text": "sigma"}])
    recipe = (
        MAIN
        + """
  more:   {uses: stages.ingest.jsonl.rows, with: {paths: "${here}/more.jsonl", columns: {id: id, text: text}}}
  mixed:  {uses: stages.shuffle.by_hash, from: [loud, more], with: {shards: 2, seed: 3}}
"""
    )
    assert small.run(recipe).code == 0
    assert sorted(r["text"] for r in small.table("mixed")) == ["ALPHA", "DELTA", "EPSILON", "GAMMA RAY", "omega", "sigma"]


def test_a_branch_that_needs_raw_input_again_reads_the_source_again_and_stores_nothing_twice(small):
    recipe = PAGES.replace("SAMPLE", str(SAMPLE))
    run = "run: {max_error_rate: 0.02}\n"
    assert small.run(recipe + run).code == 0
    before = small.digests()
    second = recipe + "  other: {uses: stages.extract.resiliparse.main_text, from: crawl, with: {%s}}\n"
    field = next(
        n
        for n, f in __import__("stages.extract.resiliparse", fromlist=["x"]).main_text.params.model_fields.items()
        if f.annotation is bool
    )
    value = not __import__("stages.extract.resiliparse", fromlist=["x"]).main_text.params().model_dump()[field]
    assert small.run(second % f"{field}: {str(value).lower()}" + run).code == 0
    after = small.digests()
    assert {k: after[k] for k in before} == before


def test_a_user_stage_change_is_a_new_question(small):
    small.run(MAIN)
    before = small.plan(MAIN).layout.ids.question["scored"]
    import importlib

    small.write("mine.py", STAGES.replace('"too_short"', '"short"'))
    importlib.invalidate_caches()
    sys.modules.pop("mine")
    assert small.plan(MAIN).layout.ids.question["scored"] != before
    sys.modules.pop("mine")
