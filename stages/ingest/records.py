"""Records of web archives: framing, and going on after damage.

A record costs itself only. Plain streams go on at the next valid record header, compressed files at the next member that
inflates to one (`stages.ingest.members`). Formats: ISO 28500 (WARC/1.0, 1.1) and its drafts 0.17 and 0.18.

Offsets: bytes from the start of the file; for compressed files the start of the member. The n-th further record of one
member (files that are a single gzip stream) stands at offset + (n << 40), so that offsets are unique and lead back.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO, TypeAlias

from stages.contract import Bad
from stages.ingest.members import PEEK, Codec, Gzip, Members, Region, Window, Zstd, size_of_rest

ORDINAL_SHIFT = 40
MAX_HEAD = 1 << 16
"""Longest record header; a 20,000-character URI was seen in the wild."""

VERSION = re.compile(rb"WARC/\d\.\d+[ \t]*\r?\n")
HEAD_END = re.compile(rb"\r?\n\r?\n")
TELLING = (b"warc-type", b"warc-record-id", b"warc-date", b"content-length")

Fields: TypeAlias = dict[bytes, bytes]


@dataclass(slots=True)
class Record:
    """One record: `length` is its bytes in the file, header names are lower case, `block` is None over the size limit."""

    offset: int
    length: int
    fields: Fields
    block: bytes | None

    @property
    def kind(self) -> str:
        """The record type, `unknown` where the header names none."""
        return text_of(self.fields.get(b"warc-type")) or "unknown"


Item: TypeAlias = Record | Bad


def text_of(value: bytes | None) -> str | None:
    """A header value as text: UTF-8, else Latin-1, which takes any byte."""
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def parse_fields(head: bytes) -> Fields:
    """Header lines (without the first) as a mapping; folded lines are joined, the last of equal names wins."""
    fields: Fields = {}
    name = b""
    for line in head.split(b"\n"):
        if line[:1] in b" \t" and name and line.strip():
            fields[name] += b" " + line.strip()
            continue
        name, colon, value = line.partition(b":")
        if colon:
            name = name.strip().lower()
            fields[name] = value.strip()
    return fields


def length_of(fields: Fields) -> int | None:
    """Content-Length as a number; None if it is missing or none."""
    value = fields.get(b"content-length", b"")
    return int(value) if value.isdigit() and len(value) < 19 else None


def end_of_head(data: bytes, start: int = 0) -> tuple[int, int] | None:
    """Where the header's text ends and where the block begins; None if there is no empty line in reach."""
    found = HEAD_END.search(data, start, start + MAX_HEAD)
    return found.span() if found else None


def sole_record(data: bytes, offset: int, length: int) -> Record | None:
    """The record that fills a member exactly; None when anything is unusual."""
    span = end_of_head(data)
    if span is None or not VERSION.match(data):
        return None
    fields = parse_fields(data[: span[0]])
    size = length_of(fields)
    if size is None or len(data) < span[1] + size or data[span[1] + size :].strip(b"\r\n") or b"warc-type" not in fields:
        return None
    return Record(offset, length, fields, data[span[1] : span[1] + size])


class Plain:
    """Records of an uncompressed stream, seen through a window."""

    def __init__(self, window: Window, limit: int) -> None:
        self.window = window
        self.limit = limit

    def head(self, at: int) -> tuple[Fields, int] | None:
        """The fields of the record header at `at` and where its block begins; None if no record begins there."""
        data = self.window.slice(at, at + 16)
        if not VERSION.match(data):
            return None
        data = self.window.slice(at, at + MAX_HEAD)
        span = end_of_head(data)
        if span is None:
            return None
        fields = parse_fields(data[: span[0]])
        # Two of four, so that a record without a length is seen as one, and prose about WARC files is not.
        return (fields, at + span[1]) if sum(name in fields for name in TELLING) >= 2 else None

    def next_sync(self, at: int, stop: int | None = None) -> int | None:
        """The first valid record header at or after `at` (and before `stop`)."""
        found = self.window.find(b"WARC/", at, stop)
        while found is not None and self.head(found) is None:
            found = self.window.find(b"WARC/", found + 1, stop)
        return found

    def items(self, start: int, stop: int | None) -> Iterator[Item]:
        """Records that begin in [start, stop), each with what stands between it and the next one."""
        at: int | None = start
        if start != 0 or self.head(0) is None:
            bad, at = self.gap(start, stop)
            yield from bad if start == 0 else ()
        while at is not None and (stop is None or at < stop):
            self.window.release(at)
            item, at = self._item(at)
            yield item
            if at is not None and self.head(at) is None:
                bad, at = self.gap(at)
                yield from bad

    def gap(self, start: int, stop: int | None = None) -> tuple[list[Bad], int | None]:
        """What stands from `start` up to the next record, and where that begins."""
        head = self.window.slice(start, start + 64)
        following = self.next_sync(start, stop if start else None)
        return garbage(self.window, head, start, following), following

    def _item(self, at: int) -> tuple[Item, int | None]:
        """The record at `at` and where it ends; a record whose length is not confirmed by what follows is not believed."""
        found = self.head(at)
        assert found is not None
        fields, block = found
        size = length_of(fields)
        if size is None:
            return self._lost(at, block, "no_content_length")
        if size > self.limit:
            end = self.next_sync(block)
            return Record(at, (end or self.window.end) - at, fields, None), end
        stop = block + size
        if not self.window.reach(stop):
            return self._lost(at, block, "truncated", f"{size} bytes declared, {self.window.end - block} there")
        end = self._after_blank(stop)
        body = self.window.slice(block, stop)
        if self.head(end) is not None or not self.window.reach(end + 1) or digest_holds(fields, body):
            return Record(at, end - at, fields, body), end
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

    def __init__(self, window: Window, codec: Codec, limit: int) -> None:
        self.window = window
        self.limit = limit
        self.members = Members(window, codec)

    def items(self, start: int, stop: int | None) -> Iterator[Item]:
        """Records of the regions that begin in [start, stop), each with what stands between it and the next one."""
        at: int | None = start
        if start != 0 or not self.members.is_sync(0):
            bad, at = self.gap(start, stop)
            yield from bad if start == 0 else ()
        while at is not None and (stop is None or at < stop):
            region = Region(self.members, at)
            record = self._sole(region)
            if record is not None:
                yield record
            else:
                yield from self._items_of(region)
            at = region.end
            if not self.members.is_sync(at):
                bad, at = self.gap(at)
                yield from bad

    def gap(self, start: int, stop: int | None = None) -> tuple[list[Bad], int | None]:
        """What stands from `start` up to the next region, and where that begins; members of nothing are no loss."""
        at = start
        while (whole := self.members.whole(at, PEEK)) is not None and not whole[0].strip():
            at = whole[1]
        head = self.window.slice(at, at + 64)
        following = self.members.next_sync(at, stop if start else None)
        return garbage(self.window, head, at, following), following

    def _sole(self, region: Region) -> Record | None:
        whole = self.members.whole(region.start, self.limit)
        record = sole_record(whole[0], region.start, whole[1] - region.start) if whole else None
        if whole and record:
            region.end = whole[1]
        return record

    def _items_of(self, region: Region) -> Iterator[Item]:
        held: Item | None = None
        for number, item in enumerate(Plain(Window(region.read), self.limit).items(0, None)):
            if held is not None:
                yield held
            held = replace(item, offset=region.start + (number << ORDINAL_SHIFT))
        if held is None or region.fault:
            held = Bad(held.offset if held else region.start, "compression", held.length if held else 0, region.fault)
        # Of the only record of a region the length in the file is known; of others only that of their content.
        yield held if held.offset != region.start else replace(held, length=region.end - region.start)


CODECS: tuple[type[Gzip | Zstd], ...] = (Gzip, Zstd)


def open_items(file: BinaryIO, start: int, stop: int | None, limit: int) -> Iterator[Item]:
    """Everything in the records that begin in [start, stop) of an archive; its first bytes say how it is compressed."""
    magic = file.read(4)
    file.seek(start)
    window = Window(file.read, start)
    for codec in CODECS:
        if magic.startswith(codec.magic):
            return Compressed(window, codec(), limit).items(start, stop)
    return Plain(window, limit).items(start, stop)


def can_split(file: BinaryIO, limit: int) -> bool:
    """Whether ranges of an archive can be read alone: it is plain, or a second member begins a record."""
    magic = file.read(4)
    file.seek(0)
    for codec in CODECS:
        if magic.startswith(codec.magic):
            members = Members(Window(file.read), codec())
            whole = members.whole(0, limit)
            return whole is not None and members.is_sync(whole[1])
    return True
