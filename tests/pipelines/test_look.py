"""What sql, its shell and peek print."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys

import pyarrow.parquet as pq
import pytest

from manifests.catalog import CatalogError
from pipelines import answers, look, sql_shell

STAGES = """
import pyarrow as pa
import pyarrow.compute as pc
from stages.contract import TEXT, Params, map_stage

class Nothing(Params):
    pass

@map_stage(version=1, reads={"text": TEXT}, writes={"drop_reason": pa.string(), "size": pa.int64()})
def sized(batch, params: Nothing):
    size = pc.utf8_length(batch["text"]).cast(pa.int64())
    reason = pc.if_else(pc.less(size, 6), pa.scalar("too_short"), pa.scalar(None, pa.string()))
    return pa.table({"drop_reason": reason, "size": size})

@map_stage(version=1, reads={"text": TEXT}, writes={"text": TEXT})
def polite(batch, params: Nothing):
    return pa.table({"text": pc.replace_substring(batch["text"], "second", "polite")})

@map_stage(version=1, rows="any", reads={"text": TEXT}, writes={"text": TEXT, "k": pa.int32()})
def lines(batch, params: Nothing):
    found = [(i, j, w) for i, t in enumerate(batch["text"].to_pylist()) for j, w in enumerate(t.splitlines())]
    parent, k, out = zip(*found)
    return pa.table({"parent": pa.array(parent, pa.int64()), "k": pa.array(k, pa.int32()), "text": pa.array(out, TEXT)})
"""
RECIPE = """
name: pages
steps:
  lines:  {uses: stages.ingest.jsonl.rows, with: {paths: "${here}/rows*.jsonl", columns: {id: id, text: text, url: url}}}
  long:   {uses: shelf.sized, from: lines, keep: true}
  polite: {uses: shelf.polite, from: long}
  kept:   {uses: stages.compact.keep, from: polite}
  pieces: {uses: shelf.lines, from: kept}
  mixed:  {uses: stages.shuffle.by_hash, from: kept, with: {shards: 2}}
  files:  {uses: stages.export.jsonl.files, from: mixed}
"""


def row(i: int) -> dict[str, str]:
    many = "\n".join(f"line {n} of many words" for n in range(20))
    text = "short" if i % 5 == 4 else f"first line of {i}\nthe second line\n{many}"
    return {"id": f"r{i:02}", "text": text, "url": f"https://site.example/{i}"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return tmp_path_factory.mktemp("made") / "store"


@pytest.fixture
def store(engine, made):
    if not made.exists():
        before = list(sys.path)
        engine.write("shelf.py", STAGES)
        for part in range(3):
            engine.rows(f"rows{part}.jsonl", [row(i) for i in range(part * 5, part * 5 + 5)])
        assert engine.run(RECIPE).code == 0
        sys.path[:] = before
        sys.modules.pop("shelf")
        shutil.copytree(engine.store.root, made)
    else:
        shutil.copytree(made, engine.store.root)
    return engine.store


@pytest.fixture
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")


def test_a_table_aligns_numbers_right_and_shows_null(store, wide):
    text = answers.sql(store, "select * from (values ('a', 1), ('bc', 200), (null, null)) t(name, many) order by many")
    assert text.splitlines() == ["name  many", "----  ----", "a        1", "bc     200", "null  null"]


def test_a_long_result_is_cut_and_says_so(store, wide):
    lines = answers.sql(store, "select range as n from range(1000)").splitlines()
    assert len(lines) == 2 + answers.MAX_ROWS + 1
    assert "--parquet" in lines[-1]


def test_rows_that_do_not_fit_the_terminal_are_written_value_by_value(store, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    text = answers.sql(store, "select id, url, size, text, origin from pages.long where id = 'r00'")
    assert text.splitlines()[:3] == ["    id  r00", "   url  https://site.example/0", "  size  " + str(len(row(0)["text"]))]
    assert all(len(line) <= 60 for line in text.splitlines())


def test_json_has_objects_iso_dates_null_and_nested_values(store):
    query = """select 1::bigint as n, null as nothing, date '2026-01-02' as day, timestamp '2026-01-02 03:04:05' as at,
        1.50::decimal(5,2) as d, {'a': [1, 2]} as nested, 'x'::blob as raw, 'nan'::double as none, true as yes,
        170141183460469231731687303715884105727::hugeint as big"""
    (found,) = json.loads(answers.sql(store, query, as_json=True))
    assert found == {
        "n": 1, "nothing": None, "day": "2026-01-02", "at": "2026-01-02T03:04:05", "d": 1.5, "nested": {"a": [1, 2]}, "raw": "78",
        "none": None, "yes": True, "big": "170141183460469231731687303715884105727",
    }  # fmt: skip
    (why,) = json.loads(answers.sql(store, "select deciding from why('r04')", as_json=True))
    assert why == {"deciding": {"size": 5}}


def test_csv_reads_back(store):
    text = answers.sql(store, "select id, text, null as none, origin from pages.polite order by id limit 2", as_csv=True)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [r["id"] for r in rows] == ["r00", "r01"]
    assert rows[0]["text"] == row(0)["text"].replace("second", "polite")
    assert rows[0]["none"] == ""
    assert json.loads(rows[0]["origin"])["unit"] == "rows0.jsonl"


def test_parquet_is_written_whole_or_not_at_all(store, tmp_path):
    path = tmp_path / "out.parquet"
    assert answers.sql(store, "select id, size from pages.polite", parquet=path) == f"{path}: 12 rows"
    assert pq.read_table(path).sort_by("id")["id"].to_pylist()[:2] == ["r00", "r01"]
    with pytest.raises(CatalogError, match="cannot be written"):
        answers.sql(store, "select 1", parquet=tmp_path / "nowhere" / "out.parquet")
    with pytest.raises(CatalogError):
        answers.sql(store, "select error(id) from pages.polite", parquet=tmp_path / "broken.parquet")
    assert [p.name for p in tmp_path.iterdir() if "parquet" in p.name] == ["out.parquet"]


def test_an_error_while_rows_are_fetched_is_a_catalog_error(store):
    with pytest.raises(CatalogError, match=r"r\d"):
        answers.sql(store, "select error(id) from pages.polite")


def session(store, *lines):
    told: list[str] = []
    waiting = iter(lines)

    def ask(_prompt):
        try:
            line = next(waiting)
        except StopIteration:
            raise EOFError from None
        if isinstance(line, BaseException):
            raise line
        return line

    sql_shell.shell(store, ask, told.append)
    return told


def test_the_shell_answers_over_several_lines_and_goes_on_after_errors(store, monkeypatch, tmp_path, wide):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    typed = [
        "select count(*)",
        "  as n",
        "from pages.kept;",
        "from nowhere;",
        "",
        "select 1",
        KeyboardInterrupt(),
        "select 2 as two;",
    ]
    told = session(store, *typed)
    assert told[0].endswith("recipes pages; .help for help")
    assert told[1].split() == ["n", "--", "12"]
    assert told[2].endswith(" s")
    assert "nowhere does not exist" in told[3]
    assert told[-2].split() == ["two", "---", "2"]


def test_the_shell_has_commands(store, monkeypatch, tmp_path, wide):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    told = session(store, ".tables", ".schema pages.long", ".what", ".help", ".quit", "select 1;")
    steps, views = told[1].splitlines()
    assert set(steps.removeprefix("pages: ").split(", ")) == {"lines", "long", "polite", "kept", "pieces", "mixed", "files"}
    assert views.startswith("store: steps, shards")
    assert "size         BIGINT" in told[2]
    assert told[3].startswith("no command .what")
    assert len(told) == 5


def test_views_made_in_the_shell_last(store, monkeypatch, tmp_path, wide):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    told = session(store, "create view mine as select id, text from pages.mixed;", "select count(text) as n from mine;")
    assert told[-2].split() == ["n", "--", "12"]


def test_peek_shows_the_first_documents_with_their_columns_and_a_shortened_text(store):
    text = look.peek(store, "pages", "kept", 2, width=80)
    assert "── 1 of 12 standing ── https://site.example/0" in text
    assert f"id r00\nsize={len(row(0)['text'])}" in text
    assert "first line of 0\nthe polite line\nline 0 of many words" in text
    assert f"… ({len(row(0)['text'])} characters)" in text
    assert text.count("standing") == 2


def test_peek_pages_on_over_parts_and_samples_by_seed(store):
    def ids(text):
        return [line.removeprefix("id ") for line in text.splitlines() if line.startswith("id ")]

    pages = [ids(look.peek(store, "pages", "polite", 5, offset=at)) for at in (0, 5, 10, 15)]
    assert pages == [["r00", "r01", "r02", "r03", "r05"], ["r06", "r07", "r08", "r10", "r11"], ["r12", "r13"], []]
    sample = ids(look.peek(store, "pages", "polite", 4, seed=7))
    assert sample == ids(look.peek(store, "pages", "polite", 4, seed=7))
    assert len(set(sample)) == 4
    assert len({tuple(ids(look.peek(store, "pages", "polite", 4, seed=s))) for s in range(5)}) > 1


def test_peek_at_dropped_rows_gives_reason_values_and_the_place_of_the_bytes(store):
    text = look.peek(store, "pages", "long", dropped=True)
    assert "── 3 of 3 dropped here ── https://site.example/14" in text
    assert "dropped: too_short\nsize=5" in text
    assert text.endswith("size=5\n\nshort")  # read again from its source
    record = store.records("recipes")["pages"]
    record["steps"]["lines"]["inputs"] = "/nowhere/rows*.jsonl"
    store.record("recipes", "pages", record)
    assert "(text is not stored here; its bytes: rows2.jsonl:" in look.peek(store, "pages", "long", dropped=True)
    assert look.peek(store, "pages", "polite", dropped=True) == "pages.polite: no row is dropped here"


def test_peek_before_sets_the_parents_text_beside(store):
    text = look.peek(store, "pages", "polite", 1, before=True, width=60)
    assert "before                         after" in text
    assert "the second line              | the polite line" in text
    assert "first line of 0                first line of 0" in text
    assert "the text is the same before and after" in look.peek(store, "pages", "mixed", 1, before=True)
    assert "line 19 of many words        |" in look.peek(store, "pages", "pieces", 1, before=True, width=60)


def test_peek_before_says_when_the_parents_text_is_not_stored(engine):
    engine.write("shelf.py", STAGES)
    engine.rows("rows.jsonl", [row(0)])
    before = list(sys.path)
    assert engine.run(RECIPE.replace(", keep: true", "")).code == 0
    sys.path[:] = before
    sys.modules.pop("shelf")
    assert "(the text before is not stored)" in look.peek(engine.store, "pages", "polite", before=True)


def test_peek_refuses_what_it_cannot_show_with_the_steps_there_are(store):
    with pytest.raises(CatalogError, match=r"pages\.web is not a step of this recipe; steps to look at: lines, long, polite"):
        look.peek(store, "pages", "web")
    with pytest.raises(CatalogError, match="no recipe 'page' has run here"):
        look.peek(store, "page", "web")
    assert "gristmill sql 'from pages.files'" in look.peek(store, "pages", "files")
