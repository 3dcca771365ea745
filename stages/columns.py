"""Columns that a recipe names together with their types, for stages that carry what they do not know."""

from __future__ import annotations

import pyarrow as pa
from pydantic import Field, field_validator

from stages.contract import CORE, TEXT, Params

KNOWN = {**CORE, "text": TEXT}


MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
"""A conversation, as chat data hold it; the word for it is `messages`."""


def arrow_type(name: str) -> pa.DataType:
    """The type that a word such as int32, float32, string, bool, list<string> or messages means; ValueError when it means none."""
    if name == "messages":
        return MESSAGES
    if name.startswith("list<") and name.endswith(">"):
        return pa.list_(arrow_type(name[5:-1]))
    try:
        return pa.type_for_alias(name)
    except ValueError as error:
        raise ValueError(
            f"{name!r} is no column type; try string, int32, int64, float32, float64, bool, list<string> or messages"
        ) from error


class Carried(Params):
    """Columns beside the ones a stage carries anyway."""

    columns: dict[str, str] = Field({}, description="Further columns and their types, such as {tokens: int32, label: string}.")

    @field_validator("columns")
    @classmethod
    def _types_exist(cls, columns: dict[str, str]) -> dict[str, str]:
        if taken := sorted(set(columns) & set(KNOWN)):
            raise ValueError(f"{taken} have their types already: do not name them here")
        for name in columns.values():
            arrow_type(name)
        return columns

    def carried(self) -> dict[str, pa.DataType]:
        """The further columns with their Arrow types."""
        return {name: arrow_type(kind) for name, kind in self.columns.items()}


class Written(Carried):
    """Columns of an export."""

    known: tuple[str, ...] = Field(
        ("id", "text", "url", "source", "date", "language"), description="Core columns written: these, text and origin are known."
    )

    def written(self) -> dict[str, pa.DataType]:
        """All columns in order; ValueError for one without a type."""
        if strange := sorted(set(self.known) - set(KNOWN)):
            raise ValueError(f"the types of {strange} are not known: name them in columns, with their types")
        return {name: KNOWN[name] for name in self.known} | self.carried()
