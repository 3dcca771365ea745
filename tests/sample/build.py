"""Builds the packaged sample crawl and the table of truth beside this file.

    python tests/sample/build.py                 rewrite the packaged sample and truth.json
    python tests/sample/build.py --into DIR      write both into DIR instead

The same sources give the same bytes. Only the deflate streams themselves depend on zlib: the packaged file was made with
the original zlib, and a Python linked against zlib-ng writes another file with the same records.
"""

from __future__ import annotations

import argparse
import base64
import collections
import datetime as dt
import hashlib
import json
import struct
import uuid
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captures import Capture, all_captures

HERE = Path(__file__).resolve().parent
PACKAGED = HERE.parents[1] / "pipelines" / "recipes" / "sample"
NAME = "sample.warc.gz"
START = dt.datetime(2025, 7, 20, 9, 30, tzinfo=dt.UTC)
CRAWLER = "samplebot/1.0 (+https://samplebot.example/)"
WARCINFO = (
    ("isPartOf", "gristmill-sample"),
    ("publisher", "The gristmill project"),
    ("description", "A small invented crawl in several languages; no page of it was ever on the web"),
    ("software", "tests/sample/build.py"),
    ("format", "WARC File Format 1.0"),
    ("conformsTo", "http://bibnum.bnf.fr/WARC/WARC_ISO_28500_version1_latestdraft.pdf"),
)
Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Record:
    """A WARC record and what truth.json says about it."""

    type: str
    url: str | None
    head: Fields
    block: bytes
    capture: Capture | None = None


def lines(fields: Fields) -> bytes:
    """Named fields as they stand in a file."""
    return "".join(f"{name}: {value}\r\n" for name, value in fields).encode()


def sha1(data: bytes) -> str:
    """A digest in the notation of WARC files."""
    return "sha1:" + base64.b32encode(hashlib.sha1(data).digest()).decode()


def record_id(kind: str, url: str) -> str:
    """An identifier that stays the same from build to build."""
    return f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{kind} {url}')}>"


def packed(record: Record) -> bytes:
    """One gzip member: level 9, no name, time 0, Unix."""
    data = b"WARC/1.0\r\n" + lines(record.head) + b"\r\n" + record.block + b"\r\n\r\n"
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = packer.compress(data) + packer.flush()
    return b"\x1f\x8b\x08\0\0\0\0\0\x02\x03" + body + struct.pack("<II", zlib.crc32(data), len(data))


def damaged(member: bytes) -> bytes:
    """A member with sixteen bytes of its middle inverted: its head still reads as a WARC record, its end does not follow."""
    middle = len(member) // 2
    return member[:middle] + bytes(byte ^ 0xFF for byte in member[middle : middle + 16]) + member[middle + 16 :]


def warcinfo() -> Record:
    """The first record."""
    block = lines(WARCINFO)
    head = (
        ("WARC-Type", "warcinfo"),
        ("WARC-Date", START.strftime("%Y-%m-%dT%H:%M:%SZ")),
        ("WARC-Record-ID", record_id("warcinfo", NAME)),
        ("Content-Length", str(len(block))),
        ("Content-Type", "application/warc-fields"),
        ("WARC-Filename", NAME),
    )
    return Record("warcinfo", None, head, block)


def common(kind: str, capture: Capture, when: dt.datetime, block: bytes, mime: str) -> Fields:
    """The fields that all records of an exchange share; request and metadata point at the response."""
    concurrent = () if kind == "response" else (("WARC-Concurrent-To", record_id("response", capture.url)),)
    address = () if kind == "metadata" else (("WARC-IP-Address", capture.ip),)
    return (
        ("WARC-Type", kind),
        ("WARC-Date", when.strftime("%Y-%m-%dT%H:%M:%SZ")),
        ("WARC-Record-ID", record_id(kind, capture.url)),
        ("Content-Length", str(len(block))),
        ("Content-Type", mime),
        ("WARC-Warcinfo-ID", record_id("warcinfo", NAME)),
        *concurrent,
        *address,
        ("WARC-Target-URI", capture.url),
    )


def request(capture: Capture, when: dt.datetime) -> Record:
    """What the crawler asked."""
    path = capture.url.partition(capture.host)[2]
    fields = (("User-Agent", CRAWLER), ("Accept", "text/html,*/*;q=0.8"), ("Accept-Encoding", "br,gzip"), ("Host", capture.host))
    block = f"GET {path} HTTP/1.1\r\n".encode() + lines((*fields, ("Connection", "Keep-Alive"))) + b"\r\n"
    return Record("request", capture.url, common("request", capture, when, block, "application/http; msgtype=request"), block)


def response(capture: Capture, when: dt.datetime) -> Record:
    """What the server answered. The payload digest covers the stored body as it stands, chunk sizes included."""
    date = (("Date", when.strftime("%a, %d %b %Y %H:%M:%S GMT")),)
    block = f"HTTP/1.1 {capture.status}\r\n".encode() + lines((*date, *capture.headers)) + b"\r\n" + capture.payload
    head = (
        *common("response", capture, when, block, "application/http; msgtype=response"),
        ("WARC-Payload-Digest", sha1(capture.payload)),
        ("WARC-Block-Digest", sha1(block)),
        *((("WARC-Identified-Payload-Type", capture.mime),) if capture.payload else ()),
    )
    return Record("response", capture.url, head, block, capture)


def metadata(capture: Capture, when: dt.datetime) -> Record:
    """What the crawler noted: an invented fetch time."""
    block = lines((("fetchTimeMs", str(60 + len(capture.payload) % 400)),))
    return Record("metadata", capture.url, common("metadata", capture, when, block, "application/warc-fields"), block)


def records() -> list[Record]:
    """All records, seven seconds between two exchanges; every third exchange has no metadata, as in older crawls."""
    out = [warcinfo()]
    for number, capture in enumerate(all_captures()):
        when = START + dt.timedelta(seconds=7 * (number + 1))
        out += [request(capture, when), response(capture, when)]
        out += [] if number % 3 == 2 else [metadata(capture, when)]
    return out


def entry(record: Record, offset: int, length: int) -> dict[str, Any]:
    """One line of truth.json."""
    row: dict[str, Any] = {"offset": offset, "length": length, "type": record.type, "url": record.url}
    capture = record.capture
    if capture is None:
        return row
    text = "\n".join(capture.text)
    row |= {"kind": capture.kind, "status": int(capture.status[:3]), "language": capture.lang, "dup_group": capture.group}
    row |= {"charset": capture.charset, "traits": list(capture.traits), "words": len(text.split()), "chars": len(text)}
    return row | {"opens": text[:60], "closes": text[-60:]}


def built() -> tuple[bytes, str]:
    """The sample and the truth about it."""
    out = bytearray()
    rows = []
    for record in records():
        member = packed(record)
        if record.capture is not None and record.capture.kind == "corrupt":
            member = damaged(member)
        rows.append(entry(record, len(out), len(member)))
        out += member
    kinds = collections.Counter(row["kind"] for row in rows if "kind" in row)
    head = {"bytes": len(out), "sha256": hashlib.sha256(out).hexdigest(), "kinds": dict(sorted(kinds.items()))}
    listed = ",\n".join("    " + json.dumps(row, ensure_ascii=False) for row in rows)
    return bytes(out), json.dumps(head, indent=2)[:-2] + ',\n  "records": [\n' + listed + "\n  ]\n}\n"


def main() -> None:
    """Writes both files."""
    parser = argparse.ArgumentParser(description="Build the sample crawl.")
    parser.add_argument("--into", type=Path, help="folder for both files; without it they go to their places in the repository")
    into: Path | None = parser.parse_args().into
    sample, truth = built()
    (into or PACKAGED).mkdir(parents=True, exist_ok=True)
    ((into or PACKAGED) / NAME).write_bytes(sample)
    ((into or HERE) / "truth.json").write_text(truth, encoding="utf-8")
    print(f"{len(sample)} bytes, sha256 {hashlib.sha256(sample).hexdigest()}")


if __name__ == "__main__":
    main()
