"""Headers of archive records: WARC (ISO 28500 and its drafts) and ARC 1 and 2 (Internet Archive, 1996 and 2002)."""

from __future__ import annotations

import re
from typing import Protocol, TypeAlias

MAX_HEAD = 1 << 16
"""Longest record header: URIs of 20,000 characters must fit."""

HEAD_END = re.compile(rb"\r?\n\r?\n")
LINE = re.compile(rb"^([^:\r\n]+):[ \t]*([^\r\n]*)", re.MULTILINE)
FOLD = re.compile(rb"\r?\n[ \t]+(?=\S)")

Fields: TypeAlias = dict[bytes, bytes]


def text_of(value: bytes | None) -> str | None:
    """A header value as text: UTF-8, else Latin-1, which takes any byte."""
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def parse_fields(head: bytes) -> Fields:
    """Header lines as a mapping from lower-case names; folded lines are joined, the last of equal names wins."""
    if b"\n " in head or b"\n\t" in head:
        head = FOLD.sub(b" ", head)
    return {name.strip().lower(): value.rstrip() for name, value in LINE.findall(head)}


def end_of_head(data: bytes, start: int, stop: int) -> tuple[int, int] | None:
    """Where the header lines end and where what follows the empty line begins; None without an empty line."""
    found = data.find(b"\r\n\r\n", start, stop)
    # The usual line ends need no pattern; the pattern is right for mixed ones too.
    if found >= 0 and data.find(b"\n\n", start, found) < 0 and data.find(b"\n\r\n", start, found) < 0:
        return found, found + 4
    match = HEAD_END.search(data, start, stop)
    return match.span() if match else None


def length_of(fields: Fields) -> int | None:
    """Content-Length as a number; None if it is missing or none."""
    value = fields.get(b"content-length", b"")
    return int(value) if value.isdigit() and len(value) < 19 else None


class Dialect(Protocol):
    """How records of one format begin."""

    mark: bytes
    """What to look for when searching for the next record."""

    def begins(self, data: bytes) -> bool:
        """Whether a record may begin with these bytes (some 16 of them)."""
        ...

    def parse(self, data: bytes) -> tuple[Fields, int] | None:
        """The fields of the header that `data` begins with, and where the block begins; None if it is no header."""
        ...

    def glance(self, data: bytes) -> tuple[bytes, int, int] | None:
        """Type, start and length of the block of a record in the usual spelling; None says nothing."""
        ...


class Warc:
    """Records that begin with `WARC/1.1`."""

    mark = b"WARC/"
    _version = re.compile(rb"WARC/\d\.\d+[ \t]*\r?\n")
    _second = re.compile(rb"WARC/\d\.\d+[ \t]*\r?\n(?=WARC-|Content-)", re.IGNORECASE)
    """The next record inside of a header: this one was cut, and must not take the other's fields for its own."""
    _telling = (b"warc-type", b"warc-record-id", b"warc-date", b"content-length")

    def begins(self, data: bytes) -> bool:
        """Whether the version line begins here."""
        return data.startswith(self.mark)

    def parse(self, data: bytes) -> tuple[Fields, int] | None:
        """Fields and start of the block.

        Two of the four mandatory fields make a header, so that a record without a length is still seen as a record,
        and prose about the format is not.
        """
        version = self._version.match(data)
        span = end_of_head(data, version.end() - 2, MAX_HEAD) if version else None
        if version is None or span is None:
            return None
        head = data[version.end() : span[0]]
        if b"WARC/" in head and self._second.search(head):
            return None
        fields = parse_fields(head)
        return (fields, span[1]) if sum(name in fields for name in self._telling) >= 2 else None

    def glance(self, data: bytes) -> tuple[bytes, int, int] | None:
        """Type, start and length of the block; two thirds of a crawl's records need no more."""
        cut = data.find(b"\r\n\r\n", 0, MAX_HEAD)
        kind = data.find(b"\r\nWARC-Type: ", 0, cut)
        size = data.find(b"\r\nContent-Length: ", 0, cut)
        if cut < 0 or kind < 0 or size < 0 or not self._version.match(data):
            return None
        if data.find(b"\n\n", 0, cut) >= 0 or data.find(b"WARC/", 5, cut) >= 0:
            return None
        digits = data[size + 18 : data.find(b"\r\n", size + 18)]
        return (data[kind + 13 : data.find(b"\r\n", kind + 13)], cut + 4, int(digits)) if digits.isdigit() else None


class Arc:
    """Records that begin with one line: URL, address, date, type, (ARC 2: five more,) length."""

    mark = b"http"
    _schemes = (b"http://", b"https://", b"filedesc://", b"dns:", b"ftp://", b"warcinfo:")
    _line = re.compile(rb"(\S[^\r\n]*?) (\S*) (\d{14}) (\S*)(?: [^\r\n]*)? (\d+)[ ]*\r?\n")

    def begins(self, data: bytes) -> bool:
        """Whether a URL begins here."""
        return data.startswith(self._schemes)

    def parse(self, data: bytes) -> tuple[Fields, int] | None:
        """The fields under their names in WARC, and the start of the block."""
        found = self._line.match(data, 0, MAX_HEAD)
        if found is None or not self.begins(data):
            return None
        url, _, date, _, length = found.groups()
        day, time = b"-".join((date[:4], date[4:6], date[6:8])), b":".join((date[8:10], date[10:12], date[12:]))
        kind = b"response" if url.startswith(b"http") else b"resource" if url.startswith((b"dns:", b"ftp:")) else b"warcinfo"
        fields = {b"warc-type": kind, b"warc-target-uri": url, b"warc-date": day + b"T" + time + b"Z", b"content-length": length}
        return fields, found.end()

    def glance(self, data: bytes) -> tuple[bytes, int, int] | None:
        """Type, start and length of the block."""
        found = self.parse(data)
        return (found[0][b"warc-type"], found[1], int(found[0][b"content-length"])) if found else None
