"""Records of web archives: framing, and going on after damage.

A record costs itself only. Plain streams go on at the next valid record header, compressed files at the next member that
inflates to one (`stages.ingest.members`). Formats: ISO 28500 (WARC/1.0, 1.1) and its drafts 0.17 and 0.18.

Offsets: bytes from the start of the file; for compressed files the start of the member. The n-th further record of one
member (files that are a single gzip stream) stands at offset + (n << 40), so that offsets are unique and lead back.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO, TypeAlias

from stages.contract import Bad
from stages.ingest.headers import MAX_HEAD, Arc, Dialect, Fields, Warc, length_of, text_of
from stages.ingest.members import PEEK, Codec, Gzip, Members, Region, Window, Zstd, size_of_rest

ORDINAL_SHIFT = 40


@dataclass(slots=True)
class Record:
    """One record: `length` is its bytes in the file; its block is data[start:stop], and not there (`huge`) over the limit."""

    offset: int
    length: int
    kind: str
    data: bytes
    start: int
    stop: int
    dialect: Dialect
    huge: bool = False

    @property
    def fields(self) -> Fields:
        """The record's header, names in lower case; parsed on each call."""
        found = self.dialect.parse(self.data)
        return found[0] if found else {}

    @property
    def block(self) -> bytes:
        """What follows the header."""
        return self.data[self.start : self.stop]


Item: TypeAlias = Record | Bad


def sole_record(dialect: Dialect, data: bytes, offset: int, length: int) -> Record | None:
    """The record that fills a member exactly; None when anything is unusual."""
    found = dialect.glance(data)
    if found is None:
        return None
    kind, start, size = found
    stop = start + size
    if len(data) < stop or (len(data) != stop + 4 and data[stop:].strip(b"\r\n")):
        return None
    return Record(offset, length, _name(kind), data, start, stop, dialect)


def _name(kind: bytes | None) -> str:
    return (text_of(kind) or "unknown").lower()


class Plain:
    """Records of an uncompressed stream, seen through a window."""

    def __init__(self, window: Window, dialect: Dialect, limit: int) -> None:
        self.window = window
        self.dialect = dialect
        self.limit = limit

    def head(self, at: int) -> tuple[Fields, int] | None:
        """The fields of the record header at `at` and where its block begins; None if no record begins there."""
        if not self.dialect.begins(self.window.slice(at, at + PEEK)):
            return None
        found = self.dialect.parse(self.window.slice(at, at + MAX_HEAD))
        return (found[0], at + found[1]) if found else None

    def next_sync(self, at: int, stop: int | None = None) -> int | None:
        """The first valid record header at or after `at` (and before `stop`)."""
        found = self.window.find(self.dialect.mark, at, stop)
        while found is not None and self.head(found) is None:
            found = self.window.find(self.dialect.mark, found + 1, stop)
        return found

    def items(self, start: int, stop: int | None) -> Iterator[Item]:
        """Records that begin in [start, stop), each with what stands between it and the next one."""
        at = self.next_sync(start, stop) if start else 0
        while at is not None and (stop is None or at < stop):
            self.window.release(at)
            found = self.head(at)
            if found is None:
                bad, at = self.gap(at)
                yield from bad
            else:
                item, at = self._item(at, *found)
                yield item
        if at is not None and self.head(at) is None:
            yield from self.gap(at)[0]

    def gap(self, start: int) -> tuple[list[Bad], int | None]:
        """What stands from `start` up to the next record, and where that begins."""
        head = self.window.slice(start, start + 64)
        following = self.next_sync(start)
        return garbage(self.window, head, start, following), following

    def _item(self, at: int, fields: Fields, block: int) -> tuple[Item, int | None]:
        """The record at `at` and where it ends; a record whose length is not confirmed by what follows is not believed."""
        size, kind = length_of(fields), _name(fields.get(b"warc-type"))
        if size is None:
            return self._lost(at, block, "no_content_length")
        if size > self.limit:
            data, end = self.window.slice(at, block), self.next_sync(block)
            return Record(at, (end or self.window.end) - at, kind, data, 0, 0, self.dialect, huge=True), end
        stop = block + size
        if not self.window.reach(stop):
            return self._lost(at, block, "truncated", f"{size} bytes declared, {self.window.end - block} there")
        end = self._after_blank(stop)
        record = Record(at, end - at, kind, self.window.slice(at, stop), block - at, stop - at, self.dialect)
        if self.head(end) is not None or not self.window.reach(end + 1) or digest_holds(fields, record.block):
            return record, end
        return self._lost(at, block, "content_length", f"no record follows the declared {size} bytes")

    def _after_blank(self, at: int) -> int:
        data = self.window.slice(at, at + 64)
        return at + len(data) - len(data.lstrip(b"\r\n"))

    def _lost(self, at: int, block: int, reason: str, detail: str = "") -> tuple[Bad, int | None]:
        following = self.next_sync(block)
        stop = size_of_rest(self.window) if following is None else following
        return Bad(at, reason, stop - at, detail), following


def digest_holds(fields: Fields, block: bytes) -> bool:
    """Whether the block digest vouches for the block: sha1 or sha256, in base 32 or hex."""
    name, _, value = fields.get(b"warc-block-digest", b"").partition(b":")
    if name.lower() not in (b"sha1", b"sha256"):
        return False
    digest = hashlib.new(name.decode().lower(), block).digest()
    return value.strip().upper() in (base64.b32encode(digest), digest.hex().upper().encode())


def garbage(window: Window, head: bytes, start: int, stop: int | None) -> list[Bad]:
    """One bad record for bytes that belong to none (they begin with `head`); nothing for padding."""
    if not head.strip(b"\r\n\0 "):
        return []
    return [Bad(start, "garbage", (size_of_rest(window) if stop is None else stop) - start, repr(head[:32]))]


class Compressed:
    """Records of a file of gzip members or zstd frames."""

    def __init__(self, members: Members, dialect: Dialect, limit: int) -> None:
        self.members = members
        self.dialect = dialect
        self.limit = limit

    def items(self, start: int, stop: int | None) -> Iterator[Item]:
        """Records of the regions that begin in [start, stop), each with what stands between it and the next one."""
        at = self.members.next_sync(start, stop) if start else 0
        while at is not None and (stop is None or at < stop):
            whole = self.members.whole(at, self.limit)
            record = sole_record(self.dialect, whole[0], at, whole[1] - at) if whole else None
            if whole and record:
                yield record
                at = whole[1]
            elif self.members.is_sync(at):
                region = Region(self.members, at)
                yield from self._items_of(region)
                at = region.end
            else:
                bad, at = self.gap(at)
                yield from bad
        if at is not None and not self.members.is_sync(at):
            yield from self.gap(at)[0]

    def gap(self, start: int) -> tuple[list[Bad], int | None]:
        """What stands from `start` up to the next region, and where that begins; members of nothing are no loss."""
        window, at = self.members.window, start
        while (whole := self.members.whole(at, PEEK)) is not None and not whole[0].strip():
            at = whole[1]
        head = window.slice(at, at + 64)
        following = self.members.next_sync(at)
        return garbage(window, head, at, following), following

    def _items_of(self, region: Region) -> Iterator[Item]:
        held: Item | None = None
        for number, item in enumerate(Plain(Window(region.read), self.dialect, self.limit).items(0, None)):
            if held is not None:
                yield held
            held = replace(item, offset=region.start + (number << ORDINAL_SHIFT))
        if held is None or region.fault:
            following = self.members.next_sync(region.end)
            region.end = size_of_rest(self.members.window) if following is None else following
            held = Bad(held.offset if held else region.start, "compression", held.length if held else 0, region.fault)
        # Of the only record of a region the length in the file is known; of others only that of their content.
        yield held if held.offset != region.start else replace(held, length=region.end - region.start)


CODECS: tuple[type[Gzip | Zstd], ...] = (Gzip, Zstd)


def _opened(file: BinaryIO, start: int) -> tuple[Window, Codec | None, Dialect]:
    """A window at `start`, and what the first bytes of the file say of compression and format."""
    window = Window(file.read)
    codec = next((kind() for kind in CODECS if window.slice(0, PEEK).startswith(kind.magic)), None)
    first = Members(window, codec, Arc()).head(0) if codec else window.slice(0, PEEK)
    dialect: Dialect = Arc() if first is not None and first.startswith(b"filedesc:") else Warc()
    if start:
        file.seek(start)
        window = Window(file.read, start)
    return window, codec, dialect


def open_items(file: BinaryIO, start: int, stop: int | None, limit: int) -> Iterator[Item]:
    """Everything in the records that begin in [start, stop) of an archive, whatever its name."""
    window, codec, dialect = _opened(file, start)
    if codec is not None:
        return Compressed(Members(window, codec, dialect), dialect, limit).items(start, stop)
    return Plain(window, dialect, limit).items(start, stop)


def can_split(file: BinaryIO, limit: int) -> bool:
    """Whether ranges of an archive can be read alone: WARC, and either plain or with a record in a second member."""
    window, codec, dialect = _opened(file, 0)
    if codec is None or isinstance(dialect, Arc):
        return codec is None and not isinstance(dialect, Arc)
    members = Members(window, codec, dialect)
    whole = members.whole(0, limit)
    return whole is not None and members.is_sync(whole[1])
