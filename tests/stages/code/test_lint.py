"""The warm pylint says what one process a file says, survives what it lints, and stays small."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from stages.code import lint, linter
from stages.contract import TEXT

CLEAN = '"""Sums."""\n\n\ndef total(values):\n    """The sum."""\n    return sum(values)\n\n\nprint(total([1, 2]))\n'
SLOPPY = "import os, sys\nfrom collections import *\ndef f(a,b):\n  unused = 1\n  if a == None: return undefined_name\n  try:\n    return b\n  except:\n    pass\n"
RUNS = """
import sys, sysconfig
sys.argv = ["pylint"]
import isort, isort.api, isort.place
from pylint.lint import PyLinter, Run
load, library = PyLinter.load_default_plugins, sysconfig.get_path("stdlib")
def load_and_leave(self):
    load(self)
    sys.path[:] = [p for p in sys.path if p.endswith(".zip") or (p.startswith(library) and "-packages" not in p)]
PyLinter.load_default_plugins = load_and_leave
Run(["--rcfile=/dev/null", "--output-format=json2", "--disable=" + DISABLED, "snippet.py"])
"""
"""One process a file: pylint's own command with the same messages off and the same libraries in reach."""


def one_process(text: str, folder: Path) -> tuple[dict[str, int], float]:
    (folder / "snippet.py").write_text(text)
    code = f"DISABLED = {','.join(linter.SWALLOW_CODE)!r}\n{RUNS}"
    environment = {"PATH": os.environ["PATH"], "PYLINTHOME": str(folder / "home")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=folder, capture_output=True, text=True, check=False, env=environment
    )
    found = json.loads(done.stdout)
    counts: dict[str, int] = {}
    for message in found["messages"]:
        counts[message["messageId"]] = counts.get(message["messageId"], 0) + 1
    return dict(sorted(counts.items())), found["statistics"]["score"]


@pytest.fixture(scope="module")
def warm() -> Iterator[linter.Linter]:
    made = linter.Linter(linter.Pylint())
    yield made
    made.close()


SOURCES = {
    "clean": CLEAN, "sloppy": SLOPPY, "broken": "def f(:\n", "empty": "", "class": "class A:\n    def m(self, x=[]):\n        return self.gone + x\n",
    "imports": "import snippet\nimport json\nimport nowhere_at_all\nfrom os import path\nprint(json.dump, path.joined)\n",
}  # fmt: skip


@pytest.mark.parametrize("name", SOURCES)
def test_the_warm_linter_says_what_one_process_a_file_says(warm: linter.Linter, tmp_path: Path, name: str) -> None:
    warm.lint("class snippet:\n    other = 1\n")
    counts, note = one_process(SOURCES[name], tmp_path)
    found = warm.lint(SOURCES[name])
    assert found.messages == counts
    assert found.score == (pytest.approx(note, abs=0.005) if found.statements else None)


def test_real_files_get_the_same_messages_whatever_came_before(warm: linter.Linter, tmp_path: Path, shared: Path) -> None:
    import orjson
    import zstandard

    with zstandard.open(shared / "code.jsonl.zst", "rb") as file:
        files = [orjson.loads(line) for line in file.read().splitlines()]
    chosen = [f["content"] for f in files if f["language"] == "Python" and f["bytes"] < 6_000][7::150]
    once = [warm.lint(text).messages for text in chosen]
    assert [warm.lint(text).messages for text in reversed(chosen)] == once[::-1]
    assert [one_process(text, tmp_path)[0] for text in chosen[:2]] == once[:2]
    assert sum(map(len, once)) > 5


def test_scores_are_penalised_for_comments(warm: linter.Linter) -> None:
    commented = CLEAN.replace("    return", "    # one\n    # two\n    # three\n    return")
    assert linter.comment_share(CLEAN) == 0
    share = linter.comment_share(commented)
    assert 0.05 < share < 0.2
    assert linter.comment_share("# only\n") == pytest.approx(1 / 3)
    assert linter.comment_share("x = '''\n") == 0, "SwallowCode: nought where the tokenizer fails"
    assert linter.penalised(warm.lint(commented), commented) == pytest.approx(10 * (1 - share))


def scored(*texts: str, model: linter.Linter, **params: Any) -> list[dict[str, Any]]:
    table = pa.table({"text": pa.array(texts, TEXT), "code_language": ["Python"] * len(texts)})
    return lint.score(table, lint.Score(**params), model=model).to_pylist()


def test_the_stage_writes_scores_and_counts(warm: linter.Linter) -> None:
    good, bad, broken, empty = scored(CLEAN, SLOPPY, "def f(:\n", "", model=warm)
    assert (good["lint_score"], good["drop_reason"], good["lint_status"]) == (10.0, None, "ok")
    assert bad["drop_reason"] == "lint_score_low"
    assert bad["lint_errors"] == sum(m["count"] for m in bad["lint_messages"] if m["message"][0] == "E") > 0
    assert {"E0602", "W0702", "C0410"} <= {m["message"] for m in bad["lint_messages"]}
    assert broken["lint_messages"] == [{"message": "E0001", "count": 1}]
    assert empty["drop_reason"] == "no_statements"
    assert scored(SLOPPY, model=warm, min_score=None)[0]["drop_reason"] is None
    other = pa.table({"text": pa.array(["int a;"], TEXT), "code_language": ["C"]})
    assert lint.score(other, lint.Score(), model=warm).to_pylist()[0] == dict.fromkeys(lint.WRITES)


LOOP = (
    "x = 1\n"
    "def f("
    + ", ".join(f"a{n}" for n in range(400))
    + "):\n"
    + "".join(f"    if a{n % 400}:\n        x = a{n % 400}\n" for n in range(8_000))
)


def test_a_file_that_takes_too_long_or_too_much_costs_itself_only(warm: linter.Linter) -> None:
    model = linter.Linter(linter.Pylint(seconds=2))
    slow, clean = scored(LOOP, CLEAN, model=model)
    assert [slow[name] for name in ("lint_status", "lint_score", "drop_reason")] == ["timeout", None, "lint_timeout"]
    assert (clean["lint_score"], clean["drop_reason"]) == (10.0, None)
    assert model.starts == 2
    model.close()
    small = linter.Linter(linter.Pylint(seconds=60, memory_mb=256))
    assert small.lint("x = [\n" + "    [1, 2, 3, 4, 5, 6, 7, 8],\n" * 60_000 + "]\n").status in ("crash", "fatal")
    assert small.lint(CLEAN).score == 10
    small.close()


def test_deep_nesting_is_survived(warm: linter.Linter) -> None:
    deep = "x = " + "(" * 150 + "1" + ")" * 150 + "\n" + "y = " + "+".join(["x"] * 3000) + "\n"
    assert warm.lint(deep).status in ("ok", "fatal", "crash")
    assert warm.lint(CLEAN).score == 10


def test_a_linter_that_has_grown_is_started_anew() -> None:
    model = linter.Linter(linter.Pylint(recycle_mb=60))
    heavy = "import email, json, logging, typing\nprint(" + ", ".join(
        f"{name}.__all__" for name in ("email", "json", "logging", "typing")
    ) + ")\n"  # fmt: skip
    first = [model.lint(heavy).messages for _ in range(3)]
    assert model.starts > 1
    assert first[0] == first[1] == first[2]
    model.close()


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model = linter.Linter(linter.Pylint())
    model.lint(CLEAN)
    process = model._process
    assert process is not None
    assert os.listdir(tmp_path)
    del model
    assert process.poll() is not None
    assert os.listdir(tmp_path) == []
