"""HTTP responses out of archive records: status, headers, and the body after transfer and content coding (RFC 9110, 9112)."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import Any, TypeAlias

from stages.ingest.headers import MAX_HEAD, Fields, end_of_head, parse_fields, text_of

Bytes: TypeAlias = bytes | memoryview

STATUS = re.compile(rb"[A-Za-z]+(?:/[\d.]+)?[ \t]+(?:(\d{3})\b|[A-Za-z])")
"""A line without a number counts as 200, as in browsers (`HTTP/1.1 OK`)."""
CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([^\s;,\"']+)", re.IGNORECASE)
SLICE = 1 << 14
CHUNK_SIZE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")


@dataclass(frozen=True, slots=True)
class Response:
    """One response: `body` is still coded."""

    status: int
    fields: Fields
    body: Bytes

    @property
    def content_type(self) -> str | None:
        """The media type alone, in lower case."""
        value = text_of(self.fields.get(b"content-type"))
        return value.partition(";")[0].strip().lower() or None if value else None

    @property
    def charset(self) -> str | None:
        """The charset of the Content-Type header, in lower case."""
        found = CHARSET.search(text_of(self.fields.get(b"content-type")) or "")
        return found.group(1).lower() if found else None


class BodyError(Exception):
    """A body that cannot be decoded: `reason` for the quarantine, `start` is what was decoded before it broke."""

    def __init__(self, reason: str, detail: str, start: bytes = b"") -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.start = start


def parse(data: bytes, start: int, stop: int) -> Response | None:
    """The response in data[start:stop]; None where no status line begins it."""
    found = STATUS.match(data, start, stop)
    if found is None:
        return None
    end, body = end_of_head(data, start, min(stop, start + MAX_HEAD)) or (stop, stop)
    return Response(int(found.group(1) or 200), parse_fields(data[found.end() : end]), memoryview(data)[body:stop])


def decoded(response: Response, limit: int) -> Bytes:
    """The body as a browser sees it, at most `limit` bytes.

    A coding that is declared and not there is passed over: many archives store decoded bodies under the old headers.
    Raises BodyError for a body that breaks midway or grows over the limit.
    """
    body = response.body
    if b"chunked" in response.fields.get(b"transfer-encoding", b"").lower() and CHUNK_SIZE.match(body):
        body = _unchunked(body)
    codings = response.fields.get(b"content-encoding", b"").lower()
    for coding in reversed(codings.split(b",") if codings else []):
        body = _uncoded(bytes(body), coding.strip(), limit)
    if len(body) > limit:
        raise BodyError("too_large", f"{len(body)} bytes")
    return body


def _unchunked(body: Bytes) -> bytes:
    parts: list[Bytes] = []
    at = 0
    while True:
        found = CHUNK_SIZE.match(body, at)
        if found is None:
            raise BodyError("chunked", f"no chunk size at byte {at} of the body", b"".join(parts))
        size, start = int(found.group(1), 16), found.end()
        if size == 0:
            return b"".join(parts)
        parts.append(body[start : start + size])
        if len(parts[-1]) < size:
            raise BodyError("chunked", f"the last chunk ends after {len(parts[-1])} of {size} bytes", b"".join(parts))
        at = start + size
        at += 2 if body[at : at + 2] == b"\r\n" else body[at : at + 1] == b"\n"


def _uncoded(body: bytes, coding: bytes, limit: int) -> bytes:
    if coding in (b"gzip", b"x-gzip") and body[:2] == b"\x1f\x8b":
        return _inflated(body, zlib.decompressobj(31), limit)
    if coding == b"deflate" and body:
        return _undeflated(body, limit)
    if coding == b"br":
        return _unbrotlied(body, limit)
    if coding == b"zstd" and body[:4] == b"\x28\xb5\x2f\xfd":
        import zstandard

        with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(body) as reader:
            try:
                return _bounded(reader.read(limit + 1), limit)
            except zstandard.ZstdError as error:
                raise BodyError("content_encoding", str(error)) from error
    return body


def _bounded(body: bytes, limit: int) -> bytes:
    if len(body) > limit:
        raise BodyError("too_large", f"inflates to more than {limit} bytes")
    return body


def _inflated(body: bytes, inflater: Any, limit: int) -> bytes:
    out: list[bytes] = []
    size = 0
    try:
        # In slices, so that the start of a body that breaks is there.
        for at in range(0, len(body), SLICE):
            out.append(inflater.decompress(body[at : at + SLICE], limit + 1 - size))
            size += len(out[-1])
            if size > limit:
                raise BodyError("too_large", f"inflates to more than {limit} bytes")
    except zlib.error as error:
        raise BodyError("content_encoding", str(error), b"".join(out)) from error
    if not inflater.eof:
        raise BodyError("content_encoding", "the coded body is cut", b"".join(out))
    return b"".join(out)


def _undeflated(body: bytes, limit: int) -> bytes:
    """Deflate is zlib by the standard and raw in the wild; neither means that the body was stored decoded."""
    for bits in (zlib.MAX_WBITS, -zlib.MAX_WBITS):
        inflater = zlib.decompressobj(bits)
        try:
            inflater.decompress(body[:1024], 1)
        except zlib.error:
            continue
        if bits > 0 or body.lstrip()[:1] != b"<":
            return _inflated(body, zlib.decompressobj(bits), limit)
    return body


def _unbrotlied(body: bytes, limit: int) -> bytes:
    """Brotli has no magic: a body that looks like markup and does not decode was stored decoded."""
    import brotli

    decoder, out, size = brotli.Decompressor(), [b""], 0
    try:
        for at in range(0, len(body), SLICE):
            out.append(decoder.process(body[at : at + SLICE], output_buffer_limit=limit + 1 - size))
            size += len(out[-1])
            if size > limit:
                raise BodyError("too_large", f"inflates to more than {limit} bytes")
    except brotli.error as error:
        if body.lstrip()[:1] == b"<":
            return body
        raise BodyError("content_encoding", str(error), b"".join(out)) from error
    if not decoder.is_finished():
        raise BodyError("content_encoding", "the coded body is cut", b"".join(out))
    return b"".join(out)
