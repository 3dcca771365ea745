"""SQL over a store that a small recipe has filled: rows, drops, columns from everywhere, and what is refused."""

from __future__ import annotations

import shutil
import sys

import duckdb
import orjson
import pytest

from manifests.catalog import Catalog, CatalogError, connect
from manifests.store import Store

STAGES = """
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field
from stages.contract import TEXT, Params, map_stage

class Nothing(Params):
    pass

class Size(Params):
    low: int = Field(0, description="fewest characters")
    high: int = Field(1000, description="most characters")

def _reasons(batch, params):
    size = pc.utf8_length(batch["text"]).cast(pa.int64())
    none = pa.scalar(None, pa.string())
    reason = pc.if_else(pc.less(size, params.low), pa.scalar("too_short"), none)
    return size, pc.if_else(pc.greater(size, params.high), pa.scalar("too_long"), reason)

@map_stage(version=1, reads={"text": TEXT}, writes={"drop_reason": pa.string(), "size": pa.int64()})
def sized(batch, params: Size):
    size, reason = _reasons(batch, params)
    return pa.table({"drop_reason": reason, "size": size})

@map_stage(version=1, reads={"text": TEXT}, writes={"drop_reason": pa.string()})
def limited(batch, params: Size):
    return pa.table({"drop_reason": _reasons(batch, params)[1]})

@map_stage(version=1, reads={"text": TEXT}, writes={"text": TEXT})
def upper(batch, params: Nothing):
    return pa.table({"text": pc.utf8_upper(batch["text"])})

@map_stage(version=1, reads={"text": TEXT}, writes={"score": pa.float64()})
def score(batch, params: Nothing):
    return pa.table({"score": pc.cast(pc.utf8_length(batch["text"]), pa.float64())})

@map_stage(version=1, reads={"text": TEXT}, writes={"seen": pa.bool_()})
def fragile(batch, params: Nothing):
    if any("DELTA" in t for t in batch["text"].to_pylist()):
        raise ValueError("met DELTA")
    return pa.table({"seen": pa.array([True] * batch.num_rows)})

@map_stage(version=1, rows="any", reads={"text": TEXT}, writes={"text": TEXT, "k": pa.int32()})
def words(batch, params: Nothing):
    found = [(i, j, w) for i, t in enumerate(batch["text"].to_pylist()) for j, w in enumerate(t.split())]
    parent, k, out = zip(*found) if found else ((), (), ())
    return pa.table({"parent": pa.array(parent, pa.int64()), "k": pa.array(k, pa.int32()), "text": pa.array(out, TEXT)})

@map_stage(version=1, rows="any", reads={}, writes={}, union=True)
def together(batch, params: Nothing):
    return pa.table({"parent": pa.array(range(batch.num_rows), pa.int64())})

@map_stage(version=1, reads={"text": TEXT}, writes={"loud": pa.bool_()})
def loses_rows(batch, params: Nothing):
    return pa.table({"loud": pa.array([True] * (batch.num_rows - 1))})
"""

TEXTS = ["alpha", "be", "gamma ray", "alpha", "delta", "x", "epsilon rather long", "gamma ray"]
ROWS = [{"id": f"r{i}", "text": t, "url": f"https://site{i % 2}.example/{i}"} for i, t in enumerate(TEXTS)]
RECIPE = """
name: small
steps:
  lines:  {uses: stages.ingest.jsonl.rows, with: {paths: "${here}/rows*.jsonl", columns: {id: id, text: text, url: url}}}
  long:   {uses: shop.sized, from: lines, with: {low: 3}}
  loud:   {uses: shop.upper, from: long}
  brief:  {uses: shop.limited, from: loud, with: {high: 10}}
  twins:  {uses: stages.dedup.exact.documents, from: loud, with: {partitions: 2}}
  kept:   {uses: stages.compact.keep, from: [brief, twins]}
  scored: {uses: shop.score, from: kept}
  parts:  {uses: shop.words, from: scored}
  both:   {uses: shop.together, from: [scored, parts]}
  again:  {uses: shop.score, from: both}
  risky:  {uses: shop.fragile, from: scored}
  files:  {uses: stages.export.jsonl.files, from: scored}
publish: {small_set: scored}
run: {max_error_rate: 0.9}
"""
BROKEN = "  bad:    {uses: shop.loses_rows, from: scored}\n  later:  {uses: shop.score, from: bad}\npublish:"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return tmp_path_factory.mktemp("made") / "folder"


@pytest.fixture
def small(engine, made):
    """A folder with inputs, stages and the store of a finished run: made once, copied for each test."""
    before = list(sys.path)
    if not made.exists():
        engine.write("shop.py", STAGES)
        engine.rows("rows0.jsonl", ROWS[:5])
        engine.rows("rows1.jsonl", ROWS[5:])
        assert engine.run(RECIPE).code == 0
        shutil.copytree(engine.folder, made)
    else:
        shutil.copytree(made, engine.folder, dirs_exist_ok=True)
    yield engine
    sys.path[:] = before
    sys.modules.pop("shop", None)


@pytest.fixture
def ask(small):
    catalog = Catalog(small.store)
    return lambda query: catalog.run(query).fetchall()


def test_a_view_holds_the_rows_that_stand_at_its_step(ask):
    assert ask("select id from small.lines order by id") == [(f"r{i}",) for i in range(8)]
    assert ask("select id from small.long order by id") == [(f"r{i}",) for i in (0, 2, 3, 4, 6, 7)]
    assert ask("select id from small.brief order by id") == [(f"r{i}",) for i in (0, 2, 3, 4, 7)]
    assert ask("select count(*) from small.twins") == [(4,)]


def test_dropped_rows_carry_the_first_reason_on_the_path_and_the_step(ask):
    rows = ask("select id, drop_reason, dropped_by, size from small.long_all where drop_reason is not null order by id")
    assert rows == [("r1", "too_short", "long", 2), ("r5", "too_short", "long", 1)]
    rows = ask("select id, drop_reason, dropped_by from small.twins_all where dropped_by is not null order by dropped_by, id")
    assert rows[:2] == [("r1", "too_short", "long"), ("r5", "too_short", "long")]
    assert [r[1:] for r in rows[2:]] == [("exact_duplicate", "twins")] * 2
    assert ask("select distinct dropped_by from small.brief_all order by 1 nulls first") == [(None,), ("brief",), ("long",)]


def test_a_merge_of_two_parents_is_a_selection_that_shows_their_columns(ask):
    rows = ask("select id, text, size, url, score from small.scored order by text")
    assert [r[1:3] for r in rows] == [("ALPHA", 5), ("DELTA", 5), ("GAMMA RAY", 9)]
    assert all(r[3] == f"https://site{int(r[0][1]) % 2}.example/{r[0][1]}" and r[4] == r[2] for r in rows)
    assert ask("select count(*) from small.kept_all where drop_reason is null") == [(3,)]


def test_children_and_unions_reach_the_columns_of_their_parents(ask):
    assert ask("select text, size from small.parts where id like '%#1'") == [("RAY", 9)]
    rows = ask("""select step, count(*), count(distinct text), count(url), sum(score) from small.again group by 1 order by 1""")
    assert rows == [("parts", 4, 4, 4, 18.0), ("scored", 3, 3, 3, 19.0)]
    mismatched = ask("select count(*) from small.again where url not like '%/' || id[2] or size is null")
    assert mismatched == [(0,)]


def test_a_column_that_is_written_again_is_null_and_asking_for_it_says_who_has_it(ask):
    assert {text for (text,) in ask("select text from small.loud")} >= {"ALPHA", "GAMMA RAY"}
    row = ask("from small.long where id = 'r0'")
    assert row[0][ask_names(ask, "small.long").index("text")] is None
    with pytest.raises(CatalogError, match=r"small\.long does not show 'text': 'loud' writes it again .* `keep: true` on 'long'"):
        ask("select text from small.long")


def ask_names(ask, view):
    return [name for (name, *_) in ask(f"describe {view}")]


def test_a_column_named_like_its_table_is_the_column_and_not_the_row(small):
    catalog = Catalog(small.store)
    assert catalog.run("select text from small.scored text where text = 'ALPHA'").fetchall() == [("ALPHA",)]
    (row,) = catalog.run("select s from small.scored s where s.text = 'ALPHA'").fetchone()
    assert (row["text"], row["score"]) == ("ALPHA", 5.0)


def test_every_way_to_ask_for_columns_gives_the_same_rows(small):
    whole = sorted(connect(small.store).sql("select id, url, score from small.again").fetchall())
    catalog = Catalog(small.store)
    for query in (
        "select id, url, score from small.again",
        "with a as (from small.again) select id, url, score from a",
        "select id, a.url, b.score from small.again a join small.again b using (id, step)",
        "select id, url, score from (select * exclude (text) from small.again)",
        "select r.id, r.url, r.score from (select a as r from small.again a)",
        "select id, url, score from small.again natural join (select id, step from small.again)",
        "select id, url, score from query_table('small.again')",
    ):
        assert sorted(catalog.run(query).fetchall()) == whole, query


def test_a_count_opens_one_object_and_predicates_reach_the_files(small):
    catalog = Catalog(small.store)
    plan = str(catalog.run("explain select count(*) from small.scored").fetchall())
    assert plan.count("READ_PARQUET") == 1
    catalog.prepare("select count(*) from small.scored where score > 5")
    (body,) = catalog._do("select sql from duckdb_views() where schema_name = 'small' and view_name = 'scored'")[0]
    assert body.count("read_parquet") == 1
    plan = catalog.run("explain select count(*) from small.scored where score > 5").fetchall()[0][1]
    assert "score>5" in plan.replace(" ", "").replace("\n", "")


def test_the_funnel_and_the_accounts_agree_with_the_rows(ask):
    steps = {r[0]: r[1:] for r in ask("select step, rows_in, standing, dropped, quarantined, complete from steps")}
    assert steps["lines"] == (8, 8, 0, 0, True)
    assert steps["long"] == (8, 6, 2, 0, True)
    assert steps["parts"] == (3, 4, 0, 0, True)
    assert steps["risky"] == (3, 2, 0, 1, True)
    for name, (_, standing, *_) in steps.items():
        if name != "files":
            assert ask(f"select count(*) from small.{name}") == [(standing,)]
    assert ask("select standing from funnel('small') where step = 'long'") == [(6,)]
    assert ask("from drops order by all") == [
        ("small", "brief", "too_long", 1), ("small", "long", "too_short", 2), ("small", "twins", "exact_duplicate", 2)
    ]  # fmt: skip


def test_dropped_documents_come_with_the_values_that_decided(ask):
    rows = ask("select step, id, url, deciding ->> 'size' from dropped where step = 'long' order by id")
    assert rows == [("long", "r1", "https://site1.example/1", "2"), ("long", "r5", "https://site1.example/5", "1")]
    assert ask("select step, reason from why('r6')") == [("brief", "too_long")]
    assert ask("select step, reason from why('https://site1.example/1')") == [("long", "too_short")]
    assert ask("select verdict, step from why('r4')") == [("dropped", "risky")]


def test_quarantined_rows_name_their_bytes(ask):
    rows = ask("""select recipe, step, id, unit, "offset" is not null, reason, detail from quarantine""")
    assert rows == [("small", "risky", "r4", "rows0.jsonl", True, "error: ValueError", rows[0][6])]
    assert "met DELTA" in rows[0][6]
    assert ask("select id from small.risky order by id") == ask("select id from small.scored where id <> 'r4' order by id")


def test_quarantined_rows_of_a_step_over_its_limit_can_be_asked_for(small):
    strict = RECIPE.replace("run: {max_error_rate: 0.9}", "").replace("shop.fragile", "shop.fragile, where: 'size < 99'")
    assert small.run(strict).code == 3
    catalog = Catalog(small.store)
    assert catalog.run("select step, id from quarantine").fetchall() == [("risky", "r4")]
    assert catalog.run("select complete from steps where step = 'risky'").fetchall() == [(False,)]


def test_shards_lineage_refs_and_domains(ask):
    assert ask("select step, sum(rows) from shards where list_contains(steps, 'loud') group by 1") == [("loud", 8)]
    assert ask("select parent from lineage where step = 'kept' order by 1") == [("brief",), ("twins",)]
    assert ask("select name, recipe, step from refs") == [("small_set", "small", "scored")]
    assert ask('select count(*) from published."small_set"') == [(3,)]
    assert ask("from domains('small.lines')") == [("site0.example", 4), ("site1.example", 4)]


def test_an_export_lists_its_files(ask):
    rows = ask("select rows, len(files), files[1].bytes > 0 from small.files where name <> 'dataset' order by all")
    assert sum(r[0] for r in rows) == 3
    assert {r[1:] for r in rows} == {(1, True)}


def test_runs_are_listed_with_or_without_a_result(small):
    whole = {"recipe": "small", "code": 0, "seconds": 1.5, "tasks": 4, "errors": []}
    for name, content in (("1-a", whole), ("2-b", {"code": 3}), ("3-c", None)):
        folder = small.store.root / "runs" / name
        folder.mkdir(parents=True)
        if content is not None:
            (folder / "result.json").write_bytes(orjson.dumps(content))
    rows = Catalog(small.store).run("from runs").fetchall()
    assert rows == [("1-a", "small", 0, 1.5, 4), ("2-b", None, 3, None, None), ("3-c", None, None, None, None)]


def test_an_unfinished_step_is_no_view_and_the_error_says_so(small):
    assert small.run(RECIPE.replace("publish:", BROKEN, 1)).code == 1
    catalog = Catalog(small.store)
    with pytest.raises(CatalogError, match=r"steps of small .*: lines, .*\nwithout a complete answer yet: bad, later; run"):
        catalog.run("from small.later")
    assert catalog.run("select count(*) from small.scored").fetchall() == [(3,)]
    assert catalog.run("select step from steps where not complete order by 1").fetchall() == [("bad",), ("later",)]


def test_unknown_names_are_answered_with_those_there_are(small):
    catalog = Catalog(small.store)
    with pytest.raises(CatalogError, match="recipes here: small"):
        catalog.run("from smal.web")
    with pytest.raises(CatalogError, match=r"steps of small .*: lines, long, "):
        catalog.run("from small.lon")
    with pytest.raises(CatalogError, match="near: drops"):
        catalog.run("from drop_s")
    with pytest.raises(CatalogError, match=r'"urll" not found[^\n]*\nCandidate bindings: .*"url"'):
        catalog.run("select urll from small.scored")
    with pytest.raises(CatalogError, match="syntax error"):
        catalog.run("selec 1")
    with pytest.raises(CatalogError, match="no recipe 'large' has run here"):
        connect(small.store, recipes=["large"])


@pytest.mark.parametrize(
    "statement",
    [
        "copy (select 1) to '{root}/x.parquet'",
        "explain analyze copy (select 1) to '{root}/x.parquet'",
        "attach '{root}/x.db'",
        "set threads = 1",
        "from read_text('/etc/hostname')",
        "from glob('/etc/*')",
        "install httpfs",
        "call enable_logging()",
    ],
)
def test_sql_can_neither_write_nor_read_beside_the_store(small, statement):
    catalog = Catalog(small.store)
    with pytest.raises(CatalogError):
        catalog.run(statement.format(root=small.store.root))
    assert not list(small.store.root.glob("x.*"))


def test_a_bare_connection_is_locked_as_well_unless_asked(small, tmp_path):
    (tmp_path / "beside.csv").write_text("a\n1\n")
    query = f"select a from '{tmp_path / 'beside.csv'}'"
    with pytest.raises(duckdb.Error):
        connect(small.store).sql(query).fetchall()
    assert connect(small.store, unlocked=True).sql(query).fetchall() == [(1,)]


def test_views_of_the_users_own_keep_the_columns_they_read(small):
    catalog = Catalog(small.store)
    catalog.run("create view mine as select id, text, url from small.scored")
    assert catalog.run("select count(*) from small.scored").fetchall() == [(3,)]
    assert catalog.run("select text from mine order by 1").fetchall() == [("ALPHA",), ("DELTA",), ("GAMMA RAY",)]


def test_a_store_at_a_path_with_a_quote_a_space_and_brackets_is_read(small, tmp_path):
    root = tmp_path / "it's a [store]*"
    small.store.root.rename(root)
    catalog = Catalog(Store(root))
    assert catalog.run("select text from small.scored order by 1").fetchall() == [("ALPHA",), ("DELTA",), ("GAMMA RAY",)]
    assert catalog.run("select sum(rows) from shards where step = 'loud'").fetchall() == [(8,)]
    assert catalog.run("select step from quarantine").fetchall() == [("risky",)]
    assert str(root) in catalog.run("select files[1].file from small.files limit 1").fetchall()[0][0]


def test_an_empty_store_answers_with_nothing(engine):
    Store.open(engine.store.root)
    catalog = Catalog(engine.store)
    for name in ("steps", "shards", "drops", "dropped", "quarantine", "lineage", "refs", "runs"):
        assert catalog.run(f"from {name}").fetchall() == []
    assert catalog.run("from why('r1')").fetchall() == []
