"""What the crawler met: every page, its copies, and the responses that are not pages at all."""

from __future__ import annotations

import hashlib
import itertools
import struct
import tomllib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import press
from press import HERE, Page

Headers = tuple[tuple[str, str], ...]
ODD_IP = "192.0.2.250"


@dataclass(frozen=True)
class Capture:
    """One exchange: `payload` is what follows the head of the response, exactly as the file stores it.

    `charset` is the one the page was written in, whatever its head and the response declare; `text` its lines of prose.
    """

    url: str
    ip: str
    headers: Headers
    payload: bytes
    kind: str
    status: str = "200 OK"
    mime: str = "text/html"
    lang: str | None = None
    group: str | None = None
    traits: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    charset: str | None = None

    @property
    def host(self) -> str:
        """Host of the address."""
        return urlsplit(self.url).netloc


def library() -> list[Page]:
    """Every page source, by key."""
    return [press.read(path) for path in sorted((HERE / "pages").glob("*/*.md"))]


def variants() -> dict[str, list[dict[str, Any]]]:
    """The table of copies."""
    return tomllib.loads((HERE / "variants.toml").read_text(encoding="utf-8"))


def served(page: Page, payload: bytes) -> Headers:
    """The head of a page's response. A crawler that stores decoded bodies renames what no longer holds, as Common Crawl does."""
    declared = page.meta.get("declared", "utf-8")
    coding = page.site.get("coded")
    framing = page.site.get("framed")
    return (
        ("Server", page.site["server"]),
        ("Content-Type", f"text/html; charset={declared}" if declared else "text/html"),
        *((("X-Crawler-Content-Encoding", coding), ("Vary", "Accept-Encoding")) if coding else ()),
        *((("X-Crawler-Transfer-Encoding", framing),) if framing else ()),
        ("Content-Length", str(len(payload))),
    )


def traits(page: Page) -> tuple[str, ...]:
    """What makes a page a test of more than prose."""
    kinds = {kind for kind, _ in page.blocks}
    maths = "formula" in kinds or any("<math" in line for kind, lines in page.blocks for line in lines if kind == "raw")
    named = {"code": "code" in kinds, "table": "row" in kinds, "formula": maths, "charset": "charset" in page.meta}
    return tuple(sorted([*(name for name, holds in named.items() if holds), *page.meta.get("traits", "").split()]))


def of_page(page: Page, pages: list[Page], group: str | None) -> Capture:
    """The capture of a page."""
    charset = page.meta.get("charset", "utf-8")
    payload = press.printed(page, pages).encode(charset, "xmlcharrefreplace")
    headers = served(page, payload)
    found = Capture(page.url, page.site["ip"], headers, payload, page.kind, lang=page.lang, group=group)
    return replace(found, traits=traits(page), text=tuple(press.main_text(page)), charset=charset)


def page_captures() -> Iterator[Capture]:
    """Pages, then exact copies, then near copies. All members of a family carry the key of the original as their group."""
    pages = library()
    copies = variants()
    families = {entry["of"] for entry in itertools.chain(*copies.values())}
    by_key = {page.key: page for page in pages}
    first = {page.key: of_page(page, pages, page.key if page.key in families else None) for page in pages}
    yield from first.values()
    for entry in copies["exact"]:
        yield replace(first[entry["of"]], url=entry["url"], kind="exact_dup")
    for entry in copies["near"]:
        meta = {key: value for key, value in entry.items() if key not in ("of", "edits")}
        yield of_page(press.edited(by_key[entry["of"]], entry["edits"], **meta), pages, entry["of"])


def stored_gzip(data: bytes) -> bytes:
    """A gzip stream of stored blocks, whose bytes do not depend on the zlib at hand."""
    packer = zlib.compressobj(0, zlib.DEFLATED, -15)
    body = packer.compress(data) + packer.flush()
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + body + struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)


def chunks(data: bytes, size: int = 1000) -> bytes:
    """A body in HTTP/1.1 chunked transfer coding."""
    parts = [data[i : i + size] for i in range(0, len(data), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def wired(capture: Capture) -> Capture:
    """The capture as it came over the wire, for a file whose crawler stored bodies undecoded."""
    if capture.url.endswith("/wiki/Soil"):
        payload, trait, head = stored_gzip(capture.payload), "gzip", ("Content-Encoding", "gzip")
    elif capture.url.endswith("/preserves/salted-lemons"):
        payload, trait, head = chunks(capture.payload), "chunked", ("Transfer-Encoding", "chunked")
    else:
        return capture
    kept = tuple((name, value) for name, value in capture.headers if not name.startswith(("X-Crawler", "Content-Length")))
    length = () if trait == "chunked" else (("Content-Length", str(len(payload))),)
    return replace(capture, payload=payload, headers=(*kept, head, *length), traits=(*capture.traits, trait))


def odd(url: str, kind: str, mime: str, payload: bytes, **more: Any) -> Capture:
    """A response that is not an ordinary page."""
    extra: Headers = more.pop("extra", ())
    content = (("Content-Type", mime),) if mime else ()
    headers = (("Server", "nginx"), *content, *extra, ("Content-Length", str(len(payload))))
    return Capture(url, ODD_IP, headers, payload, kind, mime=mime.partition(";")[0], **more)


def pdf() -> bytes:
    """A one-page PDF with a correct table of offsets."""
    stream = b"BT /F1 18 Tf 72 720 Td (Opening hours: Thursday to Sunday, 11 to 5) Tj ET"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out = b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n"
    places = []
    for number, body in enumerate(objects, 1):
        places.append(b"%010d 00000 n \n" % len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(objects) + 1, b"".join(places))
    return out + table + b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, len(out))


def png() -> bytes:
    """A small picture: a green slope under a blue sky, 48 by 32 pixels."""
    sky, grass = b"\x9f\xc5\xe8", b"\x6a\xa8\x4f"
    lines = [b"\0" + b"".join(grass if 2 * y > 40 - x // 2 else sky for x in range(48)) for y in range(32)]

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 48, 32, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"".join(lines), 0)) + chunk(b"IEND", b"")


SCRIPTS = b"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Map of the valley</title>
<script>window.__STATE__ = {"center": [52.1, -2.4], "zoom": 13, "layers": ["paths", "mills", "weirs"]};</script></head>
<body><div id="app"></div><noscript></noscript>
<script>(function () { var app = document.getElementById("app"); app.className = "loading"; })();</script>
<script src="/static/map.bundle.js" defer></script></body></html>
"""
MISSING = b"""<html><head><title>404 Not Found</title></head>
<body><h1>Not Found</h1><p>The requested page was not found on this server.</p></body></html>
"""
ROBOTS = b"""User-agent: *
Disallow: /admin/
Disallow: /search
Crawl-delay: 2

Sitemap: https://www.harrowvale-courier.example/sitemap.xml
"""
JSON = b'{"station": "Weir Bridge", "unit": "cm", "levels": [112, 113, 113, 115, 118, 117]}\n'


def odd_captures() -> Iterator[Capture]:
    """What lies in every crawl beside pages."""
    html = "text/html; charset=utf-8"
    yield odd("https://millbrook-museum.example/map", "scripts_only", html, SCRIPTS, lang="en")
    yield odd("https://www.harrowvale-courier.example/news/lost", "not_found", html, MISSING, status="404 Not Found", lang="en")
    yield odd("https://www.harrowvale-courier.example/robots.txt", "robots", "text/plain", ROBOTS)
    yield odd("https://millbrook-museum.example/leaflet.pdf", "pdf", "application/pdf", pdf())
    yield odd("https://millbrook-museum.example/img/slope.png", "image", "image/png", png())
    yield odd("https://river-levels.example.net/api/today.json", "json", "application/json", JSON)
    yield odd("https://www.gartenbote.example/leer", "empty", html, b"")
    moved = (("Location", "https://docs.bytegarden.example/guide/sorting"),)
    yield odd("http://bytegarden.example/sorting", "redirect", "", b"", status="301 Moved Permanently", extra=moved)


def all_captures() -> list[Capture]:
    """Every capture, in an order that mixes sites and kinds; the one to be damaged stands in the middle."""
    found = [wired(capture) for capture in itertools.chain(page_captures(), odd_captures())]
    shuffled = sorted(found, key=lambda capture: hashlib.blake2b(capture.url.encode()).digest())
    damaged = [capture for capture in shuffled if capture.kind == "corrupt"]
    good = [capture for capture in shuffled if capture.kind != "corrupt"]
    return [*good[: len(good) // 2], *damaged, *good[len(good) // 2 :]]
