"""Rows behind a published name of a store: what another recipe has made, with its ids and the way back to its bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pydantic import Field

from stages.columns import KNOWN, Carried
from stages.contract import CORE, Chunk, Unit, knob, source

SEPARATOR = "#"


class Published(Carried):
    """Which dataset, and what of it."""

    name: str = knob(..., "Published name, such as wiki@2026.11.")
    store: str = knob("", "Store that holds it; empty: the store of the run.")
    where: str | None = Field(None, description="Condition in SQL (DuckDB) over all its columns; other rows are skipped.")


def _dataset(params: Published, store: str) -> Any:
    from manifests.catalog import CatalogError
    from manifests.published import Dataset
    from manifests.store import Store, StoreError, store_at_hand

    here = Store(store) if store else store_at_hand()
    if here is None:
        raise ValueError(f"published {params.name}: in which store? name it with store")
    try:
        return Dataset(here, params.name), here.url
    except (CatalogError, StoreError) as error:
        raise ValueError(str(error)) from error


def _units(params: Published) -> Iterator[Unit]:
    from manifests.catalog import CatalogError

    dataset, store = _dataset(params, params.store)
    try:
        _check_columns(dataset, params)
        if params.where is not None:
            dataset.check(params.where)
        for part in dataset.parts():
            yield Unit(part.name, f"{store}{SEPARATOR}{part.key}", part.size, part.witness)
    except CatalogError as error:
        raise ValueError(str(error)) from error
    finally:
        dataset.close()


def _check_columns(dataset: Any, params: Published) -> None:
    for name in ("id", "text", *params.columns):
        if dataset.column(name) is None:
            raise ValueError(f"{dataset.label} has no column '{name}'; there are {', '.join(dataset.columns())}")


@source(version=1, units=_units, writes=lambda params: {"text": KNOWN["text"], **params.carried()})
def rows(unit: Unit, params: Published) -> Iterator[Chunk]:
    """The rows that stand at a published step: `text`, the core columns and those of `columns`.

    `id`, `source` and `origin` are those they had there, so that a document leads back to the bytes it came from and is
    the same document in every recipe. Units are its shards. Rows that do not meet `where` are skipped as `where`, rows
    without text as `no_text`. Raises ValueError for a name that is not published, an export, and a column that is not
    there or not stored; RuntimeError when the name was published anew since the run was planned.
    """
    store, _, key = unit.path.rpartition(SEPARATOR)
    dataset, _ = _dataset(params, store)
    try:
        if unit.witness not in {part.witness for part in dataset.parts() if part.key == key}:
            raise RuntimeError(f"{dataset.label} was published anew since this run was planned: run again")
        yield from _chunks(dataset, key, params)
    finally:
        dataset.close()


def _chunks(dataset: Any, key: str, params: Published) -> Iterator[Chunk]:
    kinds = {**CORE, "text": KNOWN["text"], **params.carried()}
    there = [name for name in kinds if dataset.column(name) is not None]
    whole, seen = dataset.count(key), 0
    for batch in dataset.read(key, there, params.where):
        seen += batch.num_rows
        table = pa.table([_as(batch, name, kind) for name, kind in kinds.items()], names=list(kinds))
        full = table.filter(table["text"].is_valid())
        lost = table.num_rows - full.num_rows
        yield Chunk(full, table.num_rows, {"no_text": lost} if lost else {})
    if whole > seen:
        empty = pa.schema(list(kinds.items())).empty_table()
        yield Chunk(empty, whole - seen, {"where": whole - seen})


def _as(batch: pa.RecordBatch, name: str, kind: pa.DataType) -> Any:
    return batch.column(name).cast(kind) if name in batch.schema.names else pa.nulls(batch.num_rows, kind)
