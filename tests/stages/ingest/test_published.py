"""Published datasets as sources of another recipe."""

from __future__ import annotations

from typing import Any

import pytest

from manifests.catalog import Catalog
from manifests.store import Store
from pipelines.recipe import RecipeError

MADE = """
name: made
steps:
  docs:   {uses: stages.ingest.jsonl.rows, with: {paths: "${here}/rows*.jsonl", columns: {url: link}, keep: {tokens: int32, quality: string}, source: news}}
  long:   {uses: stages.filters.length.by_words, from: docs, with: {min_words: 3}}
  kept:   {uses: stages.compact.keep, from: long, where: "tokens > 1"}
  files:  {uses: stages.export.parquet.files, from: kept}
publish: {news@1: kept, all_news: long, files: files}
"""
READ = """
name: read
steps:
  news:  {uses: stages.ingest.published.rows, with: {name: news@1, columns: {tokens: int32, quality: string}}}
  other: {uses: stages.ingest.jsonl.rows, with: {paths: "${here}/other.jsonl", keep: {tokens: int32, quality: string}}}
  both:  {uses: stages.compact.keep, from: [news, other]}
  sizes: {uses: stages.blend.sizes, from: both}
  plan:  {uses: stages.blend.budget, from: both, given: {sizes: sizes}, with: {tokens: 60, shares: {news: 0.5, other: 0.5}}}
  mix:   {uses: stages.blend.take, from: both, given: {budget: plan}}
publish: {mixed: mix}
"""


@pytest.fixture
def made(engine: Any) -> Any:
    rows = [
        {"text": f"row {n} of the mill" if n % 5 else "short", "link": f"http://mill.example/{n}", "tokens": n, "quality": "high" if n % 2 else "low"}
        for n in range(40)
    ]  # fmt: skip
    for unit in range(3):
        engine.rows(f"rows{unit}.jsonl", rows[unit::3])
    engine.rows("other.jsonl", [{"text": f"other {n}", "tokens": 4, "quality": "none"} for n in range(20)])
    assert engine.run(MADE).code == 0
    return engine


def sql(made: Any, query: str) -> list[tuple[Any, ...]]:
    return Catalog(made.store).run(query).fetchall()


def test_a_mixture_takes_published_rows_with_the_ids_and_places_they_had(made: Any) -> None:
    assert made.run(READ).code == 0
    query = "select id, text, url, source, tokens, quality, origin.unit, origin.offset from {} order by id"
    assert sql(made, query.format("read.news")) == sql(made, query.format("made.kept"))
    taken = dict(sql(made, "select step, sum(tokens * copies)::int from read.mix group by all"))
    assert set(taken) == {"news", "other"}
    assert all(30 <= tokens < 30 + 40 for tokens in taken.values())
    assert sql(made, "select count(*) from read.mix where step = 'news' and id not in (select id from made.kept)") == [(0,)]


def test_rows_of_a_step_that_only_filters_are_those_that_stand(made: Any) -> None:
    recipe = "name: r\nsteps:\n  news: {uses: stages.ingest.published.rows, with: {name: all_news}}\n"
    assert made.run(recipe).code == 0
    assert sql(made, "select id from r.news order by id") == sql(made, "select id from made.long order by id")


def test_a_condition_in_sql_skips_rows_and_counts_them(made: Any) -> None:
    recipe = "name: r\nsteps:\n  news: {uses: stages.ingest.published.rows, with: {name: news@1, where: \"quality = 'high' and tokens between 5 and 30\"}}\n"
    assert made.run(recipe).code == 0
    expected = sql(made, "select id from made.kept where quality = 'high' and tokens between 5 and 30 order by id")
    assert sql(made, "select id from r.news order by id") == expected
    counts = made.head("news")["counts"]
    (all_rows,) = sql(made, "select count(*) from made.kept")[0]
    assert counts["records"] == all_rows == made.head("news")["rows"] + counts["skipped"]["where"]


def test_a_second_run_reads_nothing_and_a_new_answer_is_read_anew(made: Any) -> None:
    assert made.run(READ).code == 0
    assert made.plan(READ).tasks == 0
    assert made.run(MADE.replace("tokens > 1", "tokens > 20")).code == 0
    assert made.plan(READ).tasks > 0
    assert made.run(READ).code == 0
    assert sql(made, "select min(tokens) from read.news") == [(21,)]


def test_a_name_keeps_its_rows_when_its_recipe_goes_on(made: Any) -> None:
    before = sql(made, 'select id, text from published."news@1" order by id')
    # What the command writes for every run; the engine of these tests writes the recipe's last record only.
    made.store.place.put("runs/1/record.json", made.store.place.read("recipes/made.json"))
    later = MADE.replace("tokens > 1", "tokens > 20").replace("news@1: kept, all_news: long, files: files", "news@2: kept")
    assert made.run(later).code == 0
    assert sql(made, 'select min(tokens) from published."news@2"') == [(21,)]
    assert sql(made, 'select id, text from published."news@1" order by id') == before
    assert made.run(READ).code == 0
    assert sql(made, "select id, text from read.news order by id") == before


FAULTS = {
    "name: news@2": "has no published name 'news@2'; did you mean news@1",
    "name: files": "published files is an export: files for other readers; publish the step before 'files'",
    "name: news@1, columns: {stars: int32}": "published news@1 has no column 'stars'; there are date, id, language, origin",
    "name: news@1, where: 'tokens >'": "syntax error",
    "name: news@1, where: 'stars > 3'": '"stars" not found',
    "name: news@1, store: nowhere": "nowhere: there is no store here",
    "name: gone": "remembers how it was made; run its recipe again",
}


def test_what_cannot_be_read_is_refused_before_anything_runs(made: Any) -> None:
    made.store.record("refs", "gone", made.store.records("refs")["news@1"] | {"object": "kept-0000000000000000"})
    for options, fault in FAULTS.items():
        with pytest.raises(RecipeError) as error:
            made.plan(f"name: r\nsteps:\n  news: {{uses: stages.ingest.published.rows, with: {{{options}}}}}\n")
        assert "recipe.yaml:3: step 'news'" in str(error.value)
        assert fault in str(error.value)


def test_another_store_is_named(made: Any, tmp_path: Any) -> None:
    recipe = (
        f'name: r\nsteps:\n  news: {{uses: stages.ingest.published.rows, with: {{name: news@1, store: "{made.store.root}"}}}}\n'
    )
    expected = sql(made, "select id from made.kept order by id")
    made.store = Store(tmp_path / "second")
    assert made.run(recipe).code == 0
    assert sql(made, "select id from r.news order by id") == expected


def test_a_source_with_a_condition_beside_it_is_refused(made: Any) -> None:
    recipe = 'name: r\nsteps:\n  news: {uses: stages.ingest.published.rows, with: {name: news@1}, where: "tokens > 3"}\n'
    with pytest.raises(RecipeError, match="is a source and reads all its rows; put 'where' into a step behind it"):
        made.plan(recipe)
