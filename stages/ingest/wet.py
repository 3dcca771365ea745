"""Text out of WET files: what Common Crawl extracted from its pages."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from stages.contract import TEXT, Bad, Chunk, Params, Unit, knob, source
from stages.ingest import archive, files
from stages.ingest.headers import text_of
from stages.ingest.records import Item, open_items
from stages.ingest.rows import HEAD, Collector


class Texts(Params):
    """Which files."""

    paths: list[str] | str = knob([], "Files and globs, local or on a store; a list, or separated by commas.")
    source: str = Field("crawl", description="What the column `source` says of these rows.")
    unit_bytes: int = Field(64 << 20, ge=1, description="Compressed bytes of one unit; larger files are read in ranges.")
    max_bytes: int = Field(16 << 20, ge=1, description="Largest text; larger ones are bad.")


def _units(params: Texts) -> Iterator[Unit]:
    return archive.units(files.expand(params.paths), params.unit_bytes, params.max_bytes)


@source(version=1, units=_units, writes={"text": TEXT})
def texts(unit: Unit, params: Texts) -> Iterator[Chunk]:
    """Conversion records with text/plain: `text`, and `language` as the archive states it (codes, most likely first).

    Other records and empty texts are counted in `skipped` by kind; bytes that are no UTF-8 become U+FFFD.
    """
    collector = Collector({**HEAD, "text": TEXT})
    with files.open_file(unit.path) as file:
        for item in open_items(file, unit.start, unit.stop, params.max_bytes):
            _sort(item, unit, params, collector)
            if collector.full:
                yield collector.take()
    if not collector.empty:
        yield collector.take()


def _sort(item: Item, unit: Unit, params: Texts, collector: Collector) -> None:
    if isinstance(item, Bad):
        collector.bad(item)
    elif item.kind != "conversion":
        collector.skip(item.kind)
    elif not item.fields.get(b"content-type", b"text/plain").startswith(b"text/plain"):
        collector.skip("non_text")
    elif item.huge:
        collector.bad(Bad(item.offset, "too_large", item.length))
    elif not (text := item.block.decode("utf-8", "replace")).strip():
        collector.skip("empty")
    else:
        fields = item.fields
        origin = {"unit": unit.name, "offset": item.offset, "length": item.length}
        url, date = text_of(fields.get(b"warc-target-uri")), text_of(fields.get(b"warc-date"))
        language = text_of(fields.get(b"warc-identified-content-language"))
        collector.row((url, params.source, date, language, origin, text), item.stop - item.start)
