from __future__ import annotations

import gzip
import io
import json
import re
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.contract import Bad
from stages.ingest.headers import Warc
from stages.ingest.members import Gzip, Members, Window
from stages.ingest.records import Item, Record, can_split, open_items

LIMIT = 1 << 20


def seen(items: list[Item]) -> list[tuple[int, int, str, bytes]]:
    """Items as values: a record by its content, a bad one by its reason."""
    return [
        (item.offset, item.length, *((item.kind, item.block) if isinstance(item, Record) else (item.reason, b""))) for item in items
    ]


def whole(data: bytes, limit: int = LIMIT) -> list[tuple[int, int, str, bytes]]:
    return seen(list(open_items(io.BytesIO(data), 0, None, limit)))


def in_ranges(data: bytes, cuts: list[int], limit: int = LIMIT) -> list[tuple[int, int, str, bytes]]:
    bounds = [0, *cuts, None]
    items: list[Item] = []
    for start, stop in pairwise(bounds):
        items += open_items(io.BytesIO(data), start or 0, stop, limit)
    return seen(items)


SLIGHT = st.sampled_from(["none", "none", "flip", "garbage", "magic", "nolength"])
DAMAGE = st.sampled_from(["none", "flip", "cut", "garbage", "magic", "zeros", "short", "long", "nolength"])


def built(make: SimpleNamespace, plan: list[tuple[str, int]], packed: bool) -> bytes:
    """A file of one record for each entry, each with its damage."""
    out = []
    for number, (damage, size) in enumerate(plan):
        data = make.page(number, size)
        if damage == "short":
            data = re.sub(rb"Content-Length: \d", b"Content-Length: 0", data, count=1)
        elif damage == "long":
            data = data.replace(b"Content-Length: ", b"Content-Length: 1", 1)
        elif damage == "nolength":
            data = data.replace(b"Content-Length: ", b"Content-Size: ", 1)
        data = make.member(data) if packed else data
        middle = len(data) // 2
        if damage == "flip":
            data = data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]
        elif damage == "cut":
            data = data[:middle]
        tail = {"garbage": b"no record, no member", "magic": b"\x1f\x8b\x08 WARC/1.0 nothing", "zeros": b"\0" * 7}
        out.append(data + tail.get(damage, b""))
    return b"".join(out)


@settings(max_examples=150, deadline=None)
@given(
    plan=st.lists(st.tuples(DAMAGE, st.integers(0, 400)), min_size=1, max_size=8),
    shares=st.lists(st.floats(0.001, 0.999), max_size=6),
    packed=st.booleans(),
)
def test_ranges_of_a_file_hold_exactly_what_the_whole_file_holds(make, plan, shares, packed):
    data = built(make, plan, packed)
    cuts = sorted({max(1, int(share * len(data))) for share in shares})
    assert in_ranges(data, cuts) == whole(data)


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=8), unit=st.integers(1, 4000), packed=st.booleans())
def test_every_record_of_a_sound_file_is_read_once_whatever_the_unit_size(make, sizes, unit, packed):
    records = [make.page(number, size) for number, size in enumerate(sizes)]
    parts = [make.member(data) if packed else data for data in records]
    data = b"".join(parts)
    found = in_ranges(data, list(range(unit, len(data), unit)))
    starts = [sum(map(len, parts[:number])) for number in range(len(parts))]
    assert [(offset, length) for offset, length, _, _ in found] == list(zip(starts, map(len, parts), strict=True))
    assert [block for *_, block in found] == [data.split(b"\r\n\r\n", 1)[1][:-4] for data in records]


@settings(max_examples=100, deadline=None)
@given(
    plan=st.lists(st.tuples(SLIGHT, st.integers(0, 300)), min_size=2, max_size=8),
    packed=st.booleans(),
)
def test_damage_costs_the_damaged_record_only(make, plan, packed):
    found = whole(built(make, plan, packed))
    sound = [make.page(number, size) for number, (damage, size) in enumerate(plan) if damage in ("none", "garbage", "magic")]
    blocks = {block for *_, block in found}
    missing = [data for data in sound if data.split(b"\r\n\r\n", 1)[1][:-4] not in blocks]
    # In a plain file what follows a record's declared end is its only witness: with garbage there, it may be lost too.
    allowed = 0 if packed else sum(damage in ("garbage", "magic") for damage, _ in plan)
    assert len(missing) <= allowed


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=2000), st.integers(0, 1500))
def test_any_bytes_are_read_to_the_end(data, start):
    for prefix in (b"", b"WARC/1.0\r\n", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"):
        for item in open_items(io.BytesIO(prefix + data), start, None, LIMIT):
            assert isinstance(item, Bad | Record)


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(0, 2000), min_size=1, max_size=6), every=st.integers(50, 3000))
def test_members_cut_anywhere_are_one_stream(make, sizes, every):
    data = b"".join(make.page(number, size) for number, size in enumerate(sizes))
    packed = b"".join(make.member(data[at : at + every]) for at in range(0, len(data), every))
    assert [block for *_, block in whole(packed)] == [block for *_, block in whole(data)]
    offsets = [offset for offset, *_ in whole(packed)]
    assert len(set(offsets)) == len(sizes)


def test_a_file_that_is_one_member_is_read_whole_and_not_split(make):
    data = make.member(b"".join(make.page(number) for number in range(5)))
    assert [kind for _, _, kind, _ in whole(data)] == ["response"] * 5
    assert [offset >> 40 for offset, *_ in whole(data)] == [0, 1, 2, 3, 4]
    assert not can_split(io.BytesIO(data), LIMIT)
    assert can_split(io.BytesIO(make.member(make.page(1)) * 2), LIMIT)
    assert can_split(io.BytesIO(make.page(1)), LIMIT)


def test_a_record_over_the_limit_is_announced_without_its_block(make):
    big = make.record("response", make.response(b"<html>" + b"x" * 5000))
    for data in (big + make.page(1), make.member(big) + make.member(make.page(1))):
        first, second = open_items(io.BytesIO(data), 0, None, 2000)
        assert isinstance(first, Record)
        assert first.huge
        assert first.fields[b"warc-type"] == b"response"
        assert isinstance(second, Record)
        assert not second.huge


def test_a_bomb_is_not_inflated_into_memory(make):
    bomb = make.record("response", make.response(b"<html>" + b"\0" * (40 << 20)))
    members = Members(Window(io.BytesIO(make.member(bomb)).read), Gzip(), Warc())
    assert members.whole(0, LIMIT) is None


def test_a_digest_saves_a_record_before_garbage(make):
    import base64
    import hashlib

    block = make.response(b"<html>hello</html>")
    digest = "sha1:" + base64.b32encode(hashlib.sha1(block).digest()).decode()
    data = make.record("response", block, WARC_Block_Digest=digest) + b"stray bytes\n" + make.page(1)
    assert [what for _, _, what, _ in whole(data)] == ["response", "garbage", "response"]
    undigested = make.record("response", block) + b"stray bytes\n" + make.page(1)
    assert [what for _, _, what, _ in whole(undigested)] == ["content_length", "response"]


def test_zstd_frames_and_arc_files_are_read(make):
    frames = b"".join(zstandard.compress(make.page(number)) for number in range(3))
    assert [kind for _, _, kind, _ in whole(frames)] == ["response"] * 3
    body = make.response(b"<html>an old page</html>")
    head = b"filedesc://x.arc 0.0.0.0 20010203040506 text/plain 10\n1 0 Alexa\n\n"
    line = b"http://a.example/with space 1.2.3.4 20010203040506 text/html %d\n" % len(body)
    for data in (head + line + body + b"\n", gzip.compress(head) + gzip.compress(line + body + b"\n")):
        items = list(open_items(io.BytesIO(data), 0, None, LIMIT))
        assert [item.kind for item in items if isinstance(item, Record)] == ["warcinfo", "response"]
        assert isinstance(items[1], Record)
        assert items[1].fields[b"warc-target-uri"] == b"http://a.example/with space"
        assert items[1].fields[b"warc-date"] == b"2001-02-03T04:05:06Z"
        assert items[1].block == body


@pytest.mark.parametrize("newline", [b"\r\n", b"\n"])
def test_headers_may_end_in_one_byte_and_be_folded(make, newline):
    data = make.record("response", make.response(b"<html>x</html>"), newline=newline)
    data = data.replace(b"WARC-Date: ", b"X-Folded: one" + newline + b" two" + newline + b"WARC-Date: ", 1)
    (item,) = open_items(io.BytesIO(data), 0, None, LIMIT)
    assert isinstance(item, Record)
    assert item.fields[b"x-folded"] == b"one two"


def test_broken_files_give_every_record_that_a_robust_reader_delivers(shared: Path):
    for line in (shared / "crawl/malformed/truth.jsonl").read_text().splitlines():
        truth = json.loads(line)
        with (shared / "crawl/malformed" / truth["file"]).open("rb") as file:
            items = list(open_items(file, 0, None, 16 << 20))
        ids = {item.fields.get(b"warc-record-id", b"").decode() for item in items if isinstance(item, Record)}
        assert {*truth["must_read"], *truth["intact"]} <= ids, truth["file"]


BROKEN = {
    "warcio__bad.arc": 0,
    "warcio__example-space-in-url.arc": 1,
    "warcio__example-trunc.warc": 3,
    "chatnoir-resiliparse__clipped.warc.gz": 0,
}
"""Real files with damage, and the whole records in them."""


def test_real_archives_give_what_the_better_of_two_readers_gives(shared: Path):
    for line in (shared / "warc_real/manifest.jsonl").read_text().splitlines():
        truth = json.loads(line)
        if truth["file"].endswith(".lz4"):
            continue
        with (shared / "warc_real" / truth["file"]).open("rb") as file:
            items = list(open_items(file, 0, None, 16 << 20))
        records = [item for item in items if isinstance(item, Record)]
        expected = BROKEN.get(truth["file"], max(truth["warcio"]["records"], truth["fastwarc"]["records"]))
        assert len(records) == expected, truth["file"]
        assert (len(items) == len(records)) == (truth["file"] not in BROKEN), truth["file"]
