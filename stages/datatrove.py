"""Any datatrove filter, formatter or extractor as a stage, by its import path."""

from __future__ import annotations

import difflib
import importlib
from typing import Any

import pyarrow as pa
from pydantic import ConfigDict, Field

from stages.contract import BYTES, TEXT, Params, map_stage

KINDS = {
    "filter": "datatrove.pipeline.filters.base_filter.BaseFilter",
    "formatter": "datatrove.pipeline.formatters.base.BaseFormatter",
    "extractor": "datatrove.pipeline.extractors.base.BaseExtractor",
}


class BlockError(ValueError):
    """The block cannot be found, is of another kind, or refuses its arguments."""


class Block(Params):
    """Parameters of `block`."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    block: str = Field(description="Import path of the class, such as datatrove.pipeline.filters.GopherQualityFilter.")
    with_: dict[str, Any] = Field({}, alias="with", description="Keyword arguments of the class.")
    column: str | None = Field(
        None, description="Column that the block sees as the document's text; null: `html` for an extractor, else `text`."
    )
    metadata: tuple[str, ...] = Field(("url", "language"), description="String columns that the block sees as metadata.")
    rewrites: bool = Field(False, description="The filter changes texts as well (C4QualityFilter does): write `text` too.")


def _attribute(path: str) -> Any:
    module_path, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(module_path)
    except ModuleNotFoundError as error:
        if error.name == "datatrove":
            raise BlockError(f"block {path}: datatrove is not installed; install gristmill[datatrove]") from error
        raise BlockError(f"block {path}: there is no module {error.name}") from error
    except ValueError as error:
        raise BlockError(f"block {path!r}: give the import path of a class, module and name") from error
    if not hasattr(module, name):
        near = difflib.get_close_matches(name, dir(module), 1)
        raise BlockError(f"block {path}: {module_path} has no {name}" + (f"; did you mean {near[0]}?" if near else ""))
    return getattr(module, name)


def kind_of(path: str) -> str:
    """`filter`, `formatter` or `extractor`; raises BlockError for anything else."""
    found = _attribute(path)
    for kind, base in KINDS.items():
        if isinstance(found, type) and issubclass(found, _attribute(base)):
            return kind
    raise BlockError(f"block {path}: a stage can be made of a filter, a formatter or an extractor, and this is none")


def open_block(params: Block) -> Any:
    """The block itself, made once a worker."""
    kind_of(params.block)
    try:
        return _attribute(params.block)(**params.with_)
    except (TypeError, ImportError) as error:
        raise BlockError(f"block {params.block}: {error}") from error


def _column(params: Block) -> str:
    return params.column or ("html" if kind_of(params.block) == "extractor" else "text")


def _is_html(params: Block) -> bool:
    return _column(params) == "html"


def _decoded(value: Any, charset: str | None) -> str:
    """Text of a cell: bytes are UTF-8 where they can be, else what the page declares."""
    if not isinstance(value, bytes):
        return value or ""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        try:
            return value.decode(charset or "windows-1252", "replace")
        except LookupError:
            return value.decode("utf-8", "replace")


def _reads(params: Any) -> dict[str, pa.DataType]:
    more = {"id": pa.string(), **dict.fromkeys(params.metadata, pa.string())}
    return {_column(params): BYTES, "charset": pa.string(), **more} if _is_html(params) else {_column(params): TEXT, **more}


def _writes(params: Any) -> dict[str, pa.DataType]:
    kind = kind_of(params.block)
    writes: dict[str, pa.DataType] = {} if kind == "formatter" else {"drop_reason": pa.string()}
    return writes | ({"text": TEXT} if kind != "filter" or params.rewrites else {})


def _documents(batch: pa.Table, params: Block) -> list[Any]:
    from datatrove.data import Document

    column = _column(params)
    rows = batch.select(list(_reads(params))).to_pylist()
    texts = [_decoded(row[column], row.get("charset")) for row in rows]
    return [
        Document(text=text, id=row["id"] or "", metadata={name: row[name] for name in params.metadata})
        for text, row in zip(texts, rows, strict=True)
    ]


def _judged(block: Any, documents: list[Any]) -> list[str | None]:
    """The reason for each document; a bare False gets the reason `dropped`."""
    found: list[str | None] = []
    for result in block.filter_batch(documents):
        keep, why = result if isinstance(result, tuple) else (result, None)
        found.append(None if keep else why or "dropped")
    return found


@map_stage(version=1, reads=_reads, writes=_writes, model=open_block, libraries=("datatrove",))
def block(batch: pa.Table, params: Block, model: Any) -> pa.Table:
    """Run a datatrove block on every row: its verdict becomes `drop_reason`, its text becomes `text`.

    A filter names its own reasons (`dropped` where it names none). A formatter rewrites `text`. An extractor turns `html`
    into `text`, in this process and without datatrove's sandbox, and drops what it leaves empty (`empty`). Whatever the
    block raises reaches the engine, which sets that row aside. Raises BlockError for a path or arguments that do not fit.
    """
    kind = kind_of(params.block)
    documents = _documents(batch, params)
    columns: dict[str, pa.Array] = {}
    if kind == "filter":
        columns["drop_reason"] = pa.array(_judged(model, documents), pa.string())
        texts = [document.text for document in documents]
    else:
        rewrite = model.format if kind == "formatter" else model.extract
        texts = [rewrite(document.text) or "" for document in documents]
    if kind == "extractor":
        columns["drop_reason"] = pa.array([None if text.strip() else "empty" for text in texts], pa.string())
    if kind != "filter" or params.rewrites:
        columns["text"] = pa.array(texts, TEXT)
    for name, values in columns.items():
        at = batch.schema.get_field_index(name)
        batch = batch.append_column(name, values) if at < 0 else batch.set_column(at, name, values)
    return batch
