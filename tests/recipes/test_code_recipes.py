"""The recipes about code and technical pages, run whole; a server on loopback plays the model with prepared answers."""

from __future__ import annotations

import http.server
import json
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


class Model(http.server.BaseHTTPRequestHandler):
    """Answers each request by the rule of the test that runs."""

    rule: Any = staticmethod(str)

    def do_POST(self) -> None:
        form = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        choice = {
            "message": {"role": "assistant", "content": Model.rule(form["messages"][-1]["content"])},
            "finish_reason": "stop",
            "index": 0,
        }
        body = json.dumps({"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def served() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Model)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


def recipe(name: str, url: str) -> str:
    """A packaged recipe with a served model in the place of the embedded one."""
    text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    return text + f'run: {{models: {{told: {{engine: openai, endpoints: ["{url}"], in_flight: 2}}}}}}\n'


def sources(engine: Any, names: tuple[str, ...], mark: str = "") -> str:
    path = engine.folder / "code.parquet"
    pq.write_table(
        pa.table({"content": [f'{SOURCE[n]}\n\nCASE = "{n}"\n' for n in names], "path": [f"{k}.py" for k in range(len(names))]}),
        path,
    )
    return str(path)


def test_code_is_curated_from_repositories_to_scores(engine: Any) -> None:
    import subprocess

    good = "\n\n".join(
        f'def step{n}(values, width):\n    """Sums over a window, number {n}."""\n    total = sum(values[:width]) + {n}\n'
        f"    for old, new in zip(values, values[width:]):\n        total = total * {n} + new - old\n    return total" for n in range(1, 5)
    )  # fmt: skip
    files = {
        "LICENSE": "SPDX-License-Identifier: MIT", "good.py": f'"""Windows."""\n\n{good}\n', "copy.py": f'"""Windows."""\n\n{good}\n',
        "sloppy.py": "from os import *\n" + good.replace("total =", "l = undefined_thing; total =").replace("values", "xs").replace("width", "w").replace("step", "move").replace('"""', "'''"), "broken.py": good + "\ndef broken(:\n",
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
    from pipelines.funnel import funnel

    reasons = {line.step: line.reasons for line in funnel(engine.last.layout)}
    assert reasons["licensed"] == {"license_unknown": len(files) - 2} or "license_not_permitted" in reasons["licensed"]
    assert reasons["general"] == {"too_few_chars": 1}
    assert reasons["syntax"] == {"syntax_error": 1}
    assert reasons["same"] == {"exact_duplicate": 1}
    kept = [row for row in engine.table("code") if row["drop_reason"] is None]
    assert 1 <= len(kept) <= 2, "one of the two copies, and the sloppy file where pylint forgives it"
    assert {row["lint_status"] for row in kept} == {"ok"}
    assert max(row["lint_score"] for row in kept) > 9


@pytest.mark.llm
def test_rewrites_count_only_when_they_are_verified(engine: Any, served: str) -> None:
    def rule(prompt: str) -> str:
        case = re.search(r'CASE = "(.+)"', prompt)[1]
        return f'Rating: 5\n```python\n{ANSWER[case]}\n\nCASE = "{case}"\n```' if "ten points" in prompt else "It is fine."

    Model.rule = staticmethod(rule)
    settings = {"paths": sources(engine, NAMES), "model": "told", "tokenizer": "smollm2-135m-instruct"}
    result = engine.run(recipe("code-rewrite", served), settings)
    assert result.code == 0, result.errors
    first = {name_of(row): row for row in engine.table("styled_checked")}
    assert {name: row["rejected"] for name, row in first.items()} == {
        "documented and typed": None, "another package": "new_imports", "cut off in the middle": "syntax_error", "by a counter": None,
        "off by one": first["off by one"]["rejected"],
    }  # fmt: skip
    assert first["off by one"]["rejected"] == "different_results" or first["off by one"]["checks_absent"]
    assert first["another package"]["text"].strip() == f'{SOURCE["another package"]}\n\nCASE = "another package"'.strip(), (
        "the source is back in its place"
    )
    assert first["by a counter"]["text"] == f'{ANSWER["by a counter"]}\n\nCASE = "by a counter"\n'
    second = engine.table("whole_checked")
    assert {row["rejected"] for row in second} == {"empty"}
    assert {row["text"] for row in second} == {row["text"] for row in first.values()}, (
        "a second step without an answer keeps what the first one made"
    )


def name_of(row: dict[str, Any]) -> str:
    return str(re.search(r'CASE = "(.+)"', row["text"])[1])


@pytest.mark.llm
@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
def test_translations_into_cpp_are_compiled_and_run(engine: Any, served: str) -> None:
    names = ("a good translation", "a translation with an undeclared name", "a translation that starts at one")
    by_case = {name: f"```cpp\n{ANSWER[name]}```" for name in names}
    Model.rule = staticmethod(lambda prompt: by_case[re.search(r'CASE = "(.+)"', prompt)[1]])
    settings = {"paths": sources(engine, names, "# "), "model": "told", "tokenizer": "smollm2-135m-instruct"}
    result = engine.run(recipe("python-to-cpp", served), settings)
    assert result.code == 0, result.errors
    from pipelines.funnel import funnel

    (reasons,) = (line.reasons for line in funnel(engine.last.layout) if line.step == "checked")
    assert reasons
    assert set(reasons) <= {"compiler_rejects", "different_results"}
    assert len(engine.table("cpp")) == len(engine.table("checked")) - sum(reasons.values())


def page(number: int, body: str) -> bytes:
    prose = " ".join(
        f"The mill by the river ground {n} sacks of rye before the frost came down from the hills."
        for n in range(number, number + 4)
    )
    html = f"<html><head><title>Mill {number}</title></head><body><article><h1>On mill {number}</h1><p>{prose}</p>{body}<p>{prose}</p></article></body></html>".encode()
    block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: %d\r\n\r\n" % len(html) + html
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: https://mill.example/{number}\r\nWARC-Date: 2026-01-01T00:00:00Z\r\n"
        f"WARC-Record-ID: <urn:uuid:00000000-0000-4000-8000-{number:012d}>\r\nContent-Type: application/http; msgtype=response\r\nContent-Length: {len(block)}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


CODE = "<pre><code>def turn(stones):\n    for stone in stones:\n        stone.turn()\n    return len(stones)\n</code></pre>"
MATH = "<p>The work is $$W = \\frac{1}{2} m v^2$$ for each turn of the stone.</p>"


@pytest.mark.llm
@pytest.mark.parametrize(("kind", "body"), [("code", CODE), ("math", MATH)])
def test_technical_pages_are_found_cleaned_and_held_against_the_page(engine: Any, served: str, kind: str, body: str) -> None:
    pages = page(1, body) + page(20, "") + page(40, body) + page(60, body)
    engine.write("crawl.warc", pages)

    def rule(prompt: str) -> str:
        text = prompt.split("Text:\n", 1)[1]
        if "mill 40" in text:
            return "NOTHING USEFUL"
        return text + ("\nIt weighed 987654 pounds." if "mill 60" in text else "")

    Model.rule = staticmethod(rule)
    settings = {
        "paths": str(engine.folder / "crawl.warc"),
        "model": "told",
        "tokenizer": "smollm2-135m-instruct",
        "partitions": "1",
    }
    if shutil.which("lynx"):
        settings["extract"] = "stages.extract.lynx.main_text"
    result = engine.run(recipe(f"cc-{kind}", served), settings)
    assert result.code == 0, result.errors
    from pipelines.funnel import funnel

    reasons = {line.step: line.reasons for line in funnel(engine.last.layout)}
    assert reasons["technical"] == {f"no_{'code' if kind == 'code' else 'formulas'}": 1}
    assert reasons["cleaned"] == {"nothing_useful": 1}
    assert reasons["grounded"] == {"invented_numbers": 1}
    (kept,) = engine.table("pages")
    assert "mill 1" in kept["text"]
    assert ("    for stone in stones:\n" if kind == "code" else "\\frac{1}{2} m v^2") in kept["text"]
