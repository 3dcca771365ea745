"""What the web archive sources share: HTML pages out of the records of one unit."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa

from stages.contract import BYTES, Bad, Chunk, Unit
from stages.ingest import files, response
from stages.ingest.headers import text_of
from stages.ingest.records import Item, Record, can_split, open_items
from stages.ingest.rows import HEAD, Collector

WRITES: Mapping[str, pa.DataType] = {
    "html": BYTES,
    "charset": pa.string(),
    "content_type": pa.string(),
    "status": pa.int32(),
}
HTML_TYPES = ("text/html", "application/xhtml+xml")

SOLID = re.compile(rb"[^\s\0]")
MARKUP = re.compile(
    rb"(?:\xef\xbb\xbf|\xff\xfe|\xfe\xff)?[\s\0]*(?:<\?xml[^>]{0,200}\?>[\s\0]*)?(?:<!--.{0,2000}?-->[\s\0]*)*"
    rb"<\0?(?:!\0?d\0?o\0?c\0?t\0?y\0?p\0?e\0?\s+\0?h\0?t\0?m\0?l|h\0?t\0?m\0?l|h\0?e\0?a\0?d|b\0?o\0?d\0?y"
    rb"|title|meta|script|style|table|div|h1|p|a|br|font|iframe|img|link|span|ul)\b",
    re.IGNORECASE | re.DOTALL,
)
"""The sniffing rules of the WHATWG MIME standard, section 7.1, somewhat wider, also for two-byte encodings."""

DOCTYPE = re.compile(rb"<!doctype\s+html|<html[\s>]", re.IGNORECASE)
FOREIGN = (b"%PDF-", b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"PK\x03\x04", b"RIFF", b"\x1f\x8b", b"wOFF", b"wOF2", b"\0\0\1\0")
"""First bytes of what servers send as text/html most often, and is none."""

GENERIC = (None, "text/plain", "application/octet-stream", "application/xml", "text/xml", "unknown/unknown", "*/*")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which responses become rows, and within which limits."""

    source: str
    types: tuple[str, ...]
    max_bytes: int
    keep_broken: bool


def units(found: Iterable[files.Found], unit_bytes: int, limit: int) -> Iterator[Unit]:
    """Whole files, and ranges of those that are larger than a unit and can be read in parts."""
    for file in found:
        parts: Iterable[tuple[int, int | None]] = [(0, None)]
        if file.size > 1.5 * unit_bytes:
            with files.open_file(file.path) as opened:
                parts = files.ranges(file.size, unit_bytes) if can_split(opened, limit) else parts
        for start, stop in parts:
            yield Unit(file.name, file.path, file.size, file.witness, start, stop)


def pages(file: BinaryIO, unit: Unit, wanted: Wanted) -> Iterator[Chunk]:
    """The pages among the records that begin in the unit's range."""
    collector = Collector({**HEAD, **WRITES})
    for item in open_items(file, unit.start, unit.stop, wanted.max_bytes + (1 << 16)):
        _sort(item, unit, wanted, collector)
        if collector.full:
            yield collector.take()
    if not collector.empty:
        yield collector.take()


def _sort(item: Item, unit: Unit, wanted: Wanted, collector: Collector) -> None:
    if isinstance(item, Bad):
        collector.bad(item)
        return
    if item.kind != "response":
        collector.skip(item.kind)
        return
    if item.huge:
        collector.bad(Bad(item.offset, "too_large", item.length))
        return
    found = response.parse(item.data, item.start, item.stop)
    if found is None:
        _fault(item, collector)
    elif found.status != 200:
        collector.skip(f"status_{found.status}")
    else:
        _page(item, found, unit, wanted, collector)


def _fault(item: Record, collector: Collector) -> None:
    if item.fields.get(b"content-type", b"application/http").startswith(b"application/http"):
        collector.bad(Bad(item.offset, "no_status_line", item.length, repr(item.block[:40])))
    else:
        collector.skip("not_http")


def _page(item: Record, found: response.Response, unit: Unit, wanted: Wanted, collector: Collector) -> None:
    fields = item.fields
    stated = _media_type(fields.get(b"warc-identified-payload-type")) or found.content_type
    if stated not in wanted.types and stated not in GENERIC:
        collector.skip("non_html")
        return
    try:
        html = response.decoded(found, wanted.max_bytes)
    except response.BodyError as error:
        if not (wanted.keep_broken and error.start):
            collector.bad(Bad(item.offset, error.reason, item.length, error.detail))
            return
        html = error.start
    if SOLID.search(html) is None:
        collector.skip("empty")
    elif not is_html(stated, html, wanted.types):
        collector.skip("non_html")
    else:
        origin = {"unit": unit.name, "offset": item.offset, "length": item.length}
        url, date = text_of(fields.get(b"warc-target-uri")), text_of(fields.get(b"warc-date"))
        head = (url.strip("<>") if url else None, wanted.source, date, None, origin)
        collector.row((*head, html, found.charset, found.content_type, found.status), len(html))


def _media_type(value: bytes | None) -> str | None:
    return (text_of(value) or "").partition(";")[0].strip().lower() or None


def is_html(content_type: str | None, body: response.Bytes, types: Container[str | None]) -> bool:
    """Whether a body is a page: by its identified or declared type, by its first bytes where that says little."""
    if content_type in types:
        return not bytes(body[:8]).startswith(FOREIGN)
    return content_type in GENERIC and (MARKUP.match(body) is not None or DOCTYPE.search(body, 0, 1024) is not None)
