"""Compressed files as lists of members: windows over a file, inflating with a limit, and finding the next good member.

A member is one gzip member or one zstd frame. A *synchronisation point* is a position where a member begins that
inflates to `WARC/`: whether a position is one depends on the bytes behind it alone, so every range of a file finds the
same ones. What stands between two of them is a *region*: usually one member with one record, at worst a whole file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from stages.ingest.headers import Dialect

BLOCK = 1 << 20
FEED = 1 << 16
PIECE = 1 << 20
KEEP = 4 << 20
"""How far behind a fault the next member is looked for: a broken member seldom inflates past its end, never that far."""
PEEK = 16


class Inflater(Protocol):
    """The part of zlib's decompression object that is used here."""

    eof: bool
    unused_data: bytes
    unconsumed_tail: bytes

    def decompress(self, data: bytes, max_length: int = 0) -> bytes:
        """Up to max_length bytes; what was not consumed stands in unconsumed_tail."""
        ...


class Codec(Protocol):
    """How one kind of member begins and is inflated."""

    magic: bytes
    faults: tuple[type[Exception], ...]

    def open(self) -> Inflater:
        """A fresh inflater for one member."""
        ...


class Gzip:
    """Gzip members through ISA-L, which inflates faster than the standard library."""

    magic = b"\x1f\x8b\x08"

    def __init__(self) -> None:
        from isal import isal_zlib

        self._open: Callable[[int], Any] = isal_zlib.decompressobj
        fault: Any = isal_zlib.error
        self.faults: tuple[type[Exception], ...] = (fault, EOFError)

    def open(self) -> Inflater:
        """A fresh inflater for one member."""
        inflater: Inflater = self._open(31)
        return inflater


class _Frame:
    """A zstd frame with the face of a zlib object: fed in small slices, because the library has no limit on output."""

    def __init__(self, inner: Any, slice_bytes: int) -> None:
        self._inner = inner
        self._slice = slice_bytes
        self.eof = False
        self.unused_data = b""
        self.unconsumed_tail = b""

    def decompress(self, data: bytes, max_length: int = 0) -> bytes:
        out, size, at = [], 0, 0
        while at < len(data) and not self._inner.eof and (not max_length or size < max_length):
            out.append(self._inner.decompress(data[at : at + self._slice]))
            size, at = size + len(out[-1]), at + self._slice
        self.eof = self._inner.eof
        self.unused_data = self._inner.unused_data + data[at:] if self.eof else b""
        self.unconsumed_tail = b"" if self.eof else data[at:]
        return b"".join(out)


class Zstd:
    """Zstandard frames.

    256 bytes of input inflate to some MiB at most, so archives are fed by that much; trusted content by more.
    """

    magic = b"\x28\xb5\x2f\xfd"

    def __init__(self, slice_bytes: int = 256, window_bytes: int = 1 << 27) -> None:
        import zstandard

        self._slice = slice_bytes
        self._window = window_bytes

        self._library = zstandard
        self.faults: tuple[type[Exception], ...] = (zstandard.ZstdError,)

    def open(self) -> Inflater:
        """A fresh inflater for one frame."""
        return _Frame(self._library.ZstdDecompressor(max_window_size=self._window).decompressobj(), self._slice)


class Window:
    """A forward view of a stream by absolute positions; bytes before `base` are forgotten."""

    def __init__(self, read: Callable[[int], bytes], start: int = 0) -> None:
        self._read = read
        self.base = start
        self.data = b""
        self.ended = False

    def grow(self) -> bool:
        """Append one block; False at the end of the stream."""
        block = b"" if self.ended else self._read(BLOCK)
        self.ended = not block
        self.data += block
        return bool(block)

    def reach(self, position: int) -> bool:
        """Whether the stream goes at least as far as `position`, after reading so far."""
        while self.base + len(self.data) < position:
            if not self.grow():
                return False
        return True

    @property
    def end(self) -> int:
        """The position behind the last byte read; the size of the stream once it has ended."""
        return self.base + len(self.data)

    def slice(self, start: int, stop: int) -> bytes:
        """The bytes between two positions, fewer at the end of the stream."""
        self.reach(stop)
        return self.data[start - self.base : stop - self.base]

    def release(self, position: int) -> None:
        """Forget what stands before `position`, once that is worth the copy."""
        cut = min(position - self.base, len(self.data))
        if cut >= BLOCK:
            self.data = self.data[cut:]
            self.base += cut

    def find(self, pattern: bytes, start: int, stop: int | None = None) -> int | None:
        """Where `pattern` begins at or after `start` (and before `stop`); None if nowhere."""
        at = start
        while stop is None or at < stop:
            found = self.data.find(pattern, max(at - self.base, 0))
            if found >= 0:
                return self.base + found if stop is None or self.base + found < stop else None
            at = max(start, self.end - len(pattern) + 1)
            self.release(min(at, self.end))
            if not self.grow():
                return None
        return None


def size_of_rest(window: Window) -> int:
    """The position of the end of the stream; reads to it and forgets on the way."""
    while window.grow():
        window.release(window.end)
    return window.end


class Members:
    """The members of one compressed file, seen through a window."""

    def __init__(self, window: Window, codec: Codec, dialect: Dialect | None) -> None:
        self.window = window
        self.codec = codec
        self.dialect = dialect

    def whole(self, at: int, limit: int) -> tuple[bytes, int] | None:
        """The content of the member at `at` and the position behind it; None if it breaks or is larger than `limit`."""
        window, inflater = self.window, self.codec.open()
        window.release(at)
        out: bytes = b""
        position = at
        try:
            while not inflater.eof and len(out) < limit:
                data = self.feed(position, at)
                if not data:
                    return None
                piece = inflater.decompress(data, limit)
                out = out + piece if out else piece
                position += len(data) - len(inflater.unused_data)
                if inflater.unconsumed_tail:
                    return None
        except self.codec.faults:
            return None
        return (out, position) if inflater.eof else None

    def feed(self, position: int, begun: int) -> bytes:
        """The next bytes for an inflater: up to where the next member may begin, so that hardly a byte is unused."""
        window = self.window
        window.reach(position + FEED)
        start = position - window.base
        skip = len(self.codec.magic) if position == begun else 0
        found = window.data.find(self.codec.magic, start + skip, start + FEED)
        return window.data[start : found if found > start else start + FEED]

    def head(self, at: int) -> bytes | None:
        """The first bytes that the member at `at` inflates to; None if no member begins there."""
        data = self.window.slice(at, at + FEED)
        if not data.startswith(self.codec.magic):
            return None
        try:
            return self.codec.open().decompress(data, PEEK)
        except self.codec.faults:
            return None

    def is_sync(self, at: int) -> bool:
        """Whether a member that begins with a record begins at `at`."""
        return self.begins(self.head(at) or b"")

    def begins(self, head: bytes) -> bool:
        """Whether a member's first bytes begin a record; never where the content is no archive."""
        return self.dialect is not None and self.dialect.begins(head)

    def next_sync(self, at: int, stop: int | None = None) -> int | None:
        """The first synchronisation point at or after `at` (and before `stop`)."""
        found = self.window.find(self.codec.magic, at, stop)
        while found is not None and not self.is_sync(found):
            found = self.window.find(self.codec.magic, found + 1, stop)
        return found


class Region:
    """The bytes that inflate from a synchronisation point on, up to the next one or to a fault.

    A member that does not begin with a record continues the one before it: such files come from tools that cut gzip
    members every so many bytes. `end` is where to go on, `fault` says what broke.
    """

    def __init__(self, members: Members, start: int) -> None:
        self._members = members
        self.start = start
        self.end = start
        self.fault = ""
        self._pieces = self._inflate()

    def read(self, _size: int) -> bytes:
        """The next piece; empty at the end of the region."""
        return next(self._pieces, b"")

    def _inflate(self) -> Iterator[bytes]:
        members = self._members
        while True:
            try:
                yield from self._member()
            except members.codec.faults as fault:
                self.fault = str(fault)
            if self.fault:
                # The broken member may have run over the beginning of the next one.
                self.end = max(self.start + 1, self.end - KEEP)
                return
            head = members.head(self.end)
            if head is None or members.begins(head):
                return

    def _member(self) -> Iterator[bytes]:
        members, inflater, begun = self._members, self._members.codec.open(), self.end
        while not inflater.eof:
            data = members.feed(self.end, begun)
            if not data:
                self.fault = "the file ends inside of a compressed member"
                return
            size, more = len(data), True
            while more and not inflater.eof:
                piece = inflater.decompress(data, PIECE)
                data = inflater.unconsumed_tail
                more = bool(data) or len(piece) == PIECE
                if piece:
                    yield piece
            self.end += size - len(inflater.unused_data)
            members.window.release(self.end - KEEP)
