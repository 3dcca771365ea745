from __future__ import annotations

import gzip
import io
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from stages.ingest import files, web
from stages.ingest.common_crawl import pages

DUMP = "CC-MAIN-2026-01"


@pytest.fixture
def server(make) -> Iterator[SimpleNamespace]:
    """A real server on loopback with a dump of three files; `faults` says how to fail the next requests."""
    names = [f"crawl-data/{DUMP}/segments/1/warc/file-{number}.warc.gz" for number in range(3)]
    content = {
        f"/{name}": b"".join(make.member(make.page(100 * number + page, 3000)) for page in range(30))
        for number, name in enumerate(names)
    }
    content[f"/crawl-data/{DUMP}/warc.paths.gz"] = gzip.compress("\n".join(names).encode() + b"\n")
    state = SimpleNamespace(content=content, names=names, faults=[], seen=Counter(), ranges=True)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, body):
            state.seen[self.command] += 1
            fault = state.faults.pop(0) if state.faults else None
            data = state.content.get(self.path)
            if isinstance(fault, int):
                self.reply(fault, b"<Code>SlowDown</Code>" if body else b"")
            elif data is None:
                self.reply(404, b"")
            else:
                self.send(data, body, fault == "cut")

        def send(self, data, body, cut):
            start = int(self.headers["Range"][6:].split("-")[0]) if "Range" in self.headers and state.ranges else 0
            if start and start >= len(data):
                self.reply(416, b"")
                return
            part = data[start:]
            self.send_response(206 if "Range" in self.headers and state.ranges else 200)
            self.send_header("Content-Length", str(len(part)))
            self.send_header("ETag", f'"{hash(data) & 0xFFFF:x}"')
            self.end_headers()
            if body:
                self.wfile.write(part[: len(part) // 2] if cut else part)
            if cut:
                self.close_connection = True

        def reply(self, status, text):
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        state.url = f"http://127.0.0.1:{http.server_address[1]}"
        yield state
        http.shutdown()
        thread.join()


def params(server, **more):
    return pages.params(dump=DUMP, base_url=server.url, bucket="", pause=0.001, timeout=5, **more)


def urls(units, chosen):
    return [row["url"] for unit in units for chunk in pages(unit, chosen) for row in chunk.rows.to_pylist()]


def expected(*numbers):
    return [f"http://a.example/{100 * number + page}" for number in numbers for page in range(30)]


def test_files_are_chosen_by_number_and_read_in_ranges(server):
    chosen = params(server, first=1, count=2, unit_bytes=20_000)
    units = list(pages.units(chosen))
    assert [unit.name for unit in units] == [name for name in server.names[1:] for _ in range(len(units) // 2)]
    assert len(units) > 4
    assert all(unit.witness.startswith("etag:") and unit.size == len(server.content[f"/{unit.name}"]) for unit in units)
    assert urls(units, chosen) == expected(1, 2)


def test_a_busy_server_is_asked_again(server):
    chosen = params(server)
    server.faults = [503, 429]
    units = list(pages.units(chosen))
    server.faults = [503, 500, 503]
    assert urls(units, chosen) == expected(0)
    assert server.faults == []


def test_a_connection_that_breaks_is_taken_up_where_it_broke(server):
    chosen = params(server)
    units = list(pages.units(chosen))
    server.faults = ["cut", "cut", 503, "cut"]
    assert urls(units, chosen) == expected(0)
    assert server.faults == []


def test_a_server_that_stays_busy_is_given_up_with_its_last_word(server):
    server.faults = [503] * 3
    with pytest.raises(OSError, match=r"warc.paths.gz: given up after 3 attempts; the last fault was HTTP Error 503"):
        list(pages.units(params(server, attempts=3)))


def test_a_dump_or_a_number_that_is_not_there_is_refused(server):
    with pytest.raises(ValueError, match="has 3 WARC files; files 2 to 4 are not all there"):
        list(pages.units(params(server, first=2, count=3)))
    with pytest.raises(ValueError, match="there is no dump 'CC-MAIN-1999-01'"):
        list(pages.units(pages.params(dump="CC-MAIN-1999-01", base_url=server.url)))


def test_a_store_is_taken_when_there_are_credentials(server, monkeypatch):
    from stages.ingest import common_crawl

    monkeypatch.setattr(common_crawl, "has_credentials", lambda: True)
    chosen = pages.params(dump=DUMP, base_url=server.url, bucket="memory://commoncrawl")
    (unit,) = pages.units(chosen)
    assert unit.path == f"memory://commoncrawl/{server.names[0]}"
    by_web = next(iter(pages.units(params(server))))
    assert unit.key == by_web.key
    import fsspec

    fsspec.filesystem("memory").pipe(f"/commoncrawl/{server.names[0]}", server.content[f"/{server.names[0]}"])
    assert urls([unit], chosen) == expected(0)


def test_a_web_file_seeks_and_ends(server):
    data = server.content[f"/{server.names[0]}"]
    with web.WebFile(f"{server.url}/{server.names[0]}", web.Patience(3, 0.001, 5)) as file:
        assert file.seek(-10, io.SEEK_END) == len(data) - 10
        assert file.read() == data[-10:]
        assert file.read(5) == b""
        file.seek(7)
        assert file.read(20) == data[7:27]
        file.seek(len(data) + 5)
        assert file.read(1) == b""
        server.ranges = False
        file.seek(3)
        with pytest.raises(OSError, match="does not send ranges"):
            file.read(1)


def test_any_source_takes_files_behind_http(server):
    url = f"{server.url}/{server.names[0]}"
    (found,) = files.expand(url)
    assert (found.name, found.size) == ("file-0.warc.gz", len(server.content[f"/{server.names[0]}"]))
    with files.open_file(found.path) as file:
        assert file.read(2) == b"\x1f\x8b"
    with pytest.raises(ValueError, match=r"no file matches.*404"):
        files.expand(f"{server.url}/absent.warc.gz")
    with pytest.raises(ValueError, match="cannot be asked for lists"):
        files.expand(f"{server.url}/*.warc.gz")
