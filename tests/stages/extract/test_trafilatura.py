import pyarrow as pa

from stages.contract import BYTES
from stages.extract.trafilatura import Trafilatura, main_text

ARTICLE = "<p>The mill by the river has ground the village's corn for more than two hundred years, and it still does.</p>" * 3
PAGE = f"""<html><body><nav><a href="/">Home</a> <a href="/shop">Shop</a></nav><article><h1>The old mill</h1>{ARTICLE}
<table><tr><td>stone</td><td>wheel</td></tr></table></article>
<footer>All rights reserved</footer></body></html>"""


def pages(*rows: tuple[bytes | None, str | None]) -> pa.Table:
    return pa.table({"html": pa.array([r[0] for r in rows], BYTES), "charset": pa.array([r[1] for r in rows], pa.string())})


def test_keeps_the_article_and_drops_what_surrounds_it() -> None:
    out = main_text(pages((PAGE.encode(), None)), Trafilatura())
    text = out["text"][0].as_py()
    assert "two hundred years" in text
    assert "wheel" in text
    assert "Shop" not in text
    assert "rights reserved" not in text
    assert {f.name: f.type for f in out.schema} == main_text.writes_of(Trafilatura())


def test_parameters_reach_the_library() -> None:
    text = main_text(pages((PAGE.encode(), None)), Trafilatura(tables=False, formatting=True, fast=False))["text"][0].as_py()
    assert "wheel" not in text
    assert "# The old mill" in text


def test_pages_without_text_get_a_reason() -> None:
    out = main_text(pages((b"<html></html>", None), (b"", None), (None, None)), Trafilatura())
    assert out["drop_reason"].to_pylist() == ["no_main_text"] * 3


def test_a_page_gives_the_same_text_whatever_came_before() -> None:
    page = (PAGE.encode(), None)
    once = main_text(pages(page), Trafilatura())["text"].to_pylist()
    assert main_text(pages(*[page] * 5), Trafilatura())["text"].to_pylist() == once * 5


def test_the_header_counts_when_the_bytes_are_not_utf8() -> None:
    page = PAGE.replace("river", "łódź").encode("cp1250")
    assert "łódź" in main_text(pages((page, "windows-1250")), Trafilatura())["text"][0].as_py()
