import pyarrow as pa

from stages.contract import BYTES
from stages.extract.resiliparse import Resiliparse, main_text

ARTICLE = "<p>The mill by the river has ground the village's corn for more than two hundred years, and it still does.</p>"
PAGE = f"""<html><head><title> The  old
mill </title></head><body><nav><a href="/">Home</a> <a href="/shop">Shop</a></nav>
<main><article><h1>The old mill</h1>{ARTICLE}<ul><li>stone</li><li>wheel</li></ul><img alt="a mill"></article></main>
<footer>All rights reserved</footer></body></html>"""


def pages(*rows: tuple[bytes | None, str | None]) -> pa.Table:
    return pa.table({"html": pa.array([r[0] for r in rows], BYTES), "charset": pa.array([r[1] for r in rows], pa.string())})


def test_keeps_the_article_and_drops_what_surrounds_it() -> None:
    out = main_text(pages((PAGE.encode(), None)), Resiliparse())
    text = out["text"][0].as_py()
    assert "two hundred years" in text
    assert "Shop" not in text
    assert "rights reserved" not in text
    assert "a mill" not in text
    assert out["title"].to_pylist() == ["The old mill"]
    assert out["drop_reason"].to_pylist() == [None]


def test_pages_without_text_get_a_reason_and_keep_their_place() -> None:
    out = main_text(pages((b"<html></html>", None), (PAGE.encode(), None), (b"", None), (None, None)), Resiliparse())
    assert out["drop_reason"].to_pylist() == ["no_main_text", None, "no_main_text", "no_main_text"]
    assert [t is None for t in out["text"].to_pylist()] == [True, False, True, True]


def test_utf8_wins_over_a_wrong_header_and_other_bytes_follow_the_header_or_the_meta_tag() -> None:
    body = "<p>Żółta łódź płynie powoli po rzece, a młyn stoi przy brzegu od dwustu lat i ciągle działa.</p>"
    meta = f'<html><head><meta charset="iso-8859-2"></head><body>{body}</body></html>'
    rows = pages((body.encode(), "latin-1"), (body.encode("cp1250"), "windows-1250"), (meta.encode("iso-8859-2"), None))
    texts = main_text(rows, Resiliparse())["text"].to_pylist()
    assert all(text.startswith("Żółta łódź płynie") for text in texts)


def test_declared_columns_and_types_are_returned() -> None:
    params = Resiliparse(alt_texts=True, skip=("h1",))
    out = main_text(pages((PAGE.encode(), None)), params)
    assert {f.name: f.type for f in out.schema} == main_text.writes_of(params)
    assert "a mill" in out["text"][0].as_py()
    assert not out["text"][0].as_py().startswith("The old mill")


def test_pages_that_nest_beyond_reason_are_dropped_before_they_cost_minutes() -> None:
    deep = b"<div>" * 20_000 + b"x" + b"</div>" * 20_000
    wide = ("<div>" * 3 + ARTICLE + "</div>" * 3) * 1500
    out = main_text(pages((deep, None), (wide.encode(), None)), Resiliparse())
    assert out["drop_reason"].to_pylist() == ["too_deep", None]
