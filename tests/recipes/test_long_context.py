"""A small long-context phase from end to end: questions asked of a server, retrieval documents, and the blend of both."""

from __future__ import annotations

import json
from typing import Any

import pytest

from manifests.catalog import Catalog

pytest.importorskip("aiohttp")

RECIPE = """
name: long
steps:
  books:     {{uses: stages.ingest.jsonl.rows, with: {{paths: "${{here}}/books.jsonl", columns: {{id: id}}}}}}
  asked:     {{uses: synthetic.document_qa.questions, from: books, with: {{model: reader, tokenizer: tekken, min_document_tokens: 2000, piece_tokens: 256}}}}
  qa:        {{uses: stages.compact.keep, from: asked}}
  found:     {{uses: stages.retrieval.documents, with: {{documents: 6, min_tokens: 512, max_tokens: 2048}}}}
  retrieval: {{uses: stages.compact.keep, from: found}}
  plain:     {{uses: stages.compact.keep, from: books, where: "url is null"}}
  all:       {{uses: stages.compact.keep, from: [plain, qa, retrieval]}}
  counted:   {{uses: stages.tokenize.count, from: all}}
  sorted:    {{uses: stages.lengths.by_tokens, from: counted, with: {{edges: [1024, 4096]}}}}
  sizes:     {{uses: stages.blend.sizes, from: sorted}}
  budget:
    uses: stages.blend.budget
    from: sorted
    given: {{sizes: sizes}}
    with: {{tokens: 20000, shares: {{qa: 20, retrieval: 10, plain: 70}}}}
  mix:       {{uses: stages.blend.take, from: sorted, given: {{budget: budget}}}}
  shards:    {{uses: stages.export.megatron.shards, from: mix, with: {{split_by: [phase, step, length_bucket]}}}}
run: {{models: {{reader: {{engine: openai, endpoints: ["{url}"], in_flight: 2}}}}, max_error_rate: 0.5}}
"""


def about_the_first_mill(said: str) -> str:
    """A model that asks about the first mill of each piece it is shown."""
    mill = said.rsplit("Piece:\n", 1)[1].split("mill ", 1)[1].split(" ", 1)[0]
    return f"Question: What does mill {mill} grind?\nAnswer: Mill {mill} grinds rye."


def test_questions_retrieval_and_the_blend_become_files_by_length(engine: Any, model: Any) -> None:
    model.rule = about_the_first_mill
    story = "\n".join("Sentence {n} of book {b}: the mill {m} by the river grinds rye all year." for _ in range(1))
    books = []
    for b in range(10):
        count = 160 if b % 2 else 12
        text = "\n\n".join(story.format(n=n, b=b, m=100 * b + n) for n in range(count))
        books.append({"id": f"book{b}", "text": text})
    engine.rows("books.jsonl", books)
    result = engine.run(RECIPE.format(url=model.url))
    assert result.code == 0, result.errors
    ask = lambda query: Catalog(engine.store).run(query).fetchall()  # noqa: E731
    rows = ask("select text, source_text, pairs from long.qa")
    assert len(rows) == 5
    for text, source, pairs in rows:
        assert text.startswith(source)
        assert text.count("grinds rye.\n") >= pairs
        assert 1 <= pairs <= 3
    assert ask("select reason, rows from drops where step = 'asked'") == [("document_too_short", 5)]
    assert {bucket for (bucket,) in ask("select distinct length_bucket from long.mix")} <= {"to_1k", "to_4k", "over_4k"}
    facts = json.loads(next((engine.store.root / "objects").glob("shards-*/parts/dataset-*.megatron.json")).read_text())
    by_source: dict[str, int] = {}
    for group in facts["groups"]:
        by_source[group["values"][1]] = by_source.get(group["values"][1], 0) + group["weight"]
    longest = dict(ask("select step, max(tokens) from long.sorted group by all"))
    for source, share in (("qa", 0.2), ("retrieval", 0.1), ("plain", 0.7)):
        assert abs(by_source[source] - 20_000 * share) <= longest[source]
