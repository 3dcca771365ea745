"""Archives made in the test: records, responses, members."""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

SHARED = Path(__file__).parents[3] / ".." / "shared" / "data" / "dev"


def record(kind: str, block: bytes, *, uri: str = "http://a.example/", newline: bytes = b"\r\n", **more: str) -> bytes:
    """One WARC record; further headers by keyword with underscores, an empty value leaves a header out."""
    fields = {
        "WARC-Type": kind,
        "WARC-Record-ID": f"<urn:test:{hashlib.sha256(block + uri.encode()).hexdigest()[:16]}>",
        "WARC-Date": "2026-01-02T03:04:05Z",
        "WARC-Target-URI": uri,
        "Content-Length": str(len(block)),
        "Content-Type": "application/http; msgtype=response",
        **{name.replace("_", "-"): value for name, value in more.items()},
    }
    lines = [b"WARC/1.0", *(f"{name}: {value}".encode() for name, value in fields.items() if value)]
    return newline.join(lines) + newline * 2 + block + b"\r\n\r\n"


def response(body: bytes, headers: str = "Content-Type: text/html; charset=utf-8", status: str = "HTTP/1.1 200 OK") -> bytes:
    """The block of a response record."""
    lines = "".join(f"{line}\r\n" for line in [status, *headers.split("\n")] if line)
    return lines.encode("latin-1") + b"\r\n" + body


def page(number: int, size: int = 40) -> bytes:
    """A response record with a page of its own."""
    noise = base64.b64encode(hashlib.shake_128(str(number).encode()).digest(size))
    return record("response", response(b"<html><body>page %d %s</body></html>" % (number, noise)), uri=f"http://a.example/{number}")


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """The functions above."""
    return SimpleNamespace(record=record, response=response, page=page, member=lambda data: gzip.compress(data, 6, mtime=0))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the repository."""
    if not SHARED.exists():
        pytest.skip("../shared is absent")
    return SHARED.resolve()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, bytes], str]:
    """Write a file and return its path."""

    def put(name: str, data: bytes) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return str(path)

    return put
