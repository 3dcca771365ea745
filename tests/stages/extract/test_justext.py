import gzip
import json
from pathlib import Path
from typing import Any

import justext
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.contract import BYTES
from stages.extract.justext import Justext, main_text
from stages.extract.paragraphs import Limits, context_free, in_context, paragraphs, tree_of
from stages.ingest.charset import decode

ENGLISH = "The mill by the river has ground the corn of the village for more than two hundred years, and it is still there. "
GERMAN = "Die Mühle am Fluss mahlt seit mehr als zweihundert Jahren das Korn für das Dorf, und sie steht immer noch dort. "
CHINESE = "这座磨坊位于河边已经有两百多年的历史村里的人们至今仍然在这里磨面粉"
STOPWORDS = justext.get_stoplist("English")
DEFAULTS = Limits()


def classified_by_us(page: str, limits: Limits = DEFAULTS) -> list[tuple[str, str]]:
    root = tree_of(page)
    found = paragraphs(root) if root is not None else []
    first = context_free(found, STOPWORDS, limits)
    return [(p.text, kind) for p, kind in zip(found, in_context(found, first, limits), strict=True)]


def classified_by_justext(page: str, **limits: Any) -> list[tuple[str, str]]:
    return [(p.text, p.class_type) for p in justext.justext(page, STOPWORDS, **limits)]


PARTS = [
    "<p>", "</p>", "<div>", "</div>", "<br>", "<b>", "</b>", " ", "\n", "<a href=x>", "</a>", "<h2>", "</h2>", "<form>", "</form>",
    "<script>var x = '<p>';</script>", "<!-- c -->", "<select><option>x</select>", "<table><tr><td>", "</table>", "<li>", "©",
    "<iframe>in</iframe>", "<object>ob<param></object>", "&nbsp;", "&lt;b&gt;", "Short.", ENGLISH, ENGLISH * 2, "no stops " * 12,
    "<my-select>", "</my-select>", "<noscript>", "<style>p{}</style>", "\u2003", "<textarea>t</textarea>", "<span/>", "<pre>a\r\nb",
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PARTS), min_size=1, max_size=30).map("".join))
def test_paragraphs_and_classes_are_those_of_the_library(body: str) -> None:
    page = f"<html><head><title>t</title></head><body>{body}</body></html>"
    assert classified_by_us(page) == classified_by_justext(page)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["<h1>Head</h1>", "<p>Short one.</p>", f"<p>{ENGLISH}</p>", f"<p>{ENGLISH * 3}</p>"]), max_size=14))
def test_neighbours_and_headings_decide_as_in_the_library(blocks: list[str]) -> None:
    page = f"<html><body>{''.join(blocks)}</body></html>"
    assert classified_by_us(page) == classified_by_justext(page)
    near = classified_by_us(page, Limits(max_heading_distance=5, length_low=20, stopwords_high=0.5))
    assert near == classified_by_justext(page, max_heading_distance=5, length_low=20, stopwords_high=0.5)
    assert classified_by_us(page, Limits(headings=False)) == classified_by_justext(page, no_headings=True)


def test_real_pages_come_out_as_from_the_library() -> None:
    folder = Path(__file__).parents[3] / ".." / "shared" / "data" / "dev" / "webpages"
    if not folder.exists():
        pytest.skip("../shared is absent")
    gold = [json.loads(line) for line in gzip.decompress((folder / "gold.jsonl.gz").read_bytes()).splitlines()]
    small = [g for g in gold if g["html_bytes"] < 60_000 and g["language"] in {"en", "ru", "el", "zh"}][::25]
    assert len(small) > 10
    for page in small:
        raw = gzip.decompress((folder / "html" / Path(page["html_path"]).name).read_bytes())
        text = decode(raw, page["declared_charset"])[0]
        assert classified_by_us(text) == classified_by_justext(text)


@pytest.fixture(scope="module")
def lists() -> Any:
    return main_text.model(Justext())


def pages(*rows: tuple[bytes | None, str | None]) -> pa.Table:
    return pa.table({"html": pa.array([r[0] for r in rows], BYTES), "charset": pa.array([r[1] for r in rows], pa.string())})


def page_of(sentence: str) -> str:
    menu = "<ul><li><a href=a>Home</a><li><a href=b>Shop</a></ul>"
    return f"<html><head><title>A  mill</title></head><body>{menu}<p>{sentence * 3}<p>{sentence * 2}</body></html>"


def test_the_stop_list_is_found_by_the_words_of_the_page(lists: Any) -> None:
    rows = pages(
        (page_of(ENGLISH).encode(), None), (page_of(GERMAN).encode("cp1252"), "iso-8859-1"), (page_of(CHINESE).encode(), None)
    )
    out = main_text(rows, Justext(), model=lists)
    assert out["stoplist"].to_pylist() == ["English", "German", None]
    assert out["drop_reason"].to_pylist() == [None, None, "no_stoplist"]
    assert out["title"].to_pylist() == ["A mill"] * 3
    assert out["text"].to_pylist()[:2] == [f"{s * 3}".strip() + "\n\n" + f"{s * 2}".strip() for s in (ENGLISH, GERMAN)]
    assert {f.name: f.type for f in out.schema} == main_text.writes_of(Justext())


def test_pages_without_good_text_get_a_reason(lists: Any) -> None:
    params = Justext(stoplist="English")
    rows = pages((b"", None), (None, None), (b"<html></html>", None), (page_of(GERMAN).encode(), None), (b"<p>Short.</p>", None))
    out = main_text(rows, params, model=lists)
    assert out["drop_reason"].to_pylist() == ["no_main_text"] * 5
    assert main_text(pages(), params, model=lists).num_rows == 0
    with pytest.raises(ValueError, match="no stop-list 'Klingon'"):
        main_text.model(Justext(stoplist="Klingon"))


def test_xml_declarations_and_control_characters_are_no_obstacle() -> None:
    page = f'<?xml version="1.0" encoding="iso-8859-1"?><html><body><p>{ENGLISH * 2}</p></body></html>'
    assert classified_by_us(page) == classified_by_justext(page)
