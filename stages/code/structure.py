"""What the syntax of a source file says about it: whether it parses, and rules for single languages.

Source: Huang et al. 2024, OpenCoder (arXiv 2411.04905), RefineCode's rules for Python, C and C++, HTML and Go, and the rule on
comments for all languages. Python is parsed by `ast` of the Python that runs (3.11 or newer: Python 2 does not parse), every
other language by tree-sitter, which always gives a tree: the share of bytes that fit no rule decides.
"""

from __future__ import annotations

import ast
import hashlib
import re
import warnings
from typing import Any, NamedTuple

import pyarrow as pa
from pydantic import Field

from stages import languages, syntax
from stages.contract import TEXT, Params, map_stage

C_FAMILY = ("C", "C++")
_MAIN = '(function_definition declarator: (function_declarator declarator: (identifier) @main (#eq? @main "main")))'
_DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*\n?", re.MULTILINE)
"""A preprocessor line with its continuations."""
_TAG = re.compile(r"<(script|style)\b.*?</\1\s*>|<[^>]*>", re.IGNORECASE | re.DOTALL)
_UNIQUE = re.compile(r"\w+")
_LITERAL = (
    ast.Constant,
    ast.List,
    ast.Tuple,
    ast.Dict,
    ast.Set,
    ast.Name,
    ast.Attribute,
    ast.UnaryOp,
    ast.USub,
    ast.Load,
    ast.Store,
)


class Syntax(Params):
    """Parameters of `by_syntax`; null switches a rule off. Limits are OpenCoder's where the paper has one."""

    max_damage: float | None = Field(
        0.1,
        description="Largest share of bytes outside the grammar, but for Python: C's macros make honest files miss a little.",
    )
    require_python: bool = Field(True, description="Drop Python that `ast` does not parse.")
    max_comments: float | None = Field(0.8, description="Largest share of bytes in comments and docstrings.")
    max_def_lines: float | None = Field(0.2, description="Python: most function definitions per line.")
    require_variables: bool = Field(True, description="Python: drop files that never assign.")
    max_pass_lines: float | None = Field(0.05, description="Python: most `pass` per line.")
    max_import_lines: float | None = Field(0.3, description="Python: most imports per line.")
    max_trivial_functions: float | None = Field(0.1, description="Python: most functions of one plain statement per line.")
    max_no_logic: float | None = Field(
        0.5, description="Python: largest share of statements that only import, define literals or print text."
    )
    max_prints: float | None = Field(0.4, description="Python: most prints per line.")
    max_mains: int | None = Field(1, description="C, C++: most functions called main.")
    max_preprocessor: float | None = Field(0.8, description="C, C++: largest share of bytes in preprocessor lines.")
    min_visible: float | None = Field(0.2, description="HTML: smallest share of characters that a reader sees.")
    min_visible_chars: int | None = Field(100, description="HTML: fewest characters that a reader sees.")
    min_unique_words: float | None = Field(0.4, description="Data and text files: smallest share of words that are unique.")
    max_data_chars: int | None = Field(5000, description="Data and text files: most characters.")
    sampled: float = Field(
        0.8, ge=0, le=1, description="Share dropped of what falls under no_logic and go_test, drawn by the text's hash."
    )
    max_parsed: int = Field(
        3_000_000, ge=1, description="Bytes of the largest text that is parsed; larger ones are too_large_to_parse."
    )


@map_stage(
    version=1, reads={"text": TEXT, "code_language": pa.string(), "path": pa.string()}, optional=("path",),
    writes={"syntax_damage": pa.float32(), "comment_share": pa.float32(), "drop_reason": pa.string()}, libraries=("tree-sitter",),
)  # fmt: skip
def by_syntax(batch: pa.Table, params: Syntax) -> pa.Table:
    """Judge `text` by its syntax; `syntax_damage` and `comment_share` are shares of bytes, null without a grammar.

    Reasons: too_large_to_parse, syntax_error, mostly_comments; Python: too_many_defs, no_variables, too_many_pass,
    too_many_imports, trivial_functions, no_logic, too_many_prints; C and C++: several_mains, mostly_preprocessor; HTML:
    little_visible_text; Go: go_test; languages that are data or prose: data_file. A language without grammar is judged by
    none of these.
    """
    paths = batch["path"].to_pylist() if "path" in batch.column_names else [None] * batch.num_rows
    rows = zip(batch["text"].to_pylist(), batch["code_language"].to_pylist(), paths, strict=True)
    judged = [judge(text or "", language or "", path or "", params) for text, language, path in rows]
    return pa.table(
        {
            "syntax_damage": pa.array([damage for damage, _, _ in judged], pa.float32()),
            "comment_share": pa.array([share for _, share, _ in judged], pa.float32()),
            "drop_reason": pa.array([reason for _, _, reason in judged], pa.string()),
        }
    )


def judge(text: str, language: str, path: str, params: Syntax) -> tuple[float | None, float | None, str | None]:
    """Damage, share of comments, and the first reason against a file."""
    if len(text) > params.max_parsed:
        return None, None, "too_large_to_parse"
    if languages.kind_of(language) in ("data", "prose"):
        return None, None, _data(text, params)
    parsed = syntax.parse(language, text)
    if parsed is None:
        return None, None, None
    size = max(1, len(parsed.source))
    comments = syntax.covered(parsed.comments) / size
    module = python_tree(text) if language == "Python" else None
    reason = _broken(language, module, parsed, params)
    if reason is None and params.max_comments is not None and comments > params.max_comments:
        reason = "mostly_comments"
    return parsed.damage, comments, reason or _by_language(Source(text, language, path, parsed, module), params)


def _data(text: str, params: Syntax) -> str | None:
    words = _UNIQUE.findall(text)
    long = params.max_data_chars is not None and len(text) > params.max_data_chars
    dull = params.min_unique_words is not None and len(set(words)) < params.min_unique_words * len(words)
    return "data_file" if long or dull else None


def _broken(language: str, module: ast.Module | None, parsed: syntax.Parsed, params: Syntax) -> str | None:
    if language == "Python":
        return "syntax_error" if params.require_python and module is None else None
    return "syntax_error" if params.max_damage is not None and parsed.damage > params.max_damage else None


class Source(NamedTuple):
    """A file that parses, and what is known of it."""

    text: str
    language: str
    path: str
    parsed: syntax.Parsed
    module: ast.Module | None


def _by_language(file: Source, params: Syntax) -> str | None:
    if file.module is not None:
        return _python(file.module, file.text, params)
    if file.language in C_FAMILY:
        return _c(file.language, file.parsed, params)
    if file.language == "HTML":
        visible = len(" ".join(_TAG.sub(" ", file.text).split()))
        few = params.min_visible_chars is not None and visible < params.min_visible_chars
        small = params.min_visible is not None and visible < params.min_visible * len(file.text)
        return "little_visible_text" if few or small else None
    return "go_test" if file.language == "Go" and file.path.endswith("_test.go") and _drawn(file.text, params) else None


def _drawn(text: str, params: Syntax) -> bool:
    """Whether the text's own hash falls among the share that goes: the same answer wherever and whenever it is asked."""
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < params.sampled * 2**64


def _c(language: str, parsed: syntax.Parsed, params: Syntax) -> str | None:
    if params.max_mains is not None and len(syntax.matches(language, _MAIN, parsed)) > params.max_mains:
        return "several_mains"
    directives = sum(len(found[0].encode("utf-8", "replace")) for found in _DIRECTIVE.finditer(parsed.source.decode()))
    most = params.max_preprocessor
    return "mostly_preprocessor" if most is not None and directives > most * max(1, len(parsed.source)) else None


def python_tree(text: str) -> ast.Module | None:
    """The abstract syntax of Python text, or None where it does not parse (nesting beyond the parser's stack included)."""
    with warnings.catch_warnings():
        # An invalid escape is the author's business; as an error it would stop the run.
        warnings.simplefilter("ignore")
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def _python(tree: ast.Module, text: str, p: Syntax) -> str | None:
    lines = max(1, sum(1 for line in text.splitlines() if line.strip()))
    counts = dict.fromkeys(("defs", "stores", "passes", "imports", "trivial", "plain", "statements", "prints"), 0)
    for node in ast.walk(tree):
        _count(node, counts)
    plain = counts["plain"] / max(1, counts["statements"])
    rules = (
        ("too_many_defs", counts["defs"] / lines, p.max_def_lines),
        ("no_variables", -counts["stores"], -1 if p.require_variables else None),
        ("too_many_pass", counts["passes"] / lines, p.max_pass_lines),
        ("too_many_imports", counts["imports"] / lines, p.max_import_lines),
        ("trivial_functions", counts["trivial"] / lines, p.max_trivial_functions),
        ("no_logic", plain if _drawn(text, p) else 0.0, p.max_no_logic),
        ("too_many_prints", counts["prints"] / lines, p.max_prints),
    )
    return next((name for name, value, most in rules if most is not None and value > most), None)


def _count(node: ast.AST, counts: dict[str, int]) -> None:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        counts["defs"] += 1
        body = [one for one in node.body if not _is_text(one)]
        counts["trivial"] += len(body) <= 1 and all(_is_plain(one) or isinstance(one, ast.Return) for one in body)
    elif isinstance(node, ast.Name | ast.Attribute | ast.arg):
        counts["stores"] += isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    elif isinstance(node, ast.stmt) and not isinstance(node, ast.ClassDef) and not _is_text(node):
        counts["statements"] += 1
        counts["plain"] += _is_plain(node)
        counts["passes"] += isinstance(node, ast.Pass)
        counts["imports"] += isinstance(node, ast.Import | ast.ImportFrom)
        counts["prints"] += _is_print(node)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_print(node: ast.stmt) -> bool:
    call = node.value if isinstance(node, ast.Expr) else None
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "print"


def _is_plain(node: ast.stmt) -> bool:
    """A statement without logic: imports, passes, names a literal, prints text."""
    if isinstance(node, ast.Pass | ast.Import | ast.ImportFrom | ast.Global | ast.Nonlocal):
        return True
    if isinstance(node, ast.Assign | ast.AnnAssign):
        return node.value is None or _is_literal(node.value)
    call: Any = node.value if isinstance(node, ast.Expr) else None
    return _is_print(node) and all(isinstance(argument, ast.Constant) for argument in call.args)


def _is_literal(node: ast.expr) -> bool:
    return all(isinstance(one, _LITERAL) for one in ast.walk(node))
