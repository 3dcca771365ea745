"""Foreign columns under our names: the mapping that the row sources (JSON lines, Parquet, datasets) share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator

from stages.columns import MESSAGES, arrow_type
from stages.contract import CORE, TEXT, Chunk, Params, Unit

PLAIN = ("url", "date", "language")
"""Core columns that are taken from a column of the same name where there is one."""


class Mapped(Params):
    """How foreign columns become ours."""

    columns: dict[str, str] = Field({}, description="Our names and theirs, nested by dotted path: {text: content, id: meta.uuid}.")
    keep: dict[str, str] = Field(
        {}, description="Further columns and their types: {stars: int64, tags: 'list<string>', messages: messages}."
    )
    source: str = Field("", description="What `source` says of these rows, unless `columns` maps it.")

    @field_validator("keep")
    @classmethod
    def _known_types(cls, keep: dict[str, str]) -> dict[str, str]:
        for name, kind in keep.items():
            arrow_type(kind)
            if name in CORE or name == "text":
                raise ValueError(f"keep: {name!r} is a core column; map it with columns")
        return keep


def kept(params: Mapped) -> dict[str, pa.DataType]:
    """The declared columns beside the core ones: `text` and those of `keep`."""
    return {"text": TEXT, **{name: arrow_type(kind) for name, kind in params.keep.items()}}


def schema_of(params: Mapped) -> dict[str, pa.DataType]:
    """All columns of the rows that a source yields; `id` is there only when it is mapped."""
    return {**{name: kind for name, kind in CORE.items() if name != "id" or "id" in params.columns}, **kept(params)}


def paths_of(params: Mapped) -> dict[str, str]:
    """Our names and the foreign paths, for the columns that come from the rows themselves."""
    names = ["text", *PLAIN, *params.keep, *(name for name in ("id", "source") if name in params.columns)]
    return {name: params.columns.get(name, name) for name in names}


def unknown_targets(params: Mapped) -> list[str]:
    """Names in `columns` that are neither core columns, `text`, nor in `keep`."""
    return sorted(set(params.columns) - set(CORE) - {"text"} - set(params.keep))


def check_targets(params: Mapped) -> None:
    """Refuse a mapping onto a column that would be lost."""
    if lost := unknown_targets(params):
        raise ValueError(f"columns maps {', '.join(lost)}, which would be lost: name the type in keep, as {{{lost[0]}: string}}")


def missing(name: str, path: str, present: Iterable[str], where: str) -> ValueError:
    """The one error for a column that is not there."""
    return ValueError(f"{where}: no column {path!r} for {name!r}; there are {', '.join(sorted(present)) or 'none'}")


def dig(row: Mapping[str, Any], path: str) -> Any:
    """The value under a dotted path in nested mappings; None where a part is missing. A key with dots wins."""
    if path in row:
        return row[path]
    value: Any = row
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value


def column_at(table: pa.Table, path: str) -> pa.ChunkedArray | None:
    """The column under a dotted path; None where it is missing. A column with dots in its name wins."""
    if path in table.column_names:
        return table[path]
    head, *rest = path.split(".")
    if head not in table.column_names:
        return None
    column = table[head]
    for part in rest:
        if not pa.types.is_struct(column.type) or column.type.get_field_index(part) < 0:
            return None
        column = pc.struct_field(column, part)
    return column


def conversation(params: Mapped) -> str | None:
    """The kept column that holds conversations: where a row has no text, their contents are its text."""
    return next((name for name, kind in params.keep.items() if arrow_type(kind) == MESSAGES), None)


def text_of(turns: Iterable[Any] | None) -> str | None:
    """The contents of a conversation one after the other, with an empty line between; None where there are none."""
    contents = [turn.get("content") for turn in turns or () if isinstance(turn, dict)]
    return "\n\n".join(content for content in contents if isinstance(content, str) and content) or None


def chunks_of(table: pa.Table, params: Mapped, unit: Unit, first: int) -> Iterator[Chunk]:
    """One chunk from a table whose first row is number `first` of the unit's file; rows without text are skipped.

    Raises ValueError for a mapped column that is missing, naming those present, and for values of another type.
    """
    arrays: dict[str, Any] = {}
    for name, path in paths_of(params).items():
        column = column_at(table, path)
        spoken = name == "text" and conversation(params) is not None
        if column is None and not spoken and (name == "text" or name in params.columns or name in params.keep):
            raise missing(name, path, table.column_names, unit.name)
        arrays[name] = column
    arrays["text"] = _spoken(arrays, params)
    full = pa.table([_filled(name, kind, arrays, table, params, unit, first) for name, kind in schema_of(params).items()],
                    names=list(schema_of(params)))  # fmt: skip
    rows = full.filter(pc.is_valid(full["text"])) if full["text"].null_count else full
    skipped = {"no_text": full.num_rows - rows.num_rows} if rows.num_rows < full.num_rows else {}
    yield Chunk(rows, full.num_rows, skipped)


def _spoken(arrays: Mapping[str, Any], params: Mapped) -> Any:
    """The column of texts, rows without one filled from their conversation."""
    name = conversation(params)
    if name is None or (arrays["text"] is not None and not arrays["text"].null_count):
        return arrays["text"]
    texts = pa.chunked_array([pa.array([text_of(turns) for turns in arrays[name].to_pylist()], TEXT)])
    return texts if arrays["text"] is None else pc.coalesce(arrays["text"].cast(TEXT), texts)


def _filled(
    name: str, kind: pa.DataType, arrays: Mapping[str, Any], table: pa.Table, params: Mapped, unit: Unit, first: int
) -> Any:
    if name == "origin":
        count = table.num_rows
        fields = [pa.array([unit.name] * count, pa.string()), pa.array(range(first, first + count), pa.int64())]
        return pa.StructArray.from_arrays([*fields, pa.array([1] * count, pa.int64())], fields=list(kind))
    column = arrays.get(name)
    if name == "source" and column is None:
        return pa.array([params.source] * table.num_rows, kind)
    if column is None:
        return pa.nulls(table.num_rows, kind)
    try:
        return column.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        path = paths_of(params)[name]
        raise ValueError(f"{unit.name}: column {path!r} is {column.type}, not {kind} as {name!r} needs: {error}") from error
