"""Verify what a language model made of a source: nothing that was rewritten counts before it has passed here.

The recipe of Nemotron-Pretraining-Code-v2 checks syntax and the pylint score of rewritten Python and says nothing of failures
(Nemotron 3 Nano, section on code). Here every rejected rewrite names its reason, and by default the source stays in its place.
"""

from __future__ import annotations

import ast
import functools
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
from pydantic import Field

from stages import syntax
from stages.code import sandbox, trial
from stages.code.linter import Linted, Linter, Pylint, penalised
from stages.code.structure import python_tree
from stages.contract import TEXT, map_stage

FENCE = re.compile(r"^\s*(?:```|~~~)", re.MULTILINE)
ELISION = re.compile(
    r"(?:#|//|/\*)\s*(?:\.\.\.|…|\[\.\.\.\])|(?:#|//|/\*).{0,40}\b(?:"
    r"rest of (?:the )?(?:code|file|function|class|program|implementation)|omitted for brevity|"
    r"implementation (?:omitted|goes here)|unchanged|as before|"
    r"(?:remaining|existing|other|previous|same|original) (?:code|functions?|methods?|implementation|logic)\b.{0,30}"
    r"(?:here|remains?|above|omitted|goes))",
    re.IGNORECASE,
)
UNDEFINED = ("E0602", "E0611", "E0603", "E1101")
"""pylint: undefined-variable, no-name-in-module, undefined-all-variable, no-member."""
COMPILING = sandbox.USUAL.model_copy(update={"seconds": 60.0, "cpu_seconds": 60, "memory_mb": 2048, "room_mb": 128, "file_mb": 64})
WRITES = {
    "text": TEXT, "accepted": pa.bool_(), "rejected": pa.string(), "rejected_because": pa.string(), "score_source": pa.float32(),
    "score_rewrite": pa.float32(), "compared": pa.int32(), "checks_absent": pa.list_(pa.string()), "drop_reason": pa.string(),
}  # fmt: skip


class Verify(Pylint):
    """Which checks a rewrite must pass."""

    language: Literal["Python", "C++"] = Field("Python", description="Language of the rewrite; the source is Python.")
    rejected: Literal["keep_source", "drop"] = Field(
        "keep_source", description="A rejected row gets its source back, or is dropped."
    )
    not_below_source: bool = Field(True, description="The comment-penalised pylint score must not be below the source's.")
    min_score: float | None = Field(None, description="Lowest comment-penalised pylint score; SwallowCode's filter is 7.0.")
    min_share: float = Field(
        0.4, description="Smallest length of the rewrite's code, comments left out, as a share of the source's."
    )
    packages: tuple[str, ...] = Field(
        (), description="Packages that a rewrite may import beside the standard library and the source's own."
    )
    execute: Literal["never", "when_possible"] = Field(
        "never", description="Run both versions on the same inputs in the locked cell."
    )
    limits: sandbox.Limits = Field(sandbox.USUAL, description="What a program may use when it is run.")


class Found(NamedTuple):
    """The outcome for one row."""

    reason: str | None
    because: str = ""
    score_source: float | None = None
    score_rewrite: float | None = None
    compared: int = 0
    absent: tuple[str, ...] = ()


@map_stage(
    version=2,
    reads={"text": TEXT, "source_text": TEXT},
    writes=WRITES,
    model=Linter,
    libraries=("pylint", "astroid", "tree-sitter"),
    seconds_per_row=400.0,
)
def rewrites(batch: pa.Table, params: Verify, model: Linter) -> pa.Table:
    """Judge the rewrite in `text` by the source in `source_text`; a rejected one is replaced by its source, or dropped.

    `rejected` is the first reason against it, in this order: empty, prose_around_code, syntax_error, copy, truncated,
    new_imports, undefined_names, lint_failed, lint_below_source, lint_below_minimum, compiler_rejects, different_results,
    execution_failed, execution_slower. `rejected_because` is for people, `compared` counts outcomes that were equal (without
    those of a function that does the same for every input), `checks_absent` names checks that could not be made here (no g++,
    a guard of the cell, nothing to compare), never silently. `accepted` rows keep the rewrite.
    """
    pairs = zip(batch["text"].to_pylist(), batch["source_text"].to_pylist(), strict=True)
    found = [judge(text or "", source or "", params, model) for text, source in pairs]
    accepted = [one.reason is None for one in found]
    back = params.rejected == "keep_source"
    kept = zip(batch["text"].to_pylist(), batch["source_text"].to_pylist(), accepted, strict=True)
    columns: dict[str, Any] = {
        "text": [text if good or not back else source for text, source, good in kept], "accepted": accepted,
        "rejected": [one.reason for one in found], "rejected_because": [one.because or None for one in found],
        "score_source": [one.score_source for one in found], "score_rewrite": [one.score_rewrite for one in found],
        "compared": [one.compared for one in found], "checks_absent": [list(one.absent) for one in found],
        "drop_reason": [None if back else one.reason for one in found],
    }  # fmt: skip
    return pa.table({name: pa.array(columns[name], kind) for name, kind in WRITES.items()})


def judge(text: str, source: str, params: Verify, linter: Linter) -> Found:
    """All checks on one rewrite, cheap ones first."""
    reason, because = form(text, source, params)
    if reason is not None:
        return Found(reason, because)
    return _python(text, source, params, linter) if params.language == "Python" else _cpp(text, source, params)


def form(text: str, source: str, params: Verify) -> tuple[str | None, str]:
    """What can be seen without running anything: reason and detail."""
    if not text.strip():
        return "empty", ""
    if FENCE.search(text) and not FENCE.search(source):
        return "prose_around_code", "a code fence stands in the code"
    sound = python_tree(text) is not None if params.language == "Python" else _damage(text) == 0
    if not sound:
        return ("prose_around_code", "prose stands around the code") if _holds_code(text, params.language) else ("syntax_error", "")
    if text.split() == source.split():
        return "copy", ""
    return ("truncated", cut) if (cut := truncation(text, source, params)) else (None, "")


def _damage(text: str) -> float:
    parsed = syntax.parse("C++", text)
    return parsed.damage if parsed is not None else 0.0


def _holds_code(text: str, language: str) -> bool:
    """Whether what does not parse as a whole does without its first or last paragraph: words before or after the code."""
    parts = [part for part in re.split(r"\n\s*\n", text.strip()) if part.strip()]
    first, last = bool(parts) and _is_prose(parts[0]), bool(parts) and _is_prose(parts[-1])
    inner = "\n\n".join(parts[first : len(parts) - last])
    if not (first or last) or not inner.strip():
        return False
    return _damage(inner) == 0 if language == "C++" else python_tree(inner) is not None


def _is_prose(part: str) -> bool:
    """Whether a paragraph is words and not code: nearly all of it plain words, with a sentence's marks at most."""
    words = part.split()
    plain = sum(re.fullmatch(r"[\"'(]?[A-Za-z][A-Za-z'’-]*[\"').,:;!?]*", word) is not None for word in words)
    return len(words) >= 4 and plain >= 0.8 * len(words)


def truncation(text: str, source: str, params: Verify) -> str:
    """What is missing of the source, "" where nothing is: words that stand for code, half of the definitions, most of the code."""
    words = ELISION.search(text)
    if words and not ELISION.search(source):
        return f"{words[0]!r} stands for code"
    before, after = _bare(source, "Python"), _bare(text, params.language)
    if after < params.min_share * before:
        return f"{after} characters of code for {before}"
    old, new = _definitions(source), _definitions(text) if params.language == "Python" else None
    if new is not None and len(old) >= 2 and len(new) < 0.5 * len(old):
        return f"{len(new)} definitions for {len(old)}"
    hollow = _hollow(text) - _hollow(source) if params.language == "Python" else set()
    return f"{', '.join(sorted(hollow))} without a body" if hollow else ""


def _bare(text: str, language: str) -> int:
    """Characters of code that are neither comment, docstring nor white space."""
    parsed = syntax.parse(language, text)
    assert parsed is not None
    kept = bytearray(parsed.source)
    for start, stop in reversed(parsed.comments):
        del kept[start:stop]
    return len(b"".join(bytes(kept).split()))


def _definitions(text: str) -> set[str]:
    tree = python_tree(text)
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)} if tree else set()


def _hollow(text: str) -> set[str]:
    """Functions whose body is `pass` or `...`, abstract ones and stubs aside."""
    tree = python_tree(text)
    found = set()
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.FunctionDef) and not node.decorator_list:
            body = [
                one
                for one in node.body
                if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant) and one.value.value is not ...)
            ]
            if all(isinstance(one, ast.Pass | ast.Expr) for one in body) and not any(
                isinstance(n, ast.Call | ast.Yield) for n in ast.walk(node)
            ):
                found.add(node.name)
    return found


def imported(text: str) -> set[str]:
    """Top-level packages that a source imports; relative imports as ".name"."""
    found = set()
    tree = python_tree(text)
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or "").split(".")[0])
    return found


def _python(text: str, source: str, params: Verify, linter: Linter) -> Found:
    new = imported(text) - imported(source) - sys.stdlib_module_names - set(params.packages)
    if new:
        return Found("new_imports", ", ".join(sorted(new)))
    before, after = linter.lint(source), linter.lint(text)
    old, score = penalised(before, source), penalised(after, text)
    reason, because = _lint(before, after, old, score, params)
    if reason or params.execute == "never":
        return Found(reason, because, old, score)
    return _executed(trial.compare(source, text, params.limits), old, score)


def _lint(before: Linted, after: Linted, old: float | None, score: float | None, p: Verify) -> tuple[str | None, str]:
    undefined = [
        f"{name} {after.messages[name]}" for name in UNDEFINED if after.messages.get(name, 0) > before.messages.get(name, 0)
    ]
    if undefined:
        return "undefined_names", ", ".join(undefined)
    if score is None:
        return "lint_failed", after.status
    if p.not_below_source and old is not None and score < old - 1e-9:
        return "lint_below_source", f"{score:.2f} after {old:.2f}"
    low = p.min_score is not None and score < p.min_score
    return ("lint_below_minimum", f"{score:.2f}") if low else (None, "")


def _executed(done: trial.Trial, old: float | None = None, score: float | None = None, absent: tuple[str, ...] = ()) -> Found:
    reasons = {"different": "different_results", "failed": "execution_failed", "slower": "execution_slower"}
    if done.verdict in reasons:
        return Found(reasons[done.verdict], done.detail, old, score, 0, absent)
    if done.verdict == "equal":
        return Found(None, "", old, score, done.compared, absent)
    said = "nothing to compare" if done.verdict == "nothing" else "a guard of the cell does not hold"
    return Found(None, "", old, score, 0, (*absent, f"execution: {said} ({done.detail})"))


@functools.cache
def compiler() -> str | None:
    """The path of g++, looked for once a process."""
    return shutil.which("g++")


def _cpp(text: str, source: str, params: Verify) -> Found:
    program = compiler()
    if program is None:
        return Found(None, absent=("g++: not on the PATH",))
    fault, absent = _compiled(program, text)
    if fault:
        return Found("compiler_rejects", fault, absent=absent)
    if params.execute == "never":
        return Found(None, absent=absent)
    return _executed(trial.compare_with_cpp(source, text, params.limits), absent=absent)


def _compiled(program: str, text: str) -> tuple[str, tuple[str, ...]]:
    """The compiler's first error, "" for none, and what was absent. It runs in the cell: a source can include any file."""
    words = ["-fsyntax-only", "-std=c++20", "-w", "-ftemplate-depth=200", "-fmax-errors=3", "main.cpp"]
    ran = sandbox.run([program, *words], {"main.cpp": text}, COMPILING)
    if ran.status == "absent":
        with tempfile.TemporaryDirectory(prefix="gristmill-cpp-") as folder:
            (Path(folder) / "main.cpp").write_text(text, encoding="utf-8", errors="replace")
            done = subprocess.run([program, *words], capture_output=True, timeout=120, check=False, cwd=folder)
        said = done.stderr.decode("utf-8", "replace")
        code: int | None = done.returncode
        absent: tuple[str, ...] = (f"cell: g++ ran outside of it ({', '.join(ran.absent)})",)
    else:
        said, code, absent = ran.stderr, ran.code, ()
    first = next((line for line in said.splitlines() if "error" in line), said or f"g++ ended with {code}")
    return (first[:300] if code != 0 else ""), absent
