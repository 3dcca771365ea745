"""Input files: expanding paths and globs, names and witnesses, and opening, on local disks and remote stores.

A file's *name* is its path under the source root, the longest folder prefix of its pattern without a wildcard, or what
stands before `/./` in it (as rsync has it: `sources/./wiki/*.parquet` names wiki/...); names are identities, so two inputs
with one name are refused. A *witness* tells whether bytes are still the same without
reading all of them: the store's checksum, or the sha256 of the first, middle and last 64 KiB. Times never enter it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self, cast

if TYPE_CHECKING:
    from stages.ingest.members import Codec

SAMPLE = 64 << 10
CHECKSUMS = ("ETag", "etag", "e_tag", "sha256", "md5", "md5Hash", "crc32c", "content_md5")
HTTP = ("http://", "https://")
BUCKETS = ("s3://", "s3a://", "gs://", "gcs://", "az://", "abfs://", "abfss://")
WILD = re.compile(r"[*?\[]")
ROOT = "/./"
"""Where in a pattern the names begin."""

Stamp = tuple[str, int, int, int]
"""Path, size, mtime in ns and inode: while they stand still, so does the content, on this machine."""

_WITNESSES: ContextVar[MutableMapping[Stamp, str] | None] = ContextVar("witnesses", default=None)


@contextmanager
def remembered(cache: MutableMapping[Stamp, str]) -> Iterator[None]:
    """Inside of this block witnesses of local files are looked up in `cache` and added to it."""
    token = _WITNESSES.set(cache)
    try:
        yield
    finally:
        _WITNESSES.reset(token)


@dataclass(frozen=True, slots=True)
class Found:
    """One input file: its name under the source root, where to open it, its bytes and witness."""

    name: str
    path: str
    size: int
    witness: str


def listed(paths: list[str] | str) -> list[str]:
    """Patterns from a list or a comma-separated text; an empty list is a ValueError."""
    parts = [part.strip() for part in (paths.split(",") if isinstance(paths, str) else paths)]
    patterns = [part for part in parts if part]
    if not patterns:
        raise ValueError("paths is empty: name at least one file or glob")
    return patterns


def is_remote(path: str) -> bool:
    """Whether the path names a store (`s3://`, `https://`) instead of a local file."""
    return "://" in path and not path.startswith("file://")


def expand(paths: list[str] | str) -> list[Found]:
    """All files that the patterns name, sorted by name.

    Raises ValueError for a pattern that matches nothing (naming the folder and what is there) and for two files with
    one name under their roots.
    """
    found: dict[str, Found] = {}
    for pattern in listed(paths):
        for file in _remote(pattern) if is_remote(pattern) else _local(pattern):
            other = found.setdefault(file.name, file)
            if other.path != file.path:
                raise ValueError(
                    f"two inputs are called {file.name!r}: {other.path} and {file.path}; names are identities, "
                    "so name them by one glob from a folder above both, or put /./ where their names shall begin"
                )
    return [found[name] for name in sorted(found)]


def _split(pattern: str) -> tuple[str, list[str]]:
    """The folder before `/./`, the first wildcard or the file's own name, and the segments behind it."""
    root, marked, rest = pattern.partition(ROOT)
    if marked:
        return root or "/", rest.split("/")
    parts = pattern.split("/")
    plain = next((n for n, part in enumerate(parts) if WILD.search(part)), len(parts) - 1)
    return "/".join(parts[:plain]) or ("/" if pattern.startswith("/") else "."), parts[plain:]


def _local(pattern: str) -> Iterator[Found]:
    pattern = pattern.removeprefix("file://")
    root, segments = _split(os.path.expanduser(pattern))  # noqa: PTH111 (plain strings in the hot loop: 100,000 files are listed at every planning)
    cache = _WITNESSES.get()
    count = 0
    for name, entry in _walk(root, segments, ""):
        count += 1
        status = entry.stat()
        stamp = (entry.path, status.st_size, status.st_mtime_ns, status.st_ino)
        witness = cache.get(stamp) if cache is not None else None
        if witness is None:
            witness = witness_of(entry.path, status.st_size)
            if cache is not None:
                cache[stamp] = witness
        yield Found(name, entry.path, status.st_size, witness)
    if not count:
        raise ValueError(_nothing(pattern, root, _names_in(root)))


def _names_in(folder: str) -> list[str] | None:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return None


def _nothing(pattern: str, folder: str, names: list[str] | None) -> str:
    if names is None:
        return f"no file matches {pattern!r}: the folder {folder!r} is not there or cannot be read"
    there = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") if names else "nothing"
    return f"no file matches {pattern!r}: in {folder!r} there is {there}"


def _walk(folder: str, segments: list[str], prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Files below `folder` that the segments match; `**` is any number of folders, a leading dot must be spelt out."""
    segment, rest = segments[0], segments[1:]
    if segment == "**":
        yield from _walk(folder, rest or ["*"], prefix)
        for entry in _entries(folder):
            if entry.is_dir() and not entry.name.startswith("."):
                yield from _walk(entry.path, segments, f"{prefix}{entry.name}/")
        return
    matches = _matcher(segment)
    for entry in _entries(folder):
        name = entry.name
        if matches(name) is None or (name[0] == "." and segment[0] != "."):
            continue
        if rest and entry.is_dir():
            yield from _walk(entry.path, rest, f"{prefix}{name}/")
        elif not rest and entry.is_file():
            yield prefix + name, entry


def _matcher(segment: str) -> Any:
    from fnmatch import translate

    return re.compile(translate(segment) if WILD.search(segment) else re.escape(segment) + r"\Z").match


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def witness_of(path: str, size: int) -> str:
    """The sha256 of the first, middle and last 64 KiB of a local file, of all of it up to 192 KiB."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (see above)
        return _digest(cast("BinaryIO", file), size)


def _digest(file: BinaryIO, size: int) -> str:
    digest = hashlib.sha256()
    parts = [(0, size)] if size <= 3 * SAMPLE else [(start, SAMPLE) for start in (0, (size - SAMPLE) // 2, size - SAMPLE)]
    for start, length in parts:
        file.seek(start)
        digest.update(_exactly(file, length))
    return "sha256:" + digest.hexdigest()


def _behind_http(url: str) -> Iterator[Found]:
    from stages.ingest.web import WebFile, describe

    if WILD.search(url.partition("?")[0]):
        raise ValueError(f"no file matches {url!r}: HTTP servers cannot be asked for lists, so name each file")
    try:
        found = describe(url)
    except FileNotFoundError as error:
        raise ValueError(f"no file matches {url!r}: {error}") from error
    if found.size is None:
        raise ValueError(f"{url}: the server does not say how long the file is")
    witness = found.checksum
    if not witness:
        with WebFile(url) as file:
            witness = _digest(cast("BinaryIO", file), found.size)
    yield Found(url.partition("?")[0].rsplit("/", 1)[-1], url, found.size, witness)


def _remote(pattern: str) -> Iterator[Found]:
    if pattern.startswith(HTTP):
        yield from _behind_http(pattern)
        return
    system, plain = _system(pattern)
    root, _ = _split(plain)
    plain = plain.replace(ROOT, "/", 1)
    infos: dict[str, Any] = system.glob(plain, detail=True) if WILD.search(plain) else _info(system, plain)
    files = {path: info for path, info in infos.items() if info.get("type", "file") == "file"}
    if not files:
        try:
            names: list[str] | None = sorted(str(path).rsplit("/", 1)[-1] for path in system.ls(root, detail=False))
        except (OSError, NotImplementedError):
            names = None
        raise ValueError(_nothing(pattern, root, names))
    for path in sorted(files):
        info = files[path]
        url = path if "://" in path else system.unstrip_protocol(path)
        size = int(info.get("size") or 0)
        witness = _stated(info)
        if not witness:
            with system.open(path, "rb") as file:
                witness = _digest(file, size)
        yield Found(path.removeprefix(root).lstrip("/"), url, size, witness)


def _info(system: Any, path: str) -> dict[str, Any]:
    try:
        return {path: system.info(path)}
    except FileNotFoundError:
        return {}


def _stated(info: dict[str, Any]) -> str:
    for name in CHECKSUMS:
        if info.get(name):
            value = str(info[name]).strip('"')
            return f"{name.lower()}:{value}"
    return ""


def _exactly(file: BinaryIO, length: int) -> bytes:
    """So many bytes from a file that may give fewer at a time; fewer at its end."""
    parts: list[bytes] = []
    while length > 0 and (part := file.read(length)):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def open_file(path: str) -> BinaryIO:
    """The raw bytes of an input file, seekable."""
    if not is_remote(path):
        return cast("BinaryIO", Path(path.removeprefix("file://")).open("rb"))
    if path.startswith(HTTP):
        from stages.ingest.web import WebFile

        return cast("BinaryIO", WebFile(path))
    system, plain = _system(path)
    return cast("BinaryIO", system.open(plain, "rb"))


def _system(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path in it: object stores by the library that holds our own store, the rest by fsspec."""
    import fsspec

    if url.startswith(BUCKETS):
        from manifests.credentials import filesystem

        return filesystem(url), url.partition("://")[2]
    return cast("tuple[Any, str]", fsspec.core.url_to_fs(url))


def is_compressed(path: str) -> bool:
    """Whether the name says that the content is gzip or zstd."""
    return path.endswith((".gz", ".zst", ".zstd"))


def open_content(path: str) -> BinaryIO:
    """The content of an input file: gzip and zstd are inflated, whatever the number of members.

    What comes before a fault is delivered; then reading raises OSError.
    """
    from stages.ingest.members import Gzip, Zstd

    file = open_file(path)
    magic = file.read(4)
    file.seek(0)
    if magic.startswith(Gzip.magic):
        return cast("BinaryIO", Inflated(file, Gzip()))
    if magic.startswith(Zstd.magic):
        return cast("BinaryIO", Inflated(file, Zstd(64 << 10, 1 << 31)))
    return file


class Inflated:
    """The content of a compressed file, read forward only."""

    def __init__(self, file: BinaryIO, codec: Codec) -> None:
        from stages.ingest.members import Members, Region, Window

        self._file = file
        self._region = Region(Members(Window(file.read), codec, None), 0)

    def read(self, size: int) -> bytes:
        """The next piece, of any size; empty at the end. Raises OSError where the compressed data break."""
        piece = self._region.read(size)
        if not piece and self._region.fault:
            raise OSError(self._region.fault)
        return piece

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def ranges(size: int, unit_bytes: int) -> Iterable[tuple[int, int | None]]:
    """Byte ranges of about `unit_bytes`; the last one is open, a short rest is joined to the one before it."""
    count = max(1, round(size / unit_bytes))
    return [(n * unit_bytes, (n + 1) * unit_bytes if n < count - 1 else None) for n in range(count)]
