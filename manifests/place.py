"""Where bytes lie: a folder on a local disk, or a prefix in an object store. One set of operations for both.

A place promises, and its class says by what means:

    put       a key holds all of the new bytes or all of the old ones, never a mixture
    create    of several writers of one key, one wins; it and those who wrote the same bytes are told so
    publish   a file that was finished on this machine appears whole under its key, or not at all
    log       appended lines survive the writer; a second writer is told that it is not alone
    lock      one holder at a time; a dead holder does not keep it

Whoever needs more than these (a rename, a listing of many keys, a change in the middle of a file) would not run on both.
Keys are relative to the root of the place; `url` says the whole of it. Functions below take whole URLs.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from threading import get_ident
from typing import IO, BinaryIO, Protocol, cast

import pyarrow as pa
import pyarrow.parquet as pq


class StoreError(Exception):
    """The store cannot do what was asked; the message names the place, the fault and the way out."""


class Log(Protocol):
    """Lines that are only appended."""

    def append(self, line: bytes) -> None:
        """Take a line with its newline. StoreError when somebody else has written here."""
        ...

    def flush(self) -> None:
        """Every line taken so far is durable when this returns."""
        ...

    def close(self) -> None:
        """Flush, and end."""
        ...


class Lock(Protocol):
    """Something held."""

    def close(self) -> None:
        """Let go."""
        ...


class Place(Protocol):
    """A root and what can be done below it. Missing keys raise FileNotFoundError."""

    root: str
    local: bool
    """Whether this machine's file system holds it: then urls are paths."""

    def url(self, key: str) -> str:
        """The whole address of a key."""
        ...

    def exists(self, key: str) -> bool:
        """Whether a key holds something."""
        ...

    def read(self, key: str) -> bytes:
        """All bytes of a key."""
        ...

    def open(self, key: str) -> BinaryIO:
        """A seekable file that fetches only what is read."""
        ...

    def range(self, key: str, start: int, stop: int) -> bytes:
        """Bytes from start to stop."""
        ...

    def fetch(self, key: str) -> Path:
        """A file on this machine with the bytes of a key that never change."""
        ...

    def names(self, folder: str) -> list[str]:
        """Sorted names directly below a folder: a listing, so never of parts while a run is going on."""
        ...

    def sizes(self, folder: str) -> dict[str, int]:
        """Keys anywhere below a folder, with their bytes: a listing as well."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Write a key whole; the last writer wins."""
        ...

    def create(self, key: str, data: bytes) -> bool:
        """Write a key that nobody has written; the first writer wins. Whether these bytes are what stands."""
        ...

    def remove(self, folder: str) -> None:
        """Remove a key, or everything below it; nothing there is no error."""
        ...

    def drafts(self, folder: str) -> Path:
        """A folder on this machine for files that will be published below `folder`."""
        ...

    def publish(self, draft: Path, key: str) -> None:
        """Make a finished draft appear under its key; the draft is gone then."""
        ...

    def sweep(self, folder: str) -> None:
        """Remove drafts that dead writers left. The caller holds the lock of the folder."""
        ...

    def log(self, key: str, *, durable: bool = True) -> Log:
        """Open for appending; a torn last line is cut off. Where not durable, the last lines may be lost with the machine."""
        ...

    def read_log(self, key: str) -> bytes:
        """Everything appended so far; empty where there is no log."""
        ...

    def lock(self, key: str) -> Lock:
        """Hold a key. StoreError when a living holder has it."""
        ...

    def holder(self, key: str) -> str | None:
        """Who holds a key, in words; None when nobody does, or nobody who shows a sign of life."""
        ...

    def free(self) -> int | None:
        """Bytes that can still be written; None where there is no such limit."""
        ...


def is_url(root: str) -> bool:
    """Whether a root names an object store rather than a folder."""
    return "://" in root and not root.startswith("file://")


@lru_cache(maxsize=64)
def place_of(root: str) -> Place:
    """The place of a root: `s3://`, `gs://`, `az://` and their like are object stores, everything else is a folder."""
    if is_url(root):
        from manifests.bucket import Bucket

        return Bucket(root)
    return Folder(str(Path(root.removeprefix("file://"))) if root else "")


def at(url: str) -> tuple[Place, str]:
    """The place and the key of a whole URL."""
    if is_url(url):
        scheme, _, rest = url.partition("://")
        bucket, _, key = rest.partition("/")
        return place_of(f"{scheme}://{bucket}"), key
    return place_of(""), url.removeprefix("file://")


def exists(url: str) -> bool:
    """Whether something lies there."""
    place, key = at(url)
    return place.exists(key)


def open_url(url: str) -> BinaryIO:
    """A seekable file that fetches only what is read."""
    place, key = at(url)
    return place.open(key)


def fetch(url: str) -> Path:
    """A file on this machine with these bytes, which never change."""
    place, key = at(url)
    return place.fetch(key)


def read_range(url: str, start: int, length: int) -> pa.Buffer:
    """So many bytes from there on: mapped from a disk, one request to an object store."""
    place, key = at(url)
    if not place.local:
        return pa.py_buffer(place.range(key, start, start + length))
    with pa.memory_map(key) as file:
        file.seek(start)
        return file.read_buffer(length)


def written(url: str) -> int:
    """When a file on a disk was written (nanoseconds), to know a remembered one from a newer; 0 in an object store, where a
    key below an object keeps its bytes for good.
    """
    place, key = at(url)
    return Path(key).stat().st_mtime_ns if place.local else 0


def read_parquet(url: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Columns of a Parquet file: mapped from a disk, by ranges from an object store. FileNotFoundError where it is gone."""
    place, key = at(url)
    names = None if columns is None else list(columns)
    if place.local:
        return pq.read_table(key, columns=names, use_threads=False, memory_map=True, partitioning=None)
    with place.open(key) as file:
        return pq.ParquetFile(file, pre_buffer=True).read(columns=names, use_threads=False)


class Folder:
    """A folder on a local disk.

    Used of the file system: rename within a folder is atomic, fsync is durable, flock is exclusive and dropped by the
    kernel with its holder, however it dies. Local disks give these, and NFS from version 4.
    """

    local = True

    def __init__(self, root: str) -> None:
        self.root = root

    def _path(self, key: str) -> Path:
        return Path(self.root) / key

    def url(self, key: str) -> str:
        """A path."""
        return str(self._path(key))

    def exists(self, key: str) -> bool:
        """A file or a folder."""
        return self._path(key).exists()

    def read(self, key: str) -> bytes:
        """All bytes."""
        return self._path(key).read_bytes()

    def open(self, key: str) -> BinaryIO:
        """The file itself."""
        return cast("BinaryIO", self._path(key).open("rb"))

    def range(self, key: str, start: int, stop: int) -> bytes:
        """Seek and read."""
        with self.open(key) as file:
            file.seek(start)
            return file.read(stop - start)

    def fetch(self, key: str) -> Path:
        """The file itself."""
        return self._path(key)

    def names(self, folder: str) -> list[str]:
        """Files and folders; drafts begin with a dot and are left out."""
        try:
            return sorted(name for name in os.listdir(self._path(folder)) if not name.startswith("."))
        except FileNotFoundError:
            return []

    def sizes(self, folder: str) -> dict[str, int]:
        """Every file below."""
        found = [p for p in self._path(folder).rglob("*") if p.is_file()]
        return {str(p.relative_to(self.root or ".")): p.stat().st_size for p in found}

    def put(self, key: str, data: bytes) -> None:
        """Draft, fsync, rename."""
        replace_file(self._path(key), data)

    def create(self, key: str, data: bytes) -> bool:
        """Draft, fsync, link: linking fails where the name is taken."""
        path = self._path(key)
        draft = _written(path, data)
        try:
            os.link(draft, path)
        except FileExistsError:
            return path.read_bytes() == data
        finally:
            draft.unlink()
        return True

    def remove(self, folder: str) -> None:
        """A file or a tree."""
        path = self._path(folder)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def drafts(self, folder: str) -> Path:
        """Beside the parts: the same file system, so that rename is atomic."""
        return self._path(folder) / "drafts"

    def publish(self, draft: Path, key: str) -> None:
        """Rename."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.replace(path)

    def sweep(self, folder: str) -> None:
        """The drafts of this folder: whoever wrote them did not hold the lock."""
        shutil.rmtree(self.drafts(folder), ignore_errors=True)

    def log(self, key: str, *, durable: bool = True) -> Log:
        """A file `<key>.jsonl`."""
        return _FileLog(self._path(f"{key}.jsonl"), durable)

    def read_log(self, key: str) -> bytes:
        """The file, with the line that a kill may have torn."""
        path = self._path(f"{key}.jsonl")
        return path.read_bytes() if path.exists() else b""

    def lock(self, key: str) -> Lock:
        """An exclusive flock."""
        return _flock(self._path(key))

    def holder(self, key: str) -> str | None:
        """Ask for the flock without taking it."""
        path = self._path(key)
        if not path.exists():
            return None
        with path.open("r") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return f"process {file.read().strip()}"
        return None

    def free(self) -> int:
        """Free bytes of the file system."""
        return shutil.disk_usage(self.root).free


class _FileLog:
    """Flushed to the disk with every line: a local fsync takes milliseconds."""

    def __init__(self, path: Path, durable: bool) -> None:
        self._durable = durable
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
        self._file = path.open("ab")

    def append(self, line: bytes) -> None:
        """Durable when this returns."""
        self._file.write(line)
        self._file.flush()
        if self._durable:
            os.fsync(self._file.fileno())

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _flock(path: Path) -> IO[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        raise StoreError(
            f"{path.parent}: another run (process {holder}) is writing here; wait for it, or stop it and run again"
        ) from error
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _written(path: Path, data: bytes) -> Path:
    """A draft beside a file, flushed to the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}-{get_ident()}")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return draft


def replace_file(path: Path, data: bytes) -> None:
    """Write a small file whole: draft, fsync, rename."""
    _written(path, data).replace(path)
