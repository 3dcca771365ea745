"""`where:` - a column predicate in a small part of SQL, evaluated by Arrow.

    predicate  := term (OR term)*            term := factor (AND factor)*
    factor     := NOT factor | ( predicate ) | column test
    test       := (= | != | <> | < | <= | > | >=) value | [NOT] IN (value, ...) | IS [NOT] NULL | [NOT] LIKE 'pattern'

Values are numbers, 'texts', TRUE and FALSE. As in SQL a comparison with null is not true, so such a row is passed over.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)|(?P<word>[A-Za-z_][\w.]*)|(?P<op><=|>=|<>|!=|[=<>(),]))"
)
_KEYWORDS = {"and", "or", "not", "in", "is", "null", "like", "true", "false"}
_COMPARE = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<>": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


@dataclass(frozen=True, slots=True)
class Predicate:
    """A parsed predicate: the columns it reads, and its tree."""

    text: str
    columns: tuple[str, ...]
    tree: Any

    def mask(self, table: pa.Table) -> pa.Array:
        """A boolean array, null-free: true where the predicate holds."""
        return pc.fill_null(_combine(_evaluate(self.tree, table)), False)


def _combine(value: Any) -> Any:
    return value.combine_chunks() if isinstance(value, pa.ChunkedArray) else value


def parse_predicate(text: str) -> Predicate:
    """Parse; ValueError names the place and what was expected there."""
    parser = _Parser(text)
    tree = parser.predicate()
    if parser.kind is not None:
        raise parser.error("the end or AND / OR")
    return Predicate(text, tuple(dict.fromkeys(parser.columns)), tree)


class _Parser:
    def __init__(self, text: str) -> None:
        self.source, self.at, self.columns = text, 0, []  # type: str, int, list[str]
        self.kind: str | None = None
        self.value = ""
        self.advance()

    def advance(self) -> None:
        self.start = self.at
        if not self.source[self.at :].strip():
            self.kind, self.value = None, ""
            return
        match = _TOKEN.match(self.source, self.at)
        if match is None:
            raise self.error("a column, a value or an operator")
        self.at, self.kind, self.value = match.end(), match.lastgroup, match.group(match.lastgroup or 0)

    def error(self, wanted: str) -> ValueError:
        return ValueError(f"where: expected {wanted} at {self.source[self.start :].strip()[:20] or 'the end'!r} in {self.source!r}")

    def word(self, keyword: str) -> bool:
        if self.kind == "word" and self.value.lower() == keyword:
            self.advance()
            return True
        return False

    def symbol(self, symbol: str) -> None:
        if self.value != symbol:
            raise self.error(f"'{symbol}'")
        self.advance()

    def predicate(self) -> Any:
        terms = [self.term()]
        while self.word("or"):
            terms.append(self.term())
        return terms[0] if len(terms) == 1 else ("or", *terms)

    def term(self) -> Any:
        factors = [self.factor()]
        while self.word("and"):
            factors.append(self.factor())
        return factors[0] if len(factors) == 1 else ("and", *factors)

    def factor(self) -> Any:
        if self.word("not"):
            return ("not", self.factor())
        if self.value == "(":
            self.advance()
            inside = self.predicate()
            self.symbol(")")
            return inside
        if self.kind != "word" or self.value.lower() in _KEYWORDS:
            raise self.error("a column")
        column = self.value
        self.columns.append(column)
        self.advance()
        return self.test(column)

    def test(self, column: str) -> Any:
        if self.word("is"):
            negated = self.word("not")
            if not self.word("null"):
                raise self.error("NULL")
            return ("not", ("null", column)) if negated else ("null", column)
        if self.kind == "op" and self.value in _COMPARE:
            operator = self.value
            self.advance()
            return (operator, column, self.constant())
        negated = self.word("not")
        if self.word("in"):
            found: Any = ("in", column, self.constants())
        elif self.word("like"):
            found = ("like", column, self.constant())
        else:
            raise self.error("a comparison, IN, LIKE or IS NULL")
        return ("not", found) if negated else found

    def constants(self) -> list[Any]:
        self.symbol("(")
        values = [self.constant()]
        while self.value == ",":
            self.advance()
            values.append(self.constant())
        self.symbol(")")
        return values

    def constant(self) -> Any:
        kind, raw = self.kind, self.value
        if kind == "text":
            value: Any = raw[1:-1].replace("''", "'")
        elif kind == "number":
            value = float(raw) if re.search(r"[.eE]", raw) else int(raw)
        elif kind == "word" and raw.lower() in ("true", "false"):
            value = raw.lower() == "true"
        else:
            raise self.error("a value")
        self.advance()
        return value


def _evaluate(tree: Any, table: pa.Table) -> Any:
    operator, *rest = tree
    if operator in ("and", "or"):
        combine = pc.and_kleene if operator == "and" else pc.or_kleene
        return reduce(combine, [_evaluate(part, table) for part in rest])
    if operator == "not":
        return pc.invert(_evaluate(rest[0], table))
    values = table[rest[0]]
    if operator == "null":
        return pc.is_null(values)
    if operator == "in":
        found = pc.is_in(values, value_set=pa.array(rest[1]).cast(values.type))
        return pc.if_else(pc.is_null(values), pa.scalar(None, pa.bool_()), found)
    if operator == "like":
        return pc.match_like(values, rest[1])
    return _COMPARE[operator](values, pa.scalar(rest[1]))
