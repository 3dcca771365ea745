"""Inputs of the engine's benchmark: units of a wanted size out of a crawl, one-page files, and files that are mostly holes."""

import gzip
import zlib

MIB = 1 << 20


def members(path):
    """The gzip members of a file."""
    data = path.read_bytes()
    while data:
        inflate = zlib.decompressobj(31)
        inflate.decompress(data)
        size = len(data) - len(inflate.unused_data)
        yield data[:size]
        data = inflate.unused_data


def lay_units(folder, inputs, size, count):
    """`count` files of about `size` MiB, made of whole input files; another start for each, so that none is a copy."""
    whole = [p.read_bytes() for p in inputs]
    for number in range(count):
        with (folder / f"unit-{number:03d}.warc.gz").open("wb") as out:
            turn = number
            while out.tell() < size * MIB:
                out.write(whole[turn % len(whole)])
                turn += 1


def page(number):
    """A one-page WARC file in one gzip member; the page has English prose of its own."""
    prose = " ".join(
        f"The mill by the river had {number + n} sacks of rye that were to be ground before the frost." for n in range(6)
    )
    html = f"<html><head><title>Mill {number}</title></head><body><article><p>{prose}</p></article></body></html>".encode()
    block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: %d\r\n\r\n" % len(html) + html
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: https://mill.example/{number}\r\nWARC-Date: 2026-01-01T00:00:00Z\r\n"
        f"WARC-Record-ID: <urn:uuid:00000000-0000-4000-8000-{number:012d}>\r\nContent-Type: application/http; msgtype=response\r\n"
        f"Content-Length: {len(block)}\r\n\r\n"
    )
    return gzip.compress(head.encode() + block + b"\r\n\r\n", 1, mtime=0)


def lay_small(folder, count):
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:06d}.warc.gz").write_bytes(page(number))


def lay_sparse(folder, count):
    """Files that are holes behind their first pages, each 1,024 units of 64 MiB."""
    folder.mkdir()
    head = b"".join(page(n) for n in range(20))
    for number in range(-(-count // 1024)):
        with (folder / f"big-{number:03d}.warc.gz").open("wb") as file:
            file.write(head)
            file.truncate(1024 * 64 * MIB)
