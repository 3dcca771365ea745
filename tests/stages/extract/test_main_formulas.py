"""Formulas of pages come out as LaTeX; metadata of pages is read."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from stages.extract.blocks import read_page
from stages.extract.formulas import write_formulas
from stages.extract.latex import latex_of
from stages.extract.main import Main, as_utf8, extract, weights
from stages.extract.metadata import date_of, read_metadata

MATH = Path(__file__).parents[3] / ".." / "shared" / "data" / "dev" / "math"

MATHML = {
    "<mfrac><mi>a</mi><mi>b</mi></mfrac>": r"\frac{a}{b}",
    "<msup><mi>x</mi><mn>2</mn></msup><mo>+</mo><msub><mi>y</mi><mi>i</mi></msub>": "x^2 + y_i",
    "<msup><mi>e</mi><mrow><mi>i</mi><mi>&#x3C0;</mi></mrow></msup>": r"e^{i \pi}",
    "<msubsup><mo>&int;</mo><mn>0</mn><mi>&infin;</mi></msubsup>": r"\int_0^{\infty}",
    "<munderover><mo>∑</mo><mrow><mi>k</mi><mo>=</mo><mn>1</mn></mrow><mi>n</mi></munderover>": r"\sum_{k = 1}^n",
    "<mroot><mi>x</mi><mn>3</mn></mroot>": r"\sqrt[3]{x}",
    "<mi>sin</mi><mi>&alpha;</mi><mtext>for all</mtext>": r"\sin \alpha \text{for all}",
    "<mover><mi>v</mi><mo>→</mo></mover>": r"\vec{v}",
    "<munder><mo>lim</mo><mi>n</mi></munder>": r"\lim_n",
    "<mfenced open='[' close=')'><mn>0</mn><mn>1</mn></mfenced>": r"\left[ 0,1 \right)",
    "<mtable><mtr><mtd><mn>1</mn></mtd><mtd><mn>2</mn></mtd></mtr><mtr><mtd><mn>3</mn></mtd><mtd><mn>4</mn></mtd></mtr></mtable>": (
        r"\begin{matrix} 1 & 2 \\ 3 & 4 \end{matrix}"
    ),
    "<mrow><mi>a</mi><mspace width='1em'/><mi>b": "a b",
    "</mrow></mrow>": "",
}


@pytest.mark.parametrize("source", MATHML)
def test_presentation_mathml_becomes_latex(source: str) -> None:
    assert latex_of(source) == MATHML[source]


WRITTEN = {
    "a <math alttext='{\\displaystyle x&lt;y}'><mi>x</mi></math> b": "a $x&lt;y$ b",
    "<m:math display='block'><m:mi>x</m:mi></m:math>": " <br>$$x$$<br> ",
    "<script type='math/tex'>a<b</script>": "$a&lt;b$",
    '<script type="math/tex; mode=display">a</script>': " <br>$$a$$<br> ",
    "<d-math>\\alpha</d-math>": "$\\alpha$",
    "<img class='latex' alt='$x^2$'>": "$x^2$",
    "<img class='latex' alt='a photograph'>": "<img class='latex' alt='a photograph'>",
    "<script>if (a < b) '<math>x</math>'</script>y": "<script>if (a < b) '<math>x</math>'</script>y",
    "an open <math> here": "an open <math> here",
}


@pytest.mark.parametrize("source", WRITTEN)
def test_each_source_of_a_formula_is_written_between_dollar_signs(source: str) -> None:
    assert write_formulas(source.encode()).decode() == WRITTEN[source]


def squeezed(text: str) -> str:
    return re.sub(r"[\s{}]+|\\displaystyle|\\,|\\!|\\;", "", text)


def test_formulas_of_real_pages_are_kept() -> None:
    if not MATH.exists():
        pytest.skip("../shared is absent")
    with gzip.open(MATH / "pages.jsonl.gz", "rt", encoding="utf-8") as lines:
        pages = [page for page in map(json.loads, lines) if page["n_formulas"]][::4]
    kept = total = 0
    for page in pages:
        text = squeezed(
            extract(gzip.decompress((MATH / page["html_path"]).read_bytes()), None, Main.model_validate({}), weights()).text
        )
        found = [squeezed(formula["tex"]) in text for formula in page["formulas"]]
        kept, total = kept + sum(found), total + len(found)
    assert total > 500
    assert kept / total > 0.97


@pytest.mark.parametrize(("text", "date"), [
    ("2024-03-05T10:00:00+01:00", "2024-03-05T10:00:00"), ("20240305", "2024-03-05"), ("2024/3/5", "2024-03-05"),
    ("March 5th", None), ("2024-13-05", None), ("", None), (None, None),
])  # fmt: skip
def test_dates_are_read_where_they_are_clear(text: str | None, date: str | None) -> None:
    assert date_of(text) == date


def test_metadata_takes_the_best_of_several_sources() -> None:
    page = (
        b"<html lang='de_AT'><head><meta property=og:title content='Other'><title> A &amp;\n B </title>"
        b"<meta name=date content='2020-01-01'><meta property='article:published_time' content='2021-02-03'>"
        b"<meta property='og:url' content='https://a.example/x'></head><body><time datetime='2019-01-01'>then</time></body></html>"
    )
    assert read_metadata(read_page(page)) == ("A & B", "https://a.example/x", "de-AT", "2021-02-03")
    assert (
        read_metadata(read_page(b'<p>x</p><script type="application/ld+json">{"datePublished": "2020-05-06"}</script>'))[3]
        == "2020-05-06"
    )
    assert read_metadata(read_page(b"<time datetime='2019-01-01'>then</time>"))[3] == "2019-01-01"
    assert read_metadata(read_page(b"<p>nothing</p>")) == (None, None, None, None)


def test_utf8_pages_are_taken_as_they_are() -> None:
    page = "<p>Grüße</p>".encode()
    assert as_utf8(page, "iso-8859-1") is page
    assert as_utf8(b"\xef\xbb\xbf" + page, None) == page
    assert (
        as_utf8("<html><p>Grüße, aber anders</p></html>".encode("utf-16"), None).decode()
        == "<html><p>Grüße, aber anders</p></html>"
    )
