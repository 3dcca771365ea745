"""A document's whole life, and the difference of two runs."""

from __future__ import annotations

import json
import sys

import orjson
import pytest

from manifests.catalog import CatalogError
from pipelines import compare, life
from pipelines.record import recipe_record

STAGES = """
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field
from stages.contract import TEXT, Params, map_stage

class Least(Params):
    least: int = Field(6, description="Fewest characters.")

class Border(Params):
    border: float = Field(20.0, description="Where bucket 1 begins.")

class Nothing(Params):
    pass

@map_stage(version=1, reads={"text": TEXT}, writes={"drop_reason": pa.string(), "size": pa.int64()})
def sized(batch, params: Least):
    size = pc.utf8_length(batch["text"]).cast(pa.int64())
    reason = pc.if_else(pc.less(size, params.least), pa.scalar("too_short"), pa.scalar(None, pa.string()))
    return pa.table({"drop_reason": reason, "size": size})

@map_stage(version=1, reads={"size": pa.int64()}, writes={"bucket": pa.int8()})
def bucketed(batch, params: Border):
    return pa.table({"bucket": pc.greater_equal(batch["size"], params.border).cast(pa.int8())})

@map_stage(version=1, rows="any", reads={"text": TEXT}, writes={"text": TEXT, "k": pa.int32()})
def words(batch, params: Nothing):
    found = [(i, j, w) for i, t in enumerate(batch["text"].to_pylist()) for j, w in enumerate(t.split())]
    parent, k, out = zip(*found)
    return pa.table({"parent": pa.array(parent, pa.int64()), "k": pa.array(k, pa.int32()), "text": pa.array(out, TEXT)})
"""
RECIPE = """
name: {name}
params: {{least: 6, border: 20.0}}
steps:
  lines:  {{uses: stages.ingest.jsonl.rows, with: {{paths: "${{here}}/rows.jsonl", columns: {{id: id, text: text, url: url}}}}}}
  long:   {{uses: lifeshop.sized, from: lines, with: {{least: "${{least}}"}}}}
  ranked: {{uses: lifeshop.bucketed, from: long, with: {{border: "${{border}}"}}}}
  twins:  {{uses: stages.dedup.exact.documents, from: ranked, with: {{partitions: 1}}}}
  web:    {{uses: stages.compact.keep, from: [ranked, twins]}}
  pieces: {{uses: lifeshop.words, from: web}}
  shards: {{uses: stages.export.megatron.shards, from: web}}
publish: {{{name}_shards: shards}}
"""
TEXTS = ["one two three", "tiny", "one two three", "four five six seven eight", "nine"]


@pytest.fixture(scope="module")
def full(tmp_path_factory, engine_in):
    """One store for all tests here: each asks, and those that run more use names of their own."""
    folder = tmp_path_factory.mktemp("life")
    engine = engine_in(folder)
    engine.write("lifeshop.py", STAGES)
    engine.rows("rows.jsonl", [{"id": f"r{i}", "text": t, "url": f"https://a.example/{i % 4}"} for i, t in enumerate(TEXTS)])
    before = list(sys.path)
    assert engine.run(RECIPE.format(name="pages")).code == 0
    yield engine
    sys.path[:] = before
    sys.modules.pop("lifeshop", None)


def verdicts(found):
    return {(m.step, m.id): (m.verdict, m.reason) for m in found.moments}


def test_a_kept_document_is_followed_from_bytes_to_shards(full):
    (found,) = life.lives(full.store, "r3")
    told = verdicts(found)
    assert told["lines", "r3"] == ("read", None)
    assert told["web", "r3"] == ("made", None)
    assert [i for (step, i) in told if step == "pieces"] == [f"r3#{k}" for k in range(5)]
    assert {m.step: m.values for m in found.moments}["ranked"] == {"bucket": 1}
    (written,) = [m for m in found.moments if m.verdict == "written"]
    assert written.values["file"].endswith(".bin")
    assert written.values["tokens"] > 0
    assert found.origin["unit"] == "rows.jsonl"
    text = life.as_text([found], 120)
    assert "in 1 place of the files of shards" in text
    assert "bytes: rows.jsonl from" in text
    assert max(len(line) for line in text.splitlines() if "file=" not in line) <= 120


def test_a_dropped_document_names_the_step_the_values_and_the_twin(full):
    (short,) = life.lives(full.store, "r1")
    assert verdicts(short)["long", "r1"] == ("dropped", "too_short")
    assert {m.step: m.values for m in short.moments}["long"] == {"size": 4}
    assert ("ranked", "r1") not in verdicts(short)
    (twin,) = life.lives(full.store, "r2")
    values = {m.step: m.values for m in twin.moments}["twins"]
    assert values == {"twin": "r0", "twin_url": "https://a.example/0"}
    assert "dropped by twins: exact_duplicate" in life.as_text([twin], 100)


def test_a_url_finds_every_capture_and_a_child_its_document(full):
    assert [found.id for found in life.lives(full.store, "https://a.example/0")] == ["r0", "r4"]
    assert [found.id for found in life.lives(full.store, "r3#2")] == ["r3"]
    (record, _) = json.loads(life.as_json(life.lives(full.store, "https://a.example/0")))
    assert record["end"].startswith("in 1 place")


def test_a_token_of_a_shard_leads_to_its_document(full):
    (found,) = life.lives(full.store, "r3")
    (written,) = [m.values for m in found.moments if m.verdict == "written"]
    last = written["start"] + written["tokens"] - 1
    assert [one.id for one in life.lives(full.store, f"{written['file']}:{last}")] == ["r3"]


def test_an_unknown_document_says_where_it_was_looked_for(full):
    with pytest.raises(
        CatalogError, match=r"no document has the id r99; looked in pages\.lines \(5 rows\), pages\.web \(2 rows\)"
    ) as error:
        life.lives(full.store, "r99")
    assert "quarantine" in str(error.value)
    with pytest.raises(CatalogError, match="the URL https://b"):
        life.lives(full.store, "https://b.example/")


def test_two_recipes_differ_by_step_reason_row_and_bucket(full):
    assert full.run(RECIPE.format(name="strict"), {"least": "14", "border": "30.0"}).code == 0
    found = compare.compare(full.store, "pages", "strict_shards", "web")
    assert (found.same, found.gone, found.come) == (1, 1, 0)
    (way,) = found.ways
    assert (way["way"], way["step"], way["reason"], way["rows"]) == ("went", "long", "too_short", 1)
    assert way["samples"] == [{"id": "r0", "url": "https://a.example/0"}]
    assert found.moved == [{"column": "bucket", "from": 1, "to": 0, "rows": 1, "samples": ["r3"]}]
    steps = {s["step"]: s for s in found.steps}
    assert steps["long"]["out"] == [3, 1]
    assert steps["long"]["reasons"] == {"too_short": [2, 4]}
    assert "lines" not in steps
    back = compare.compare(full.store, "strict", "pages", "web")
    assert [w["way"] for w in back.ways] == ["came"]
    text = compare.as_text(back)
    assert "only in B: 1 rows, A dropped them in long: too_short" in text
    assert "too_short 4 -> 2 (-2)" in text
    assert json.loads(compare.as_json(back))["come"] == 1


def test_a_past_run_is_compared_by_its_id(full):
    assert full.run(RECIPE.format(name="weekly")).code == 0
    folder = full.store.root / "runs" / "20260101-000000-weekly-1"
    folder.mkdir(parents=True)
    (folder / "record.json").write_bytes(orjson.dumps(recipe_record(full.last.layout)))
    assert full.run(RECIPE.format(name="weekly"), {"least": "14"}).code == 0
    found = compare.compare(full.store, "20260101-000000-weekly-1", "weekly", "web")
    assert (found.same, found.gone, found.come) == (1, 1, 0)
    same = compare.compare(full.store, "pages", "pages")
    assert "every step has the same accounts" in compare.as_text(same)
    with pytest.raises(CatalogError, match="'page' is no run, recipe or published name"):
        compare.compare(full.store, "page", "pages")
    with pytest.raises(CatalogError, match=r"has no step 'wob'.*web"):
        compare.compare(full.store, "pages", "pages", "wob")
