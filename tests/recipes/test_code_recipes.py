"""The recipes about code and technical pages, run whole; a server on loopback plays the model by rules."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

pytest.importorskip("aiohttp")

RECIPES = Path(__file__).parents[2] / "pipelines" / "recipes"
CASES = yaml.safe_load((Path(__file__).parents[1] / "stages" / "code" / "rewrites.yaml").read_text(encoding="utf-8"))["cases"]
NAMES = ("documented and typed", "another package", "cut off in the middle", "by a counter", "off by one")
SOURCE = {case["name"]: case["source"] for case in CASES}
ANSWER = {case["name"]: case["text"] for case in CASES}


def run(engine: Any, name: str, model: Any, vocabulary: str, **settings: str) -> dict[str, dict[str, int]]:
    """Run a packaged recipe with a served model in the place of the embedded one; why each step dropped what it dropped."""
    text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    text += f'run: {{models: {{told: {{engine: openai, endpoints: ["{model.url}"], in_flight: 2}}}}}}\n'
    result = engine.run(text, {"model": "told", "tokenizer": vocabulary, **settings})
    assert result.code == 0, result.errors
    return reasons_of(engine)


def reasons_of(engine: Any) -> dict[str, dict[str, int]]:
    from pipelines.funnel import funnel

    return {line.step: line.reasons for line in funnel(engine.last.layout) if line.reasons}


def asked(engine: Any, query: str) -> list[Any]:
    """Rows of a query, as `gristmill sql` asks."""
    from manifests.catalog import Catalog

    return list(Catalog(engine.store).run(query).fetchall())


def sources(engine: Any, names: tuple[str, ...], mark: str = "") -> str:
    path = engine.folder / "code.parquet"
    pq.write_table(
        pa.table(
            {"content": [f'{SOURCE[n]}\n\n{mark}CASE = "{n}"\n' for n in names], "path": [f"{k}.py" for k in range(len(names))]}
        ),
        path,
    )
    return str(path)


SLOPPY = """from os import *
import sys, json, re
def Load(F, L=[]):
  try:
    l = eval(open(F).read())
    for k in l: L.append(k); print(k)
  except: print(F)
  if L == None: return undefined_thing
  global Count
  Count = missing + len(L)
  return [x for x in L if not x == None]
class thing:
  def go(me, list, dict=dict()):
    for i in range(len(list)):
      if type(list[i]) == int: dict[i] = list[i]; me.total = other_name
    lambda q: q
    return dict
"""


def test_code_is_curated_from_repositories_to_scores(engine: Any) -> None:
    import subprocess

    good = "\n\n".join(
        f'def step{n}(values, width):\n    """Sums over a window, number {n}."""\n    total = sum(values[:width]) + {n}\n'
        f"    for old, new in zip(values, values[width:]):\n        total = total * {n} + new - old\n    return total" for n in range(1, 5)
    )  # fmt: skip
    files = {
        "LICENSE": "SPDX-License-Identifier: MIT", "good.py": f'"""Windows."""\n\n{good}\n', "copy.py": f'"""Windows."""\n\n{good}\n',
        "sloppy.py": SLOPPY,
        "tiring.py": "from os import *\n" + good.replace("total =", "l = undefined_thing; total =").replace("values", "xs").replace("width", "w").replace("step", "move").replace('"""', "'''"), "broken.py": good + "\ndef broken(:\n",
        "short.py": "x = 1\n", "gpl.py": "# SPDX-License-Identifier: GPL-3.0-only\n" + good,
    }  # fmt: skip
    root = engine.folder / "repos" / "mill"
    for name, text in files.items():
        engine.write(f"repos/mill/{name}", text)
    git = ["git", "-C", str(root), "-c", "user.name=m", "-c", "user.email=m@mill.example"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *words], check=True)
    result = engine.run(str(RECIPES / "code.yaml"), {"paths": str(engine.folder / "repos" / "*"), "partitions": "1"})
    assert result.code == 0, result.errors
    assert reasons_of(engine) == {
        "files": {"not_code": 1}, "licensed": {"license_not_permitted": 1}, "general": {"too_few_chars": 1},
        "repeats": {"top_4_gram": 1}, "syntax": {"syntax_error": 1}, "same": {"exact_duplicate": 1}, "code": {"lint_score_low": 1},
    }  # fmt: skip
    (kept,) = asked(engine, "select path, lint_status, lint_score from code.code")
    assert kept == ("copy.py", "ok", 10.0), "of two copies the first in order"
    (low,) = asked(engine, "select json_extract_string(deciding, 'lint_score') from dropped where step = 'code'")
    assert float(low[0]) < 7


def test_rewrites_count_only_when_they_are_verified(engine: Any, model: Any, vocabulary: str) -> None:
    def rule(prompt: str) -> str:
        case = case_of(prompt)
        return f'Rating: 5\n```python\n{ANSWER[case]}\n\nCASE = "{case}"\n```' if "ten points" in prompt else "It is fine."

    model.rule = rule
    assert run(engine, "code-rewrite", model, vocabulary, paths=sources(engine, NAMES)) == {}, "every row keeps a text"
    first = {case_of(row["text"]): row for row in engine.table("styled_checked")}
    assert {name: row["rejected"] for name, row in first.items()} == {
        "documented and typed": None, "another package": "new_imports", "cut off in the middle": "syntax_error", "by a counter": None,
        "off by one": None if first["off by one"]["checks_absent"] else "different_results",
    }  # fmt: skip
    assert first["another package"]["text"].strip() == f'{SOURCE["another package"]}\n\nCASE = "another package"'.strip(), (
        "the source is back in its place"
    )
    assert first["by a counter"]["text"] == f'{ANSWER["by a counter"]}\n\nCASE = "by a counter"\n'
    second = engine.table("whole_checked")
    assert {row["rejected"] for row in second} == {"empty"}
    assert {row["text"] for row in second} == {row["text"] for row in first.values()}, (
        "a second step without an answer keeps what the first one made"
    )
    rates = asked(engine, "select generator.prompt, generator.model, count(*) filter (rejected is null), count(*) "
                          "from code_rewrite.styled_checked group by all")  # fmt: skip
    assert rates == [("code/style", "told", sum(row["rejected"] is None for row in first.values()), 5)]


def case_of(text: str) -> str:
    return str(re.search(r'CASE = "(.+)"', text)[1])


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
def test_translations_into_cpp_are_compiled_and_run(engine: Any, model: Any, vocabulary: str) -> None:
    names = ("a good translation", "a translation with an undeclared name", "a translation that starts at one")
    model.rule = lambda prompt: f"```cpp\n{ANSWER[case_of(prompt)]}```"
    # The case stands in a comment: an assignment more and the source would be one of those without logic.
    reasons = run(engine, "python-to-cpp", model, vocabulary, paths=sources(engine, names, "# "))
    absent = {check for row in engine.table("checked") for check in row["checks_absent"]}
    different = {} if absent else {"different_results": 1}
    assert reasons == {"checked": {"compiler_rejects": 1, **different}}, absent
    kept = [text for (text,) in asked(engine, "select text from python_to_cpp.cpp")]
    assert len(kept) == len(names) - 1 - len(different)
    assert ANSWER[names[0]] in kept


@pytest.mark.llm
def test_the_embedded_model_is_asked_and_judged_like_any_other(engine: Any) -> None:
    settings = {"paths": sources(engine, NAMES[:1]), "max_output_tokens": "16"}
    result = engine.run(str(RECIPES / "code-rewrite.yaml"), settings)
    assert result.code == 0, result.errors
    rows = asked(engine, "select generator.model, answer_fault, rejected, text = source_text from code_rewrite.whole_checked")
    assert rows == [("smollm2-135m-instruct", "unfinished", "empty", True)], "sixteen tokens are no program: the source is back"


TURN = """def turn(stones, water):
    total = 0
    for stone in stones:
        if stone.loose and water > total:
            total += stone.weight * water
    return total


def grind(sacks, mill):
    flour = [mill.turn(sack) for sack in sacks]
    while mill.wet:
        mill.wait()
    return flour
"""
MILL = """#include <vector>

int turn(const std::vector<int>& stones, int water) {
    int total = 0;
    for (int stone : stones) {
        if (stone > 0 && water > total) {
            total += stone * water;
        }
    }
    return total;
}
"""
TASK = "Question: Write a function that adds one to a number.\nAnswer: Add it.\n```python\ndef f(a):\n    return a + 1\n```\nIt takes constant time."
TALK = "Student: What does it do?\n```python\nx = turn(stones, 2)\n```\nTeacher: What is x?\nStudent: A sum.\nTeacher: Of what?"


def test_texts_that_teach_have_a_kind_and_code_that_parses(engine: Any, model: Any, vocabulary: str) -> None:
    def rule(prompt: str) -> str:
        if "Teacher:" in prompt:
            return "Student: Hm.\nTeacher: Yes." if "CASE 2" in prompt else TALK
        if "Reviewer:" in prompt:
            return (
                "I'm sorry, I cannot." if "CASE 2" in prompt else TALK.replace("Student", "Author").replace("Teacher", "Reviewer")
            )
        return (
            TASK.replace("def f(a):", "def f(a:")
            if "CASE 3" in prompt
            else TASK
            if "CASE 2" in prompt
            else TASK.replace("adds one", "adds 1")
        )

    model.rule = rule
    texts = {
        "1.py": f"# CASE 1\n{TURN}",
        "2.py": f"# CASE 2\n{TURN}",
        "3.cpp": f"// CASE 3\n{MILL}",
        "4.cpp": f"// CASE 4\n{MILL}",
        "5.txt": "CASE 5",
    }
    path = engine.folder / "code.parquet"
    pq.write_table(pa.table({"content": list(texts.values()), "path": list(texts)}), path)
    reasons = run(engine, "code-teach", model, vocabulary, paths=str(path))
    assert reasons == {
        "known": {"language_not_kept": 1}, "question_answer": {"code_does_not_parse": 1}, "lesson": {"too_few_turns": 1},
        "review": {"refusal": 1}, "same": {"exact_duplicate": 3},
    }  # fmt: skip
    found = asked(engine, "select step, task, generator.prompt, count(*) from code_teach.texts group by all order by step")
    assert found == [
        ("lesson", "lesson", "code/lesson", 1), ("question_answer", "question_answer", "code/question_answer", 2),
        ("review", "review", "code/review", 1),
    ]  # fmt: skip
    ((text,),) = asked(engine, "select text from code_teach.texts where path = '2.py'")
    assert text.startswith("Write a function that adds one to a number.\n\nAdd it.\n```python\n")


def mills(number: int) -> str:
    return " ".join(
        f"The mill by the river ground {n} sacks of rye before the frost came down from the hills."
        for n in range(number, number + 4)
    )


JUNK = " ".join(
    f"Buy cheap shoes online today, best price number {n}, free shipping, click here for more offers!" for n in range(4)
)
ITEM = (
    "A miller grinds twelve sacks before noon and half as many after it, how many sacks does he grind in three days of a wet week?"
)


def page(number: int, body: str, prose: str) -> bytes:
    html = f"<html><head><title>Mill {number}</title></head><body><article><h1>On mill {number}</h1><p>{prose}</p>{body}<p>{prose}</p></article></body></html>".encode()
    block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: %d\r\n\r\n" % len(html) + html
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: https://mill.example/{number}\r\nWARC-Date: 2026-01-01T00:00:00Z\r\n"
        f"WARC-Record-ID: <urn:uuid:00000000-0000-4000-8000-{number:012d}>\r\nContent-Type: application/http; msgtype=response\r\nContent-Length: {len(block)}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


CODE = "<pre><code>def turn(stones):\n    for stone in stones:\n        stone.turn()\n    return len(stones)\n</code></pre>"
MATH = "<p>The work is $$W = \\frac{1}{2} m v^2$$ for each turn of the stone.</p>"


def classifier(folder: Path) -> str:
    """A fastText model that knows mills from shoes."""
    from classifiers.fasttext import Train, train_model

    texts = [mills(n) for n in range(0, 400, 4)] + [JUNK.replace("number", str(n)) for n in range(100)]
    (folder / "quality.bin").write_bytes(
        train_model(texts, np.arange(200) < 100, Train(dim=4, bucket=1000, epochs=25, word_ngrams=1))
    )
    return str(folder / "quality.bin")


@pytest.mark.parametrize(
    ("kind", "body", "extract"),
    [
        ("code", CODE, "stages.extract.main.main_text"), ("math", MATH, "stages.extract.main.main_text"),
        ("code", CODE, "stages.extract.lynx.main_text"),
    ],
)  # fmt: skip
def test_technical_pages_are_found_cleaned_and_held_against_the_page(
    engine: Any, model: Any, vocabulary: str, kind: str, body: str, extract: str
) -> None:
    if "lynx" in extract and shutil.which("lynx") is None:
        pytest.skip("lynx is not installed")
    pages = {1: mills(1), 20: mills(20), 40: mills(40), 60: mills(60), 80: JUNK, 90: mills(1), 300: f"{mills(300)} {ITEM}"}
    engine.write("crawl.warc", b"".join(page(n, "" if n == 20 else body, prose) for n, prose in pages.items()))
    engine.rows("items/grist.jsonl", [{"question": ITEM}])

    def rule(prompt: str) -> str:
        text = prompt.split("Text:\n", 1)[1]
        if "mill 40" in text:
            return "NOTHING USEFUL"
        return text + ("\nIt weighed 987654 pounds." if "mill 60" in text else "")

    model.rule = rule
    settings = {"paths": str(engine.folder / "crawl.warc"), "extract": extract, "partitions": "1", "benchmarks": str(engine.folder / "items"),
                "scorer": "classifiers.fasttext.score", "classifier": classifier(engine.folder), "min_quality": "0.5"}  # fmt: skip
    assert run(engine, f"cc-{kind}", model, vocabulary, **settings) == {
        "technical": {f"no_{'code' if kind == 'code' else 'formulas'}": 1}, "cleaned": {"nothing_useful": 1},
        "grounded": {"invented_numbers": 1}, "good": {"low_quality": 1}, "twins": {"near_duplicate": 1}, "clean": {"contaminated": 1},
    }  # fmt: skip
    ((text, url),) = asked(engine, f"select text, url from cc_{kind}.pages")
    assert url in ("https://mill.example/1", "https://mill.example/90")
    assert ("    for stone in stones:\n" if kind == "code" else "\\frac{1}{2} m v^2") in text
