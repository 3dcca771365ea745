"""Pages with code and formulas are found; what is cleaned up is held against the page; indentation survives extraction."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from stages.code import grounded, pages
from stages.contract import BYTES, TEXT
from stages.extract import lynx, main

FOUND = {
    "<pre>def f(x):\n    return x\n</pre>": (1, 0, 0),
    '<pre class="language-none">free text</pre>': (1, 0, 0),
    "<pre>The tide rises, the tide falls,\nThe twilight darkens.</pre>": (0, 0, 0),
    "<p>" + "<code>a</code> " * 7 + "</p>": (0, 7, 0),
    "<p>$$E = mc^2$$ and \\(a^2 + b^2\\)</p>": (0, 0, 2),
    "<p>It costs $5 or $7, hat_size_3 or $9.</p>": (0, 0, 0),
    "<p>let $x^2 + y_1$ be small</p>": (0, 0, 1),
    "<script>var a = '\\(x^2\\)'; $('#a_b').c('$$x^2$$')</script><p>No math.</p>": (0, 0, 0),
    '<script src="MathJax.js"></script><p>Nothing.</p>': (0, 0, 0),
    '<script type="math/tex">x^2</script>': (0, 0, 1),
    "<math><mi>x</mi></math><m:math display='block'>\n<m:mi>y</m:mi></m:math>": (0, 0, 2),
    '<img class="latex" src="a.png" alt="\\frac{a}{b}"><img class="photo" alt="a=b">': (0, 0, 1),
    "<code>$a_1 + $b_2</code>": (0, 1, 0),
    '<input pattern="\\([0-9]=\\)"><p>Text.</p>': (0, 0, 0),
    "<p>Nothing at all.</p>": (0, 0, 0),
}


@pytest.mark.parametrize("html", FOUND)
def test_each_form_is_told(html: str) -> None:
    assert pages.count(html.encode()) == FOUND[html]


def test_pages_without_what_is_asked_for_get_a_reason() -> None:
    rows = pa.table({"html": pa.array([b"<pre>int a = 1;</pre>", b"<p>$$x^2$$</p>", b"<p>text</p>", None], BYTES)})
    for keep, expected in {
        "code": [None, "no_code", "no_code", "no_code"], "formulas": ["no_formulas", None, "no_formulas", "no_formulas"],
        "either": [None, None, "nothing_technical", "nothing_technical"],
    }.items():  # fmt: skip
        assert pages.technical(rows, pages.Technical(keep=keep))["drop_reason"].to_pylist() == expected


def math_pages(shared: Path) -> list[dict[str, Any]]:
    with gzip.open(shared / "math" / "pages.jsonl.gz", "rt", encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines]
    return [page | {"html": gzip.decompress((shared / "math" / page["html_path"]).read_bytes())} for page in found]


def test_real_pages_with_formulas_are_told_from_lookalikes(shared: Path) -> None:
    found = math_pages(shared)
    told = {page["id"]: pages.count(page["html"])[2] > 0 for page in found}
    holding = [page["id"] for page in found if page["n_formulas"] > 0 or page["mathml_elements"] > 0]
    assert sum(told[one] for one in holding) >= 0.97 * len(holding)
    lookalikes = [page["id"] for page in found if not page["has_math"]]
    assert sum(told[one] for one in lookalikes) <= 1


CODE_PAGE = """<html><head><title>Sums</title></head><body><nav><a href="/">Home</a> <a href="/a">About</a></nav><article><h1>Summing numbers</h1>
<p>The following function adds all numbers of a list, one after the other, and gives back the sum of them all.</p>
<pre><code class="language-python">def total(values):
    result = 0
    for value in values:
        result += value

    return result
</code></pre><p>Its cost grows with the number of values, since each of them is looked at exactly once in the loop.</p>
</article><footer>Copyright</footer></body></html>"""
LINES = ["def total(values):", "    result = 0", "    for value in values:", "        result += value", "    return result"]


def test_indentation_survives_both_extractions() -> None:
    rows = pa.table({"html": pa.array([CODE_PAGE.encode()], BYTES), "charset": pa.array([None], pa.string())})
    ours = main.main_text(rows, main.Main())["text"][0].as_py()
    assert "\n".join(LINES[:4]) in ours
    assert "```" in ours
    if shutil.which("lynx"):
        dumped = lynx.main_text(rows, lynx.Lynx(), model=lynx.main_text.model(lynx.Lynx()))["text"][0].as_py()
        indented = r"^( *)def total\(values\):\n\1    result = 0\n\1    for value in values:\n\1        result \+= value"
        assert re.search(indented, dumped, re.MULTILINE), dumped


def judged(text: str, source: str, **params: Any) -> str | None:
    rows = pa.table({"text": pa.array([text], TEXT), "source_text": pa.array([source], TEXT)})
    return grounded.answers(rows, grounded.Grounded(**params))["rejected"][0].as_py()


PAGE = "Menu\nSums of 12 numbers\n\nAdd all 12 of them:\n\n   def total(values):\n       return sum(values) + 3\n\nThe mean is a/b with b = 4.\nShare this page\n"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("# Sums of 12 numbers\n\nAdd all 12 of them:\n\n```python\ndef total(values):\n    return sum(values) + 3\n```\n\nThe mean is $\\frac{a}{b}$ with $b = 4$.", None),
        ("Sums of 12 numbers\n\n```\ndef total(values):\n    return sum(values) + 4\n```", "invented_code"),
        ("Sums of 12 numbers\n\n```\ndef total(values):\n  return sum(values) + 3\n```", "invented_code"),
        ("Sums of 13 numbers. Add all of them.", "invented_numbers"),
        ("Addition belongs to the oldest operations that people have ever written down on clay.", "invented_words"),
        ("12", "too_short"),
    ],
)  # fmt: skip
def test_what_was_cleaned_up_is_held_against_the_page(answer: str, reason: str | None) -> None:
    assert judged(answer, PAGE) == reason


def test_a_rejected_answer_may_leave_the_page_in_place() -> None:
    rows = pa.table(
        {"text": pa.array(["Sums of 13 numbers", "Sums of 12 numbers"], TEXT), "source_text": pa.array([PAGE] * 2, TEXT)}
    )
    kept = grounded.answers(rows, grounded.Grounded(rejected="keep_source")).to_pylist()
    assert [(row["text"], row["rejected"], row["drop_reason"]) for row in kept] == [
        (PAGE, "invented_numbers", None),
        ("Sums of 12 numbers", None, None),
    ]
    assert kept[1]["code_kept"] is None
    assert grounded.answers(rows.slice(0, 0), grounded.Grounded()).num_rows == 0
