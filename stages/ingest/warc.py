"""Pages out of WARC files: plain, gzip members (WARC.gz) or zstd frames (WARC.zst)."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from stages.contract import Chunk, Params, Unit, knob, source
from stages.ingest import archive, files


class Pages(Params):
    """Which files, and which of their records are pages."""

    paths: list[str] | str = knob([], "Files and globs, local or on a store; a list, or separated by commas.")
    source: str = Field("crawl", description="What the column `source` says of these rows.")
    types: tuple[str, ...] = Field(archive.HTML_TYPES, description="Payload types that are pages.")
    unit_bytes: int = Field(64 << 20, ge=1, description="Compressed bytes of one unit; larger files are read in ranges.")
    max_bytes: int = Field(16 << 20, ge=1, description="Largest record, and largest page after decoding; larger ones are bad.")
    keep_broken: bool = Field(False, description="Keep what was decoded of a body that breaks midway, instead of calling it bad.")


def _units(params: Pages) -> Iterator[Unit]:
    return archive.units(files.expand(params.paths), params.unit_bytes, params.max_bytes)


@source(version=1, units=_units, writes=archive.WRITES, transient=["html"])
def pages(unit: Unit, params: Pages) -> Iterator[Chunk]:
    """HTTP responses that are HTML and have status 200: `html` (bytes, decoded from transfer and content coding).

    Also writes `charset` (of the HTTP header or null), `content_type` and `status`. Other records are counted in
    `skipped` by kind (request, metadata, revisit, non_html, empty, status_404 and so on). A record that is damaged
    becomes a Bad with its offset and the reading goes on at the next one.
    """
    wanted = archive.Wanted(params.source, params.types, params.max_bytes, params.keep_broken)
    with files.open_file(unit.path) as file:
        yield from archive.pages(file, unit, wanted)
