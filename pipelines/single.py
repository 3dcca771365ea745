"""One stage on files, from the shell: no recipe, no store."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.shard import PartDraft
from manifests.spill import stable_order, taken
from pipelines.chain import Opened, checked, declared, make_ids, open_call, stage_input
from pipelines.gather import PARENT_AT
from pipelines.guard import Guard
from pipelines.layer import Rows, Tally
from pipelines.program import Call, FrameUnit, Seat, Task
from pipelines.recipe import RecipeError, hint, load_models
from pipelines.resolve import bind, resolve
from pipelines.settle import Shown
from stages.contract import CORE, Ask, AskParams, Export, Map, Reduce, Source

ROWS = 1024
_NOWHERE = Task("", FrameUnit("", ""), 0)


def run_stage(
    name: str, inputs: Sequence[str], out: Path, values: Mapping[str, Any], at: str | None = None, models: Path | None = None
) -> str:
    """Run a stage over files; one line that says what came of it. RecipeError on wrong input.

    An Ask keeps its ledger in a folder beside the output (`<out>.asked`): a second call pays for new rows only.
    """
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    stage = resolve(name, "gristmill step")
    if isinstance(stage, Source):
        values = {"paths": list(inputs), **values}
    params = bind(stage, values, "gristmill step", name)
    call = Call(name, stage.name, params.model_dump(mode="json"), stage.reads_of(params), stage.writes_of(params))
    if isinstance(params, AskParams):
        call = replace(call, seat=_seat(params, out, models))
    opened = open_call(call)
    if isinstance(stage, Source):
        return _write(_source_tables(opened, at), out)
    tables = (_ready(opened, t) for path in inputs for t in _tables(Path(path)))
    if isinstance(stage, Map):
        return _write(_mapped(opened, tables), out)
    if isinstance(stage, Reduce):
        return _write(_reduced(opened, pa.concat_tables(tables, promote_options="default")), out)
    if isinstance(stage, Ask):
        return _write(_asked(opened, pa.concat_tables(tables, promote_options="default")), out)
    assert isinstance(stage, Export)
    return _exported(opened, tables, out)


def _tables(path: Path) -> Iterator[pa.Table]:
    """Tables of a Parquet or JSONL file."""
    if not path.exists():
        raise RecipeError(f"{path}: no such file")
    if path.suffix == ".parquet":
        try:
            file = pq.ParquetFile(path)
        except pa.ArrowInvalid as error:
            raise RecipeError(f"{path}: not a Parquet file ({error})") from error
        for batch in file.iter_batches(ROWS):
            yield pa.Table.from_batches([batch])
    elif ".jsonl" in path.suffixes or path.suffix == ".json":
        from pyarrow import json as arrow_json

        with pa.input_stream(str(path), compression="detect") as source:
            try:
                table = arrow_json.read_json(source)
            except pa.ArrowInvalid as error:
                raise RecipeError(f"{path}: not JSON lines ({error})") from error
        for low in range(0, table.num_rows, ROWS):
            yield table.slice(low, ROWS)
    else:
        raise RecipeError(f"{path}: give .parquet or .jsonl files (also .jsonl.gz)")


def _ready(opened: Opened, table: pa.Table) -> pa.Table:
    """Ids where there are none; clear words for a missing column."""
    if "id" not in table.column_names:
        table = table.append_column("id", pa.array([f"{i:032x}" for i in range(table.num_rows)], pa.string()))
    for column in opened.needs - {"row"}:
        if column not in table.column_names and column not in opened.stage.optional:
            raise RecipeError(f"{opened.stage.name} reads the column '{column}'{hint(column, table.column_names)}")
    return table


def _with_providers(opened: Opened, table: pa.Table) -> pa.Table:
    for column, provider in opened.providers.items():
        made = checked(provider, provider.call.writes, stage_input(table, provider))
        table = table.append_column(column, made[column])
    return table


def _mapped(opened: Opened, tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    assert isinstance(opened.stage, Map)
    guard = Guard(_NOWHERE, lambda _mark: None)
    for table in tables:
        given = _with_providers(opened, table)
        if opened.stage.rows == "any":
            made = opened.stage.run(stage_input(given, opened), opened.params, **opened.extras)
            yield _overlaid(table.take(made["parent"]), made.drop_columns(["parent"]))
            continue
        call = partial(checked, opened, opened.call.writes)
        at = np.arange(given.num_rows)
        outputs, culprits = guard.run(opened.step, opened.stage.seconds_per_row, stage_input(given, opened), at, call)
        for culprit in culprits:
            print(f"row {culprit.index}: {culprit.reason}: {culprit.detail}", file=sys.stderr)  # noqa: T201
        for made, some in outputs:
            kept = {n: c for n, c in zip(made.column_names, made.columns, strict=True) if n not in opened.stage.transient}
            yield _overlaid(table.take(pa.array(some)), pa.table(kept))


def _seat(params: AskParams, out: Path, models: Path | None) -> Seat:
    from synthetic.room import check_served

    try:
        served = check_served(params.model, load_models(models) if models is not None else {})
    except ValueError as error:
        raise RecipeError(f"gristmill step: {error}") from error
    return Seat(served, str(out.with_name(f"{out.name}.asked")), 1)


def _asked(opened: Opened, table: pa.Table) -> Iterator[pa.Table]:
    from pipelines.asked import asked

    quarantine: list[dict[str, Any]] = []
    rows = Rows(np.arange(table.num_rows), table)
    for made in asked(opened, rows, None, Guard(_NOWHERE, lambda _mark: None), Tally(), quarantine):
        yield made.table.drop_columns([PARENT_AT])
    for row in quarantine:
        print(f"row {row['id']}: {row['reason']}: {row['detail']}", file=sys.stderr)  # noqa: T201


def _overlaid(table: pa.Table, made: pa.Table) -> pa.Table:
    columns = {n: table[n] for n in table.column_names} | {n: made[n] for n in made.column_names}
    return pa.table(columns)


def _source_tables(opened: Opened, at: str | None) -> Iterator[pa.Table]:
    assert isinstance(opened.stage, Source)
    wanted, _, offset = (at or "").rpartition(":")
    types = {**CORE, **opened.call.writes}
    for unit in opened.stage.units(opened.params):
        if at and unit.name != wanted:
            continue
        for chunk in opened.stage.read(unit, opened.params):
            for bad in chunk.bad:
                if not at or bad.offset == int(offset):
                    print(f"{unit.name}:{bad.offset}: {bad.reason} {bad.detail}".rstrip(), file=sys.stderr)  # noqa: T201
            table = chunk.rows
            if "id" not in table.column_names:
                table = table.append_column("id", make_ids(table["origin"]))
            for name, kind in types.items():
                if name not in table.column_names:
                    table = table.append_column(name, pa.nulls(table.num_rows, kind))
            if at:
                table = table.filter(pc.equal(pc.struct_field(table["origin"], "offset"), int(offset)))
            yield table


def _reduced(opened: Opened, table: pa.Table) -> Iterator[pa.Table]:
    """All rows as one partition; a verdict is joined back to its rows."""
    stage = opened.stage
    assert isinstance(stage, Reduce)
    batch = stage_input(_with_providers(opened, table), opened)
    if "row" not in batch.column_names:
        batch = batch.append_column("row", pa.array(np.arange(batch.num_rows)))
    emitted = stage.emit(batch, opened.params, **opened.extras).combine_chunks()
    emitted = taken(emitted, *stable_order(emitted["key"].to_numpy()))
    shown = Shown(iter(emitted.to_batches()), opened, emitted.schema)
    writes = {**({"row": pa.int64()} if stage.result == "verdict" else {}), **opened.call.writes}
    settled = [declared(opened, writes, t) for t in stage.settle(iter(shown), opened.params, **opened.extras)]
    if stage.result == "dataset":
        yield from settled
        return
    verdicts = pa.concat_tables([pa.schema(list(writes.items())).empty_table(), *settled]).combine_chunks()
    rows = Rows(np.arange(table.num_rows), table)
    index = np.zeros(len(rows.at), np.int64)
    known = np.zeros(len(rows.at), bool)
    at = verdicts["row"].to_numpy()
    index[at], known[at] = np.arange(len(at)), True
    yield _overlaid(table, verdicts.drop_columns(["row"]).take(pa.array(index, mask=~known)))


def _exported(opened: Opened, tables: Iterator[pa.Table], out: Path) -> str:
    assert isinstance(opened.stage, Export)
    with PartDraft(out.parent, out.name) as draft:
        summary = opened.stage.encode((stage_input(t, opened) for t in tables), opened.params, draft, **opened.extras)
        written = draft.commit()
    for suffix in written:
        (out.parent / "parts" / f"{out.name}{suffix}").replace(out.parent / f"{out.name}{suffix}")
    for folder in ("parts", "drafts"):
        (out.parent / folder).rmdir()
    return f"{out}{{{','.join(written)}}}: {dict(summary)}"


def _write(tables: Iterator[pa.Table], out: Path) -> str:
    """Write tables to Parquet or JSONL; the line that says how many rows."""
    found = [t for t in tables if t.num_rows]
    if not found:
        return f"{out}: no rows, nothing written"
    whole = pa.concat_tables(found, promote_options="default")
    out.parent.mkdir(parents=True, exist_ok=True)
    if ".jsonl" in out.suffixes:
        import orjson

        with out.open("wb") as file:
            for row in whole.to_pylist():
                file.write(orjson.dumps(row, default=_plain) + b"\n")
    else:
        pq.write_table(whole, out, compression="zstd")
    kept = whole.num_rows
    if "drop_reason" in whole.column_names:
        kept = whole["drop_reason"].null_count
    return f"{out}: {whole.num_rows:,} rows, {kept:,} of them kept"


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    raise TypeError(f"cannot write a {type(value).__name__} as JSON; write Parquet instead")
