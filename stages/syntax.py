"""Syntax trees of source code by tree-sitter: damage, comments and strings as byte ranges.

One grammar wheel for each language, all local (tree-sitter-language-pack would fetch grammars at run time). Linguist's names.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

Span = tuple[int, int]

GRAMMARS = {
    "Python": ("python", "language"),
    "C": ("c", "language"),
    "C++": ("cpp", "language"),
    "JavaScript": ("javascript", "language"),
    "TypeScript": ("typescript", "language_typescript"),
    "TSX": ("typescript", "language_tsx"),
    "Java": ("java", "language"),
    "Go": ("go", "language"),
    "Rust": ("rust", "language"),
    "Ruby": ("ruby", "language"),
    "PHP": ("php", "language_php"),
    "C#": ("c_sharp", "language"),
    "Kotlin": ("kotlin", "language"),
    "Lua": ("lua", "language"),
    "Shell": ("bash", "language"),
    "Haskell": ("haskell", "language"),
    "HTML": ("html", "language"),
    "Scala": ("scala", "language"),
    "Swift": ("swift", "language"),
}
"""Linguist's name to the grammar's package and function."""
_COMMENT = re.compile(r"^(?:\w+_)?comment$")
_STRING = re.compile(r"^(?:\w+_)?(?:string|string_literal|heredoc_body)$|^template_string$")


class Parsed(NamedTuple):
    """What a syntax tree says of a text; ranges are of bytes, ascending and without overlap."""

    tree: Any
    source: bytes
    damage: float
    """Share of bytes that fit no rule of the grammar, white space between them included; a missing token counts as one byte."""
    comments: list[Span]
    strings: list[Span]


@functools.cache
def grammar(language: str) -> tuple[Any, Any, Any] | None:
    """Language, parser and query of a language, or None where there is no grammar. One of each per process."""
    if language not in GRAMMARS:
        return None
    import tree_sitter

    package, function = GRAMMARS[language]
    found = tree_sitter.Language(getattr(importlib.import_module(f"tree_sitter_{package}"), function)())
    ids = range(found.node_kind_count)
    kinds = {str(found.node_kind_for_id(n)) for n in ids if found.node_kind_is_named(n) and found.node_kind_is_visible(n)}
    patterns = ["(ERROR) @error", "(MISSING) @missing"]
    patterns += [f"({kind}) @comment" for kind in sorted(kinds) if _COMMENT.match(kind)]
    patterns += [f"({kind}) @string" for kind in sorted(kinds) if _STRING.match(kind)]
    if language == "Python":
        patterns.append("(expression_statement (string) @comment)")
    return found, tree_sitter.Parser(found), tree_sitter.Query(found, "\n".join(patterns))


def parse(language: str, text: str) -> Parsed | None:
    """The syntax of a text, or None for a language without a grammar. Python's docstrings count as comments."""
    known = grammar(language)
    if known is None:
        return None
    import tree_sitter

    _, parser, query = known
    source = text.encode("utf-8", "replace")
    tree = parser.parse(source)
    found = tree_sitter.QueryCursor(query).captures(tree.root_node)
    spans = {name: merged((node.start_byte, node.end_byte) for node in nodes) for name, nodes in found.items()}
    comments = spans.get("comment", [])
    damaged = sum(map(_lost, _outermost(found.get("error", [])))) + len(found.get("missing", []))
    strings = [span for span in spans.get("string", []) if span not in set(comments)] if comments else spans.get("string", [])
    return Parsed(tree, source, min(1.0, damaged / max(1, len(source))), comments, strings)


def _outermost(nodes: Iterable[Any]) -> list[Any]:
    kept: list[Any] = []
    for node in sorted(nodes, key=lambda one: (one.start_byte, -one.end_byte)):
        if not kept or node.start_byte >= kept[-1].end_byte:
            kept.append(node)
    return kept


def _lost(node: Any) -> int:
    """Bytes of a broken node without the sound constructs in it: one odd macro can make an error of a whole file."""
    sound = sum(_sound(child) for child in node.children)
    return int(node.end_byte - node.start_byte - sound)


def _sound(node: Any) -> int:
    if not node.has_error:
        return int(node.end_byte - node.start_byte) if node.child_count else 0
    return sum(_sound(child) for child in node.children)


def merged(spans: Iterable[Span]) -> list[Span]:
    """Ranges in order, those that touch or overlap joined."""
    out: list[Span] = []
    for start, stop in sorted(spans):
        if out and start < out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], stop))
        else:
            out.append((start, stop))
    return out


def covered(spans: Iterable[Span]) -> int:
    """Bytes in ranges that do not overlap."""
    return sum(stop - start for start, stop in spans)


def matches(language: str, query: str, parsed: Parsed) -> list[Span]:
    """Byte ranges of the nodes that a query captures, in order; nothing for a language without a grammar."""
    if grammar(language) is None:
        return []
    import tree_sitter

    cursor = tree_sitter.QueryCursor(_query(language, query))
    return sorted((node.start_byte, node.end_byte) for nodes in cursor.captures(parsed.tree.root_node).values() for node in nodes)


@functools.cache
def _query(language: str, query: str) -> Any:
    import tree_sitter

    known = grammar(language)
    assert known is not None
    return tree_sitter.Query(known[0], query)
