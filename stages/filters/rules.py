"""What all heuristic filters share: rules with a reason, languages they are not asked of, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from stages.analysis import Splitter, column_of
from stages.contract import TEXT, Params

Mask = NDArray[np.bool_]

SPACELESS = ("bo", "dz", "ja", "km", "lo", "my", "th", "yue", "zh")
"""Languages written without spaces between words: one token is one character there, so mean word length says nothing."""


class Judged(Params):
    """Parameters of every filter here."""

    default_language: str = Field("en", description="Language of rows whose `language` is null or empty.")
    skip: dict[str, tuple[str, ...]] = Field(
        {}, description="Reason to languages in which the rule is not asked; '*' switches it off."
    )
    stats: bool = Field(False, description="Also write the values that decided, as columns.")


class Worded(Judged):
    """Parameters of filters that count words."""

    words: Splitter = Field(
        "plain", description="Word splitter: plain (language aware), or spacy_like (spaCy's English rules, as datatrove uses)."
    )


class Rule(NamedTuple):
    """A reason and the rows it holds for."""

    reason: str
    failing: Mask


def reads_words(params: Any) -> dict[str, pa.DataType]:
    """Columns read by a filter that looks at text and tokens."""
    return {"text": TEXT, "language": pa.string(), column_of(params.words): pa.large_binary()}


def languages(batch: pa.Table, params: Judged) -> pa.Array:
    """The language of every row, its region cut off (`pt-BR` is `pt`)."""
    if "language" not in batch.column_names:
        return pa.array([params.default_language] * batch.num_rows, pa.string())
    plain = pc.replace_substring_regex(batch["language"].combine_chunks(), "[-_].*$", "")
    return pc.if_else(pc.equal(pc.fill_null(plain, ""), ""), params.default_language, plain)


def above(values: NDArray[Any], limit: float | None) -> Mask:
    """Rows over a limit; None is no limit."""
    return np.zeros(len(values), bool) if limit is None else values > limit


def below(values: NDArray[Any], limit: float | None) -> Mask:
    """Rows under a limit; None is no limit."""
    return np.zeros(len(values), bool) if limit is None else values < limit


def share(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    """The quotient, 0 where there is no whole."""
    return np.asarray(np.divide(part, whole, out=np.zeros(len(part)), where=whole != 0))


def verdict(rules: Sequence[Rule], spoken: pa.Array, params: Judged) -> pa.Array:
    """The first reason that holds for each row, in the order of the rules; null means keep."""
    skip = params.skip
    unknown = set(skip) - set(type(params).model_fields["skip"].default) - {rule.reason for rule in rules}
    if unknown:
        raise ValueError(f"skip names {sorted(unknown)}, but the reasons here are {[rule.reason for rule in rules]}")
    found = np.full(len(spoken), -1)
    for number, rule in reversed(list(enumerate(rules))):
        excused = skip.get(rule.reason, ())
        if "*" in excused:
            continue
        failing = rule.failing
        if excused:
            failing = failing & ~np.asarray(pc.is_in(spoken, value_set=pa.array(list(excused), pa.string())))
        found[failing] = number
    return pa.array([rule.reason for rule in rules], pa.string()).take(pa.array(found, mask=found < 0))


def with_columns(
    batch: pa.Table, reasons: pa.Array, columns: Mapping[str, NDArray[Any]], schema: Mapping[str, pa.DataType]
) -> pa.Table:
    """The batch with `drop_reason` and those of the columns that the schema names."""
    added = {
        "drop_reason": reasons,
        **{name: pa.array(columns[name]).cast(kind) for name, kind in schema.items() if name in columns},
    }
    for name, values in added.items():
        at = batch.schema.get_field_index(name)
        batch = batch.append_column(name, values) if at < 0 else batch.set_column(at, name, values)
    return batch
