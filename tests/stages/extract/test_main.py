"""The extractor as a stage: what it keeps, how it writes it, and pages that mean harm."""

from __future__ import annotations

import time
from typing import Any

import pyarrow as pa
import pytest

from stages.extract.main import Main, main_text

SENTENCE = "The river rose by two metres during the night, and the old bridge was closed to all until the water fell again. "
PROSE = "".join(f"<p>{SENTENCE * 3}</p>" for _ in range(4))

DEFAULTS = Main.model_validate({})


def run(*pages: bytes | None, charset: str | None = None, **params: Any) -> pa.Table:
    batch = pa.table({"html": pa.array(pages, pa.large_binary()), "charset": pa.array([charset] * len(pages), pa.string())})
    return main_text(batch, Main.model_validate(params))


def text_of(page: bytes, **params: Any) -> str:
    return run(page, **params)["text"][0].as_py() or ""


def article(inner: str, head: str = "") -> bytes:
    return f"""<!doctype html><html lang="en-GB"><head><title>The night of the flood</title>{head}</head><body>
    <header class="site-header"><nav class="menu"><ul><li><a href="/">Home</a></li><li><a href="/news">News</a></li></ul></nav>
    </header>
    <main><article class="post-content entry"><h1>The night of the flood</h1>{PROSE}{inner}{PROSE}</article></main>
    <footer class="footer"><p><a href="/privacy">Privacy</a> <a href="/imprint">Imprint</a> © 2024 All rights reserved</p></footer>
    </body></html>""".encode()


@pytest.mark.parametrize("mode", ["learned", "rules"])
def test_the_article_is_kept_and_the_frame_of_the_site_is_not(mode: str) -> None:
    text = text_of(article(""), mode=mode)
    assert text.count("old bridge was closed") == 24
    assert not any(word in text for word in ("Privacy", "Imprint", "Home"))


def test_headings_lists_and_quotes_carry_their_marks() -> None:
    inner = f"<h2>What the town did</h2><ul><li>{SENTENCE}</li><li>{SENTENCE}</li></ul><ol><li>{SENTENCE}<li>{SENTENCE}</ol>"
    text = text_of(article(inner + f"<blockquote><p>{SENTENCE}</p></blockquote>"))
    assert "\n\n## What the town did\n\n" in text
    assert f"- {SENTENCE.strip()}\n- The river" in text
    assert f"1. {SENTENCE.strip()}\n2. The river" in text
    assert f"> {SENTENCE.strip()}" in text


def test_plain_text_has_no_marks_of_headings() -> None:
    assert "## " not in text_of(article("<h2>What the town did</h2>"), format="plain")


def test_data_tables_become_rows_of_pipes() -> None:
    rows = "".join(f"<tr><td>Station {n}</td><td>The water stood at {n} metres.</td></tr>" for n in range(6))
    text = text_of(article(f"<table><tr><th>Station</th><th>Level of the water</th></tr>{rows}</table>"))
    assert "| Station 3 | The water stood at 3 metres. |\n| Station 4 |" in text


@pytest.mark.parametrize("form", ["markdown", "plain"])
def test_code_keeps_its_indentation_and_line_breaks(form: str) -> None:
    code = "def level(depth):\n    if depth &gt; 2:\n        return &quot;high&quot;\n\n    return depth\n"
    text = text_of(article(f"<p>{SENTENCE}</p><pre><code class='language-python'>{code}</code></pre>"), format=form)
    assert 'def level(depth):\n    if depth > 2:\n        return "high"\n\n    return depth' in text
    assert ("```" in text) == (form == "markdown")


def test_formulas_come_out_as_latex() -> None:
    katex = (
        '<span class="katex"><span class="katex-mathml"><math><semantics><mi>E</mi><annotation encoding="application/x-tex">E=mc^2'
        '</annotation></semantics></math></span><span class="katex-html" aria-hidden="true"><span>Erendered</span></span></span>'
    )
    text = text_of(article(f"<p>Energy and mass are one, as {katex} says. {SENTENCE}</p>"))
    assert "are one, as $E=mc^2$ says." in text
    assert "rendered" not in text


def test_a_page_without_words_is_dropped_with_a_reason() -> None:
    table = run(b"<html><body></body></html>", b"<script>var x = 1;</script>" * 50, b"", None, article(""))
    assert table["drop_reason"].to_pylist() == ["no_main_text"] * 4 + [None]
    assert table["text"].to_pylist()[:4] == [None] * 4


def test_metadata_is_read() -> None:
    head = '<link rel="canonical" href="https://example.org/flood"><meta property="article:published_time" content="2024-03-05T10:00:00Z">'
    row = run(article("", head)).to_pylist()[0]
    assert row["title"] == "The night of the flood"
    assert row["language_declared"] == "en-GB"
    assert row["canonical_url"] == "https://example.org/flood"
    assert row["published"] == "2024-03-05T10:00:00"


def test_the_charset_column_may_be_absent_and_the_header_decides_where_utf8_does_not_hold() -> None:
    russian = "Река поднялась за ночь на два метра, и старый мост закрыли для движения. " * 20
    page = f"<html><body><article><p>{russian}</p></article></body></html>".encode("cp1251")
    assert "старый мост закрыли" in (run(page, charset="windows-1251")["text"][0].as_py() or "")
    bare = main_text(pa.table({"html": pa.array([article("")], pa.large_binary())}), DEFAULTS)
    assert bare["drop_reason"].to_pylist() == [None]


def test_output_does_not_depend_on_the_batch() -> None:
    pages = [article(f"<p>{SENTENCE * n}</p>") for n in range(6)]
    together = run(*pages)
    assert together.equals(pa.concat_tables([run(page) for page in pages]).combine_chunks())


def test_the_model_that_the_engine_opens_gives_the_same_text() -> None:
    batch = pa.table({"html": pa.array([article("")], pa.large_binary())})
    assert main_text.model is not None
    assert main_text(batch, DEFAULTS, model=main_text.model(DEFAULTS)).equals(main_text(batch, DEFAULTS))


def test_the_written_columns_and_types_are_those_declared() -> None:
    table = run(article(""))
    assert {name: table.schema.field(name).type for name in table.column_names} == main_text.writes_of(DEFAULTS)


HOSTILE = {
    "nested divs": b"<div>" * 4_000_000,
    "nested inline tags": b"<b><i>" * 3_000_000,
    "nested lists": b"<ul><li>" * 2_000_000,
    "nested tables": b"<table><tr><td>" * 1_300_000,
    "end tags that close nothing": b"<div><p>" * 300 + b"</section>" * 1_900_000,
    "null bytes": b"\0" * 1_000_000 + article("") + b"\0" * 1_000_000,
    "invalid utf-8": b"\xff\xfe\xc3\x28\xf0\x28\x8c\xbc" * 100_000,
    "one word of a million characters": b"<p>" + b"a" * 1_000_000 + b"</p>",
    "scripts only": b"<script>if (a < b) { document.write('<p>text</p>') }</script>" * 20_000,
    "unclosed comment": b"<p>text</p><!--" + b"-" * 2_000_000,
    "unclosed quote": b'<a href="' + b"x " * 1_000_000,
    "unclosed svg in rows": b"<svg>" * 1_000_000,
    "open angles": b"<" * 5_000_000,
    "open math": b"<math " * 700_000 + b"<math>" * 100_000,
    "ampersands": b"&" * 2_000_000 + b"&#x" * 300_000,
    "a million attributes": b"<p " + b"a=b " * 900_000 + b">",
    "classes": b"<p class='" + b"nav-item " * 400_000 + b"'>text</p>",
    "metas": b"<meta " * 600_000,
    "a table of one row": b"<table><tr>" + b"<td>x" * 600_000,
    "paragraphs": b"<p>A sentence with some words in it, ten at least I think." * 60_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pages_neither_crash_nor_hang(name: str) -> None:
    run(article(""))
    started = time.process_time()
    table = run(HOSTILE[name])
    assert table.num_rows == 1
    assert time.process_time() - started < 20
