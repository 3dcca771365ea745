"""Pages straight out of a Common Crawl dump, by the numbers of its WARC files."""

from __future__ import annotations

import gzip
import importlib.util
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, cast

from pydantic import Field

from stages.contract import Chunk, Params, Unit, knob, source
from stages.ingest import archive, files
from stages.ingest.web import Patience, WebFile, describe, request

HEADS = 16
"""Requests at one time for sizes and checksums, one request for each file."""


class Pages(Params):
    """Which files of which dump, and which of their records are pages."""

    dump: str = knob(..., "The dump, such as CC-MAIN-2025-26.", pattern=r"^[A-Za-z0-9._-]+$")
    first: int = knob(0, "Number of the first WARC file in the dump's list.", ge=0)
    count: int = knob(1, "How many files, from the first on.", ge=1)
    base_url: str = knob("https://data.commoncrawl.org", "Where the dumps lie, as crawl-data/DUMP/warc.paths.gz.")
    bucket: str = knob("s3://commoncrawl", "The same on a store, taken when credentials for it are there; empty for never.")
    attempts: int = knob(8, "How often a request is tried when the server is busy.", ge=1)
    pause: float = knob(1.0, "Longest first pause between attempts, in seconds; it doubles each time, up to a minute.", ge=0)
    timeout: float = knob(60.0, "Longest wait for an answer, in seconds.", gt=0)
    source: str = Field("common_crawl", description="What the column `source` says of these rows.")
    types: tuple[str, ...] = Field(archive.HTML_TYPES, description="Payload types that are pages.")
    unit_bytes: int = Field(256 << 20, ge=1, description="Compressed bytes of one unit; a WARC file has about 1 GiB.")
    max_bytes: int = Field(16 << 20, ge=1, description="Largest record, and largest page after decoding; larger ones are bad.")
    keep_broken: bool = Field(False, description="Keep what was decoded of a body that breaks midway, instead of calling it bad.")


def _patience(params: Pages) -> Patience:
    return Patience(params.attempts, params.pause, params.timeout)


def _units(params: Pages) -> Iterator[Unit]:
    listed = _listed(params)
    chosen = listed[params.first : params.first + params.count]
    if len(chosen) < params.count:
        raise ValueError(
            f"{params.dump} has {len(listed)} WARC files; files {params.first} to {params.first + params.count - 1} are "
            "not all there: lower first or count"
        )
    on_store = params.bucket and has_credentials()
    with ThreadPoolExecutor(HEADS) as pool:
        described = pool.map(lambda name: describe(f"{params.base_url}/{name}", _patience(params)), chosen)
        for name, found in zip(chosen, described, strict=True):
            path = f"{params.bucket}/{name}" if on_store else f"{params.base_url}/{name}"
            size = found.size or 0
            for start, stop in files.ranges(size, params.unit_bytes):
                yield Unit(name, path, size, found.checksum, start, stop)


def _listed(params: Pages) -> list[str]:
    url = f"{params.base_url}/crawl-data/{params.dump}/warc.paths.gz"
    try:
        with request(url, _patience(params)) as answer:
            return gzip.decompress(answer.read()).decode().split()
    except FileNotFoundError as error:
        raise ValueError(f"there is no dump {params.dump!r}: {error}") from error


def has_credentials() -> bool:
    """Whether S3 can be read as somebody: the library is there and one of the usual places holds a key."""
    named = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    there = any(os.environ.get(name) for name in named) or (Path.home() / ".aws" / "credentials").exists()
    return there and importlib.util.find_spec("s3fs") is not None


@source(version=1, units=_units, writes=archive.WRITES, transient=["html"])
def pages(unit: Unit, params: Pages) -> Iterator[Chunk]:
    """HTTP responses that are HTML and have status 200, as `stages.ingest.warc.pages` yields them.

    The unit's name is the file's path in the dump's list, whichever way it is read. Raises ValueError for a dump or a
    file number that is not there, and OSError when the server stays busy over all attempts.
    """
    wanted = archive.Wanted(params.source, params.types, params.max_bytes, params.keep_broken)
    by_web = unit.path.startswith(("http://", "https://"))
    opened = cast("BinaryIO", WebFile(unit.path, _patience(params))) if by_web else files.open_file(unit.path)
    with closing(opened) as file:
        yield from archive.pages(file, unit, wanted)
