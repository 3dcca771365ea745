"""A prefix in an object store (S3 and its like; Google and Azure by the same library).

Used of the store, as S3 documents it since December 2024: a read after a write sees it, a put or a finished multipart
upload appears whole, `If-None-Match: *` and `If-Match: <etag>` make a put conditional. Nothing is renamed, appended to or
listed while a run is going on. An unfinished upload is aborted by its writer; one whose writer died costs storage until
a lifecycle rule removes it (docs/cluster.md).

Credentials, region and endpoint come from where they always are: the environment, the shared files in ~/.aws with
AWS_PROFILE, a web identity, the container or the instance. They are never written anywhere.
"""

from __future__ import annotations

import hashlib
import io
import os
import random
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast
from uuid import uuid4

from manifests.credentials import client
from manifests.lease import Lease, lease_of, living
from manifests.place import Lock, Log, StoreError
from manifests.spool import spool, sweep_spools

T = TypeVar("T")
MULTIPART = 16 << 20
"""Bytes of a piece of a multipart upload, and the size above which there is one."""
TRIES = 8
PAUSE = 0.2
"""Seconds before the first retry; doubled each time up to 20, of which a uniform share is waited (full jitter, AWS 2015)."""
SEGMENT = 1 << 20
"""Bytes at which a segment of a log is full: what one more line costs to write again."""
EVERY = 2.0
"""Seconds for which appended lines may wait: what a killed driver makes again at most."""
PASSING = ("429", "500 ", "502 ", "503 ", "504 ", "SlowDown", "RequestTimeout", "timed out", "timeout", "error sending request",
           "connection", "error decoding response body", "retry", "InternalError", "TooManyRequests", "dispatch")  # fmt: skip
"""What a fault says of itself when trying again may help."""


def passes(error: Exception) -> bool:
    """Whether a fault of the store may be gone at the next try: throttling, a server's trouble, a lost connection."""
    if isinstance(error, FileNotFoundError | PermissionError | ValueError):
        return False
    return isinstance(error, ConnectionError | TimeoutError) or any(word in str(error) for word in PASSING)


def patiently(what: str, call: Callable[[], T]) -> T:
    """Do it, again where the fault passes; OSError with one clear line when it does not."""
    from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

    for number in range(TRIES):
        try:
            return call()
        except (AlreadyExistsError, PreconditionError, FileNotFoundError):
            raise
        except (BaseError, OSError) as error:
            if not passes(error) or number + 1 == TRIES:
                raise OSError(f"{what}: {_plain(error)}") from error
            time.sleep(random.uniform(0, min(PAUSE * 2**number, 20)))
    raise AssertionError("unreachable")


def _plain(error: Exception) -> str:
    """The first lines of a fault of the store: the rest is the library's own debug form."""
    text = str(error).split("\n\nDebug source", 1)[0].replace("\n", " ")
    return text[:400]


class Bucket:
    """An object store below `root` (`s3://bucket/prefix`)."""

    local = False

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")
        self._pid = os.getpid()
        self._opened: Any = None

    @property
    def client(self) -> Any:
        """The library's handle; made anew in a forked process."""
        if self._opened is None or self._pid != os.getpid():
            self._opened, self._pid = client(self.root), os.getpid()
        return self._opened

    def url(self, key: str) -> str:
        """The whole URL."""
        return f"{self.root}/{key}"

    def head(self, key: str) -> dict[str, Any] | None:
        """Size and etag of a key; None where there is none."""
        import obstore

        try:
            return cast("dict[str, Any]", patiently(self.url(key), lambda: obstore.head(self.client, key)))
        except FileNotFoundError:
            return None

    def exists(self, key: str) -> bool:
        """One HEAD."""
        return self.head(key) is not None

    def read(self, key: str) -> bytes:
        """One GET."""
        return self.state(key)[0]

    def state(self, key: str) -> tuple[bytes, str]:
        """Bytes and the etag they have."""
        import obstore

        def get() -> tuple[bytes, str]:
            found = obstore.get(self.client, key)
            return found.bytes().to_bytes(), str(found.meta["e_tag"])

        return patiently(self.url(key), get)

    def range(self, key: str, start: int, stop: int) -> bytes:
        """Bytes of a key from start to stop."""
        import obstore

        found: bytes = patiently(self.url(key), lambda: obstore.get_range(self.client, key, start=start, end=stop).to_bytes())
        return found

    def open(self, key: str) -> BinaryIO:
        """One HEAD now, one GET for each read."""
        found = self.head(key)
        if found is None:
            raise FileNotFoundError(f"{self.url(key)}: gone")
        return cast("BinaryIO", io.BufferedReader(Ranges(self, key, int(found["size"])), 1 << 16))

    def fetch(self, key: str) -> Path:
        """A copy that this process keeps until it ends."""
        path = spool() / "fetched" / hashlib.blake2b(self.url(key).encode(), digest_size=16).hexdigest()
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_suffix(".part")
            draft.write_bytes(self.read(key))
            draft.replace(path)
        return path

    def names(self, folder: str) -> list[str]:
        """One listing with a delimiter."""
        import obstore

        found = patiently(self.url(folder), lambda: obstore.list_with_delimiter(self.client, folder))
        paths = [*found["common_prefixes"], *(entry["path"] for entry in found["objects"])]
        return sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in paths)

    def sizes(self, folder: str) -> dict[str, int]:
        """One listing without."""
        import obstore

        listed = patiently(self.url(folder), lambda: obstore.list(self.client, folder).collect())
        return {entry["path"]: int(entry["size"]) for entry in listed}

    def put(self, key: str, data: bytes) -> None:
        """One PUT."""
        import obstore

        patiently(self.url(key), lambda: obstore.put(self.client, key, data))

    def create(self, key: str, data: bytes) -> bool:
        """One PUT with If-None-Match. A try that was answered by a lost line meets its own bytes at the next."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        try:
            patiently(self.url(key), lambda: obstore.put(self.client, key, data, mode="create"))
        except (AlreadyExistsError, PreconditionError):
            return self.read(key) == data
        return True

    def swap(self, key: str, data: bytes, etag: str | None) -> str | None:
        """Write where the etag is still this one (None: where nothing is); the new etag, or None when somebody was faster."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        mode: Any = "create" if etag is None else {"e_tag": etag}
        try:
            return str(patiently(self.url(key), lambda: obstore.put(self.client, key, data, mode=mode))["e_tag"])
        except (AlreadyExistsError, PreconditionError, FileNotFoundError):
            try:
                stands, now = self.state(key)
            except FileNotFoundError:
                return None
            return now if stands == data else None

    def remove_one(self, key: str) -> None:
        """One DELETE."""
        import obstore

        with suppress(FileNotFoundError):
            patiently(self.url(key), lambda: obstore.delete(self.client, key))

    def remove(self, folder: str) -> None:
        """A listing and deletions in batches."""
        import obstore

        paths = list(self.sizes(folder)) or [folder]
        for low in range(0, len(paths), 1000):
            with suppress(FileNotFoundError):
                patiently(self.url(folder), partial(obstore.delete, self.client, paths[low : low + 1000]))

    def drafts(self, folder: str) -> Path:
        """A spool of this process."""
        return spool() / "drafts" / hashlib.blake2b(self.url(folder).encode(), digest_size=8).hexdigest()

    def publish(self, draft: Path, key: str) -> None:
        """One PUT, or a multipart upload, which the library aborts when a piece fails for good."""
        import obstore

        big = draft.stat().st_size > MULTIPART
        patiently(
            self.url(key),
            lambda: obstore.put(self.client, key, draft, use_multipart=big, chunk_size=MULTIPART, max_concurrency=4),
        )
        draft.unlink()

    def sweep(self, folder: str) -> None:
        """Spools of processes that have died on this machine."""
        del folder
        sweep_spools()

    def log(self, key: str, *, durable: bool = True) -> Log:
        """Numbered segments below `<key>/`."""
        del durable
        return _SegmentLog(self, key)

    def read_log(self, key: str) -> bytes:
        """Segments until there is none: GETs, no listing."""
        return b"".join(data for data, _ in self.segments(key))

    def segments(self, key: str) -> list[tuple[bytes, str]]:
        """Bytes and etag of every segment."""
        found: list[tuple[bytes, str]] = []
        while True:
            try:
                found.append(self.state(segment(key, len(found))))
            except FileNotFoundError:
                return found

    def lock(self, key: str) -> Lock:
        """Name the lease of this process under the key."""
        return _Held(self, key, lease_of(self))

    def holder(self, key: str) -> str | None:
        """Read the lock and look when its lease was renewed."""
        try:
            return living(self, self.read(key).decode().split("\n")[0])
        except FileNotFoundError:
            return None

    def free(self) -> None:
        """No limit that could be asked for."""
        return


def segment(key: str, number: int) -> str:
    """Where a segment of a log lies."""
    return f"{key}/{number:06d}.jsonl"


class Ranges(io.RawIOBase):
    """Read a key by ranges."""

    def __init__(self, bucket: Bucket, key: str, size: int) -> None:
        self._bucket, self._key, self._size, self._at = bucket, key, size, 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        """One GET."""
        view = memoryview(buffer).cast("B")
        stop = min(self._at + len(view), self._size)
        if stop <= self._at:
            return 0
        data = self._bucket.range(self._key, self._at, stop)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


class _SegmentLog:
    """Lines in numbered objects of about a megabyte. The last one is written again with its etag as a condition: whoever
    was thought dead and comes back finds another etag and stops.
    """

    def __init__(self, bucket: Bucket, key: str) -> None:
        self._bucket, self._key = bucket, key
        found = bucket.segments(key)
        self._number = max(len(found) - 1, 0)
        data, etag = found[-1] if found else (b"", None)
        self._lines, self._etag, self._waiting, self._said = bytearray(data), etag, False, time.monotonic()

    def append(self, line: bytes) -> None:
        """Durable at the next flush, at most EVERY seconds later as long as lines come."""
        if len(self._lines) >= SEGMENT and not self._waiting:
            self._number, self._lines, self._etag = self._number + 1, bytearray(), None
        self._lines += line
        self._waiting = True
        if len(self._lines) >= SEGMENT or time.monotonic() - self._said > EVERY:
            self.flush()

    def flush(self) -> None:
        """Put the last segment."""
        if not self._waiting:
            return
        key = segment(self._key, self._number)
        etag = self._bucket.swap(key, bytes(self._lines), self._etag)
        if etag is None:
            raise StoreError(f"{self._bucket.url(key)}: another run has taken this object over; stop one of them and run again")
        self._etag, self._waiting, self._said = etag, False, time.monotonic()

    def close(self) -> None:
        """Flush."""
        self.flush()


class _Held:
    """A lock object that names a lease; taken over where that lease is dead."""

    def __init__(self, bucket: Bucket, key: str, lease: Lease) -> None:
        self._bucket, self._key, self._lease = bucket, key, lease
        self._mine = f"{lease.key}\n{uuid4().hex}".encode()
        lease.uses += 1
        try:
            self._take()
        except BaseException:
            lease.let_go()
            raise

    def _take(self) -> None:
        etag: str | None = None
        while self._bucket.swap(self._key, self._mine, etag) is None:
            try:
                held, etag = self._bucket.state(self._key)
            except FileNotFoundError:
                etag = None
                continue
            self._lease.outlive(held.decode().split("\n")[0], self._bucket.url(self._key))

    def close(self) -> None:
        """Let go, unless it was taken over."""
        try:
            mine = self._bucket.read(self._key) == self._mine
        except FileNotFoundError:
            mine = False
        if mine:
            self._bucket.remove_one(self._key)
        self._lease.let_go()
