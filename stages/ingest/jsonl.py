"""Rows out of JSON lines: plain, gzip or zstd."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import orjson
import pyarrow as pa
from pydantic import Field

from stages.contract import Bad, Chunk, Unit, knob, source
from stages.ingest import columns, files
from stages.ingest.rows import MAX_ROWS, Collector

BLOCK = 1 << 20


class Rows(columns.Mapped):
    """Which files and columns."""

    paths: list[str] | str = knob([], "Files and globs, local or on a store; a list, or separated by commas.")
    unit_bytes: int = Field(64 << 20, ge=1, description="Bytes of one unit; larger plain files are read in ranges.")
    max_bytes: int = Field(64 << 20, ge=1, description="Longest line; longer ones are bad.")


def _units(params: Rows) -> Iterator[Unit]:
    columns.check_targets(params)
    for file in files.expand(params.paths):
        whole: Iterable[tuple[int, int | None]] = [(0, None)]
        parts = whole if files.is_compressed(file.path) else files.ranges(file.size, params.unit_bytes)
        for start, stop in parts:
            yield Unit(file.name, file.path, file.size, file.witness, start, stop)


@source(version=1, units=_units, writes=columns.kept)
def rows(unit: Unit, params: Rows) -> Iterator[Chunk]:
    """One row for each JSON object: `text`, the core columns and those of `keep`, under the names that `columns` maps.

    origin.offset is the byte where the line begins (after inflating), origin.length its bytes. A line that is no JSON
    object, or whose values do not fit the declared types, is a Bad; one without text is skipped as `no_text`. Raises
    ValueError when `text` or a mapped `id` is in none of the first 256 objects.
    """
    reader = _Reader(unit, params)
    with files.open_content(unit.path) as file:
        yield from reader.chunks(file)


class _Reader:
    """The objects of one unit on their way into columns."""

    def __init__(self, unit: Unit, params: Rows) -> None:
        self.unit = unit
        self.params = params
        self.kinds = columns.schema_of(params)
        self.paths = columns.paths_of(params)
        self.collector = Collector(self.kinds)
        self.spoken = columns.conversation(params)
        needed = ("id",) if self.spoken else ("text", "id")
        self.needed = {name: self.paths[name] for name in needed if name in self.paths}
        self.present: set[str] = set()
        self.seen = 0

    def chunks(self, file: BinaryIO) -> Iterator[Chunk]:
        for offset, line, length in _lines(file, self.unit.start, self.unit.stop, self.params.max_bytes):
            if isinstance(line, str):
                reason, _, detail = line.partition(": ")
                self.collector.bad(Bad(offset, reason, length, detail))
            elif line.strip():
                self._take(offset, line)
            if self.collector.full:
                yield self.collector.take()
        self._check(at_end=True)
        if not self.collector.empty:
            yield self.collector.take()

    def _take(self, offset: int, line: bytes) -> None:
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            self.collector.bad(Bad(offset, "json", len(line), str(error)))
            return
        if not isinstance(row, dict):
            self.collector.bad(Bad(offset, "json", len(line), f"a {type(row).__name__} instead of an object"))
            return
        if self.needed:
            self.needed = {name: path for name, path in self.needed.items() if columns.dig(row, path) is None}
            self.present.update(row)
            self.seen += 1
            self._check(at_end=False)
        self._row(offset, line, row)

    def _check(self, at_end: bool) -> None:
        if self.needed and self.seen and (at_end or self.seen >= MAX_ROWS):
            name, path = next(iter(self.needed.items()))
            raise columns.missing(name, path, self.present, self.unit.name)

    def _row(self, offset: int, line: bytes, row: dict[str, Any]) -> None:
        values = {name: columns.dig(row, path) for name, path in self.paths.items()}
        if values["text"] is None and self.spoken and isinstance(values[self.spoken], list):
            values["text"] = columns.text_of(values[self.spoken])
        if values["text"] is None:
            self.collector.skip("no_text")
            return
        values["origin"] = {"unit": self.unit.name, "offset": offset, "length": len(line)}
        values.setdefault("source", self.params.source)
        for name in ("id", "url", "date", "language", "source"):
            if isinstance(values.get(name), (int, float)):
                values[name] = str(values[name])
        misfit = next((name for name, kind in self.kinds.items() if not _fits(values[name], kind)), None)
        if misfit is not None:
            detail = f"{self.paths.get(misfit, misfit)} is {values[misfit]!r:.60}, not {self.kinds[misfit]}"
            self.collector.bad(Bad(offset, "type", len(line), detail))
            return
        self.collector.row(tuple(values[name] for name in self.kinds), len(line))


def _fits(value: Any, kind: pa.DataType) -> bool:
    if value is None:
        return True
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return isinstance(value, str)
    try:
        pa.scalar(value, kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return False
    return True


def _lines(file: BinaryIO, start: int, stop: int | None, limit: int) -> Iterator[tuple[int, bytes | str, int]]:
    """Lines that begin in [start, stop) as (offset, line, length); instead of a line its fault, where it has one."""
    at, rest = max(0, start - 1), b""
    if at:
        file.seek(at)
    # A range that does not begin the file leaves everything up to the first line end to the one before it.
    skipping = start > 0
    while stop is None or at < stop:
        try:
            block = file.read(BLOCK)
        except OSError as error:
            yield at, f"compression: {error}", 0
            return
        if not block:
            break
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            if not skipping and (stop is None or at < stop):
                yield at, line if len(line) <= limit else "too_large", len(line)
            skipping = False
            at += len(line) + 1
    if rest and not skipping and (stop is None or at < stop):
        yield at, rest if len(rest) <= limit else "too_large", len(rest)
