"""What `gristmill sql` prints: a result as a table, JSON, CSV, or written to a Parquet file."""

from __future__ import annotations

import csv
import datetime as dt
import io
import os
import shutil
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from manifests.catalog import Catalog, CatalogError, plainly
from manifests.store import Store

if TYPE_CHECKING:
    import duckdb

MAX_ROWS = 200
"""Rows of a printed table; files and JSON hold all."""
CELLS = (60, 40, 24)
"""Widths of a cell that are tried until a row fits the terminal."""
NUMBERS = ("INT", "FLOAT", "DOUBLE", "DECIMAL")


def sql(
    store: Store, query: str, as_json: bool = False, as_csv: bool = False, parquet: Path | None = None
) -> str | None:  # fmt: skip
    """The result of a query as a table, a JSON array of objects (ISO dates, null) or CSV; or written to a Parquet file.

    CatalogError when the query cannot be answered or the file cannot be written.
    """
    catalog = Catalog(store)
    with plainly():
        if parquet is not None:
            rows = _to_parquet(catalog.relation(query), parquet)
            return orjson.dumps({"file": str(parquet), "rows": rows}).decode() if as_json else f"{parquet}: {rows} rows"
        result = catalog.run(query)
        return _json(result) if as_json else _csv(result) if as_csv else table(result)


def _columns(result: duckdb.DuckDBPyConnection) -> tuple[list[str], list[str]]:
    described = result.description or []
    return [str(d[0]) for d in described], [str(d[1]) for d in described]


def _to_parquet(relation: duckdb.DuckDBPyRelation | None, path: Path) -> int:
    """Stream into a draft and rename it: the file is whole or absent."""
    import pyarrow.parquet as pq

    if relation is None:
        raise CatalogError("the last statement has no result to write")
    reader: Any = relation.to_arrow_reader(65_536)
    draft, rows = path.with_name(f".{path.name}.{os.getpid()}"), 0
    try:
        with pq.ParquetWriter(draft, reader.schema, compression="zstd") as writer:
            for batch in reader:
                writer.write_batch(batch)
                rows += batch.num_rows
        draft.replace(path)
    except OSError as error:
        raise CatalogError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        draft.unlink(missing_ok=True)
    return rows


def _json(result: duckdb.DuckDBPyConnection) -> str:
    names, types = _columns(result)
    rows = [dict(zip(names, map(_plain, row, types), strict=True)) for row in result.fetchall()]
    return orjson.dumps(rows, default=_said, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode()


def _plain(value: Any, kind: str) -> Any:
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value)
    return orjson.loads(value) if kind == "JSON" and value is not None else value


def _said(value: Any) -> Any:
    """What JSON has no word for: exact decimals and everything else as text, bytes as hex digits."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value.hex() if isinstance(value, bytes | bytearray | memoryview) else str(value)


def _csv(result: duckdb.DuckDBPyConnection) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_columns(result)[0])
    while rows := result.fetchmany(1000):
        writer.writerows([cell(value, None) for value in row] for row in rows)
    return out.getvalue().rstrip("\n")


def cell(value: Any, missing: str | None = "null") -> str | None:
    """A value as text: nested ones as JSON, times in ISO form."""
    if value is None:
        return missing
    if isinstance(value, dict | list | tuple):
        return orjson.dumps(value, default=_said, option=orjson.OPT_NON_STR_KEYS).decode()
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}" if missing else repr(value)
    return str(_said(value)) if isinstance(value, Decimal | bytes) else str(value)


def table(result: duckdb.DuckDBPyConnection) -> str:
    """A result in aligned columns, at most `MAX_ROWS` rows."""
    names, types = _columns(result)
    rows = result.fetchmany(MAX_ROWS + 1)
    if not names:
        return "done"
    cells = [[" ".join(str(cell(v)).split()) for v in row] for row in rows[:MAX_ROWS]]
    more = f"\nthe first {MAX_ROWS} rows; all of them with --json, --csv or --parquet" if len(rows) > MAX_ROWS else ""
    return _layout(names, [t.startswith(NUMBERS) or t in ("BIGINT", "HUGEINT") for t in types], cells) + more


def _layout(names: list[str], right: list[bool], rows: list[list[str]]) -> str:
    """Aligned columns where they fit the terminal, else one line per value."""
    from rich.cells import cell_len

    room = shutil.get_terminal_size((132, 24)).columns
    for limit in CELLS:
        widths = [min(limit, max(map(cell_len, column))) for column in zip(names, *rows, strict=True)]
        if sum(widths) + 2 * len(widths) <= room:
            lines = [names, ["-" * w for w in widths], *rows]
            cells = ([fit(c, w, right=r) for c, w, r in zip(line, widths, right, strict=True)] for line in lines)
            return "\n".join("  ".join(line).rstrip() for line in cells)
    wide = max(map(cell_len, names))
    blocks = [[f"{n:>{wide}}  {fit(v, max(room - wide - 2, 24)).rstrip()}" for n, v in zip(names, r, strict=True)] for r in rows]
    return "\n\n".join("\n".join(block) for block in blocks) or "  ".join(names)


def fit(text: str, width: int, *, right: bool = False) -> str:
    """A text cut or padded to a width in terminal cells."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) > width:
        return set_cell_size(text, width - 1).rstrip() + "…"
    return " " * (width - cell_len(text)) + text if right else set_cell_size(text, width)
