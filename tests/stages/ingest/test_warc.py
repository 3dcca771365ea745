from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from pathlib import Path

import brotli
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.contract import CORE, Chunk
from stages.ingest import response
from stages.ingest.warc import pages

LIMIT = 1 << 20
BODY = b"<html><body>" + "Grüße aus der Mühle. ".encode() * 50 + b"</body></html>"


def read(paths, **params) -> list[Chunk]:
    chosen = pages.params(paths=paths, **params)
    chunks = [chunk for unit in pages.units(chosen) for chunk in pages(unit, chosen)]
    for chunk in chunks:
        assert chunk.records == chunk.rows.num_rows + sum(chunk.skipped.values()) + len(chunk.bad)
    return chunks


def rows(chunks: list[Chunk]) -> list[dict[str, object]]:
    return [row for chunk in chunks for row in chunk.rows.to_pylist()]


def skipped(chunks: list[Chunk]) -> Counter[str]:
    return sum((Counter(chunk.skipped) for chunk in chunks), Counter())


def test_a_response_becomes_a_row_with_the_core_columns(make, write):
    block = make.response(BODY, 'Content-Type: Text/HTML; Charset="ISO-8859-1"\nServer: x')
    data = make.member(make.record("warcinfo", b"software: test")) + make.member(
        make.record("response", block, uri="http://b.example/x")
    )
    (chunk,) = read(write("a.warc.gz", data), source="test")
    declared = {**{name: kind for name, kind in CORE.items() if name != "id"}, **pages.writes_of(pages.params())}
    assert chunk.rows.schema == pa.schema(list(declared.items()))
    start = len(make.member(make.record("warcinfo", b"software: test")))
    assert rows([chunk]) == [
        {
            "url": "http://b.example/x",
            "source": "test",
            "date": "2026-01-02T03:04:05Z",
            "language": None,
            "origin": {"unit": "a.warc.gz", "offset": start, "length": len(data) - start},
            "html": BODY,
            "charset": "iso-8859-1",
            "content_type": "text/html",
            "status": 200,
        }
    ]
    assert chunk.skipped == {"warcinfo": 1}


def test_a_row_can_be_read_again_from_its_origin_alone(make, write):
    path = write("a.warc.gz", b"".join(make.member(make.page(number)) for number in range(6)))
    wanted = rows(read(path))[4]
    (unit,) = pages.units(pages.params(paths=path))
    at = wanted["origin"]["offset"]
    one = type(unit)(unit.name, unit.path, unit.size, unit.witness, at, at + 1)
    assert rows(list(pages(one, pages.params(paths=path)))) == [wanted]


def test_what_is_no_page_is_counted_by_kind(make, write):
    html = make.response(BODY)
    records = [
        make.record("request", b"GET / HTTP/1.1\r\n\r\n"),
        make.record("revisit", html),
        make.record("response", make.response(BODY, status="HTTP/1.1 404 Not Found")),
        make.record("response", make.response(b"%PDF-1.7", "Content-Type: application/pdf")),
        make.record("response", make.response(b"%PDF-1.7 <html>", "Content-Type: text/html")),
        make.record("response", make.response(b" \r\n\0", "Content-Type: text/html")),
        make.record("response", b"20260101 1.2.3.4", Content_Type="text/dns"),
        make.record("response", html, WARC_Type=""),
        make.record("response", html, WARC_Identified_Payload_Type="image/png"),
        make.record("response", make.response(b"plain words", "Content-Type: text/plain")),
    ]
    chunks = read(write("a.warc.gz", b"".join(map(make.member, records))))
    assert rows(chunks) == []
    assert skipped(chunks) == {
        "request": 1, "revisit": 1, "status_404": 1, "non_html": 4, "empty": 1, "not_http": 1, "unknown": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Content-Type: text/html", "HTTP/2 200"),
        ("Content-Type: application/xhtml+xml", "ICY 200 OK"),
        ("", "HTTP/1.0 200 OK"),
        ("Content-Type: application/octet-stream", "HTTP/1.1 200"),
        ("Content-Type: text/plain", "HTTP/1.1 OK"),
        ("Content-Type:\n text/html", "HTTP/1.1 200 OK"),
        ("Content-Length: 5\nContent-Type: text/html", "HTTP/1.1 200 OK"),
        ("X-Caf\xe9: \xff\nContent-Type: text/html", "HTTP/1.1 200 OK"),
    ],
)
def test_pages_with_odd_headers_are_pages(make, write, headers, status):
    (row,) = rows(read(write("a.warc", make.record("response", make.response(BODY, headers, status)))))
    assert row["html"] == BODY


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def chunked(data: bytes, sizes: list[int]) -> bytes:
    out = b""
    for size in sizes:
        part, data = data[:size], data[size:]
        out += b"%x;x=y\r\n%b\r\n" % (len(part), part) if part else b""
    return out + (b"%X\r\n%b\r\n" % (len(data), data) if data else b"") + b"0\r\n\r\n"


CODINGS = {"gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress, "Deflate": raw_deflate, "br": brotli.compress}


@settings(max_examples=120, deadline=None)
@given(
    body=st.binary(max_size=3000),
    codings=st.lists(st.sampled_from(sorted(CODINGS)), max_size=2),
    sizes=st.lists(st.integers(1, 400), max_size=5),
    cut=st.booleans(),
)
def test_bodies_come_back_from_every_coding(body, codings, sizes, cut):
    body = b"<html>" + body
    coded = body
    for coding in codings:
        coded = CODINGS[coding](coded)
    fields = {b"content-encoding": ", ".join(codings).lower().encode()}
    if cut:
        coded, fields[b"transfer-encoding"] = chunked(coded, sizes), b"Chunked"
    assert bytes(response.decoded(response.Response(200, fields, coded), 1 << 16)) == body


@pytest.mark.parametrize(
    "header", ["Transfer-Encoding: chunked", *(f"Content-Encoding: {name}" for name in ("gzip", "deflate", "br", "zstd"))]
)
def test_a_coding_that_is_declared_and_not_there_is_passed_over(make, write, header):
    block = make.response(BODY, f"Content-Type: text/html\n{header}")
    (row,) = rows(read(write("a.warc", make.record("response", block))))
    assert row["html"] == BODY


BREAKS = {
    "chunked": ("Transfer-Encoding: chunked", chunked(BODY, [100])[:90] + b"zz\r\nrest"),
    "content_encoding": ("Content-Encoding: gzip", gzip.compress(bytes(range(256)) * 400)[:-100]),
    "too_large": ("Content-Encoding: gzip", gzip.compress(b"<html>" + b"\0" * (2 * LIMIT))),
}


@pytest.mark.parametrize("reason", sorted(BREAKS))
def test_a_body_that_breaks_costs_its_record_only(make, write, reason):
    header, body = BREAKS[reason]
    records = [make.page(1), make.record("response", make.response(body, f"Content-Type: text/html\n{header}")), make.page(2)]
    path = write("a.warc.gz", b"".join(map(make.member, records)))
    chunks = read(path, max_bytes=LIMIT)
    assert [row["url"] for row in rows(chunks)] == ["http://a.example/1", "http://a.example/2"]
    (bad,) = (bad for chunk in chunks for bad in chunk.bad)
    assert (bad.reason, bad.offset, bad.length) == (reason, len(make.member(records[0])), len(make.member(records[1])))
    kept = rows(read(path, max_bytes=LIMIT, keep_broken=True))
    assert len(kept) == (2 if reason == "too_large" else 3)


def test_a_record_over_the_limit_is_bad_when_it_is_a_response_and_skipped_when_not(make, write):
    big = make.response(b"<html>" + b"x" * (2 * LIMIT))
    chunks = read(
        write("a.warc.gz", make.member(make.record("response", big)) + make.member(make.record("metadata", big))), max_bytes=LIMIT
    )
    assert [bad.reason for chunk in chunks for bad in chunk.bad] == ["too_large"]
    assert skipped(chunks) == {"metadata": 1}


def test_chunks_are_bounded(make, write):
    small = read(write("small.warc.gz", b"".join(make.member(make.page(number)) for number in range(600))))
    assert [chunk.rows.num_rows for chunk in small] == [256, 256, 88]
    body = b"<html>" + bytes(3 << 20)
    large = read(write("large.warc.gz", make.member(make.record("response", make.response(body))) * 7))
    assert [chunk.rows.num_rows for chunk in large] == [3, 3, 1]


def test_units_are_ranges_only_where_a_file_can_be_read_in_parts(make, write):
    members = write("members.warc.gz", b"".join(make.member(make.page(number, 4000)) for number in range(40)))
    single = write("single.warc.gz", make.member(b"".join(make.page(number, 4000) for number in range(40))))
    size = Path(members).stat().st_size
    units = list(pages.units(pages.params(paths=[members, single], unit_bytes=size // 4)))
    assert [(unit.name, unit.start) for unit in units] == [
        *(("members.warc.gz", number * (size // 4)) for number in range(4)),
        ("single.warc.gz", 0),
    ]
    assert [unit.stop for unit in units][3:] == [None, None]
    assert len({unit.key for unit in units}) == 5
    for path in (members, single):
        assert [row["url"] for row in rows(read(path, unit_bytes=size // 4))] == [
            f"http://a.example/{number}" for number in range(40)
        ]


# The archive's own oddities: what a reader must give up, by the truth's word for it.
GIVEN_UP = {"chunked with bad chunk size midway", "Content-Encoding: gzip truncated"}


def test_the_pages_of_the_development_crawl_are_found(shared: Path):
    folder = shared / "crawl"
    truth = [json.loads(line) for line in gzip.decompress((folder / "truth.jsonl.gz").read_bytes()).splitlines()]
    usable = {(t["file"], t["offset"]): t for t in truth if t.get("html_usable") and t.get("status") == 200}
    soft = {(t["file"], t["offset"]) for t in truth if t["kind"] == "soft404"}
    chunks = read(str(folder / "*.warc.gz"))
    found = {(o["unit"], o["offset"]): o["length"] for chunk in chunks for o in chunk.rows["origin"].to_pylist()}
    assert {usable[key]["quirk"] for key in usable.keys() - found.keys()} == GIVEN_UP
    assert found.keys() - usable.keys() == soft
    assert all(found[key] == usable[key]["length"] for key in found.keys() & usable.keys())
    assert sorted(bad.reason for chunk in chunks for bad in chunk.bad) == ["chunked", "content_encoding"]
    kept = {
        (o["unit"], o["offset"]) for c in read(str(folder / "*quirks*.gz"), keep_broken=True) for o in c.rows["origin"].to_pylist()
    }
    assert {key for key in usable if "quirks" in key[0]} <= kept
