from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.contract import CORE
from stages.ingest.jsonl import rows


def read(paths, **params):
    chosen = rows.params(paths=paths, **params)
    chunks = [chunk for unit in rows.units(chosen) for chunk in rows(unit, chosen)]
    for chunk in chunks:
        assert chunk.records == chunk.rows.num_rows + sum(chunk.skipped.values()) + len(chunk.bad)
    return chunks


def values(chunks, *names):
    return [tuple(row[name] for name in names) for chunk in chunks for row in chunk.rows.to_pylist()]


def lines(*objects) -> bytes:
    return b"".join(json.dumps(value, ensure_ascii=False).encode() + b"\n" for value in objects)


def test_foreign_columns_come_under_our_names(write):
    data = lines({"content": "eins", "meta": {"uuid": 7, "lang": "de"}, "url": "u", "stars": 3, "tags": ["a"]}, {"content": "zwei"})
    mapped = {"text": "content", "id": "meta.uuid", "language": "meta.lang"}
    (chunk,) = read(write("a.jsonl", data), columns=mapped, keep={"stars": "int64", "tags": "list<string>"}, source="code")
    assert chunk.rows.schema == pa.schema(
        [*CORE.items(), ("text", pa.large_string()), ("stars", pa.int64()), ("tags", pa.list_(pa.string()))]
    )
    first, second = chunk.rows.to_pylist()
    assert first == {
        "id": "7", "url": "u", "source": "code", "date": None, "language": "de", "text": "eins", "stars": 3, "tags": ["a"],
        "origin": {"unit": "a.jsonl", "offset": 0, "length": data.index(b"\n")},
    }  # fmt: skip
    assert second["origin"]["offset"] == data.index(b"\n") + 1
    assert (second["id"], second["stars"]) == (None, None)


def test_a_bad_line_costs_itself_only(write):
    good = lines({"text": "a"})
    data = (
        good
        + b"{broken\n"
        + b"[1]\n"
        + b'{"text": 5}\n'
        + b'{"text": "\\ud800"}\n'
        + b"\n"
        + b'{"text": null}\n'
        + b'{"text": "z"}'
    )
    (chunk,) = read(write("a.jsonl", data))
    assert values([chunk], "text") == [("a",), ("z",)]
    assert [(bad.offset, bad.reason) for bad in chunk.bad] == [(14, "json"), (22, "json"), (26, "type"), (38, "json")]
    assert chunk.skipped == {"no_text": 1}
    assert "text is 5" in chunk.bad[2].detail


def test_values_must_fit_their_declared_types(write):
    (chunk,) = read(write("a.jsonl", lines({"text": "a", "n": 1}, {"text": "b", "n": "x"}, {"text": "c"})), keep={"n": "int64"})
    assert values([chunk], "text", "n") == [("a", 1), ("c", None)]
    assert [bad.reason for bad in chunk.bad] == ["type"]


@pytest.mark.parametrize(("name", "pack"), [("a.jsonl.gz", gzip.compress), ("a.jsonl.zst", zstandard.compress), ("a.jsonl", bytes)])
def test_compressed_lines_are_read_like_plain_ones(write, name, pack):
    path = write(name, pack(lines(*({"text": f"line {number}"} for number in range(600)))))
    chunks = read(path, unit_bytes=1000)
    assert values(chunks, "text") == [(f"line {number}",) for number in range(600)]
    assert len({row[0]["offset"] for row in values(chunks, "origin")}) == 600


def test_a_cut_gzip_file_gives_what_is_whole(write):
    data = gzip.compress(lines(*({"text": f"line {number} {number * 7919}"} for number in range(20_000))))
    chunks = read(write("a.jsonl.gz", data[: len(data) // 2]))
    assert sum(chunk.rows.num_rows for chunk in chunks) > 5_000
    (bad,) = (bad for chunk in chunks for bad in chunk.bad)
    assert bad.reason == "compression"


@settings(max_examples=100, deadline=None)
@given(
    texts=st.lists(st.one_of(st.text(max_size=30), st.just("x" * 200)), min_size=1, max_size=20),
    unit=st.integers(1, 400),
    end=st.sampled_from([b"\n", b"\r\n", b"\n\n"]),
    closed=st.booleans(),
)
def test_ranges_hold_every_line_once_whatever_the_unit_size(tmp_path_factory, texts, unit, end, closed):
    data = end.join(json.dumps({"text": text}).encode() for text in texts) + (end if closed else b"")
    path = tmp_path_factory.getbasetemp() / "lines.jsonl"
    path.write_bytes(data)
    valid = [text for text in texts if text.isascii() or text.encode("utf-8", "ignore").decode() == text]
    assert [text for (text,) in values(read(str(path), unit_bytes=unit), "text")] == valid


def test_a_missing_column_is_named_with_those_present(write):
    path = write("a.jsonl", lines(*({"body": "x", "url": "u"} for _ in range(300))))
    with pytest.raises(ValueError, match=r"a.jsonl: no column 'text' for 'text'; there are body, url"):
        read(path)
    with pytest.raises(ValueError, match="no column 'uuid' for 'id'"):
        read(path, columns={"text": "body", "id": "uuid"})


def test_a_mapping_that_would_be_lost_is_refused(write):
    path = write("a.jsonl", lines({"text": "x"}))
    with pytest.raises(ValueError, match="columns maps score, which would be lost"):
        read(path, columns={"score": "s"})
    with pytest.raises(ValidationError, match="no column type"):
        rows.params(paths=path, keep={"score": "float" * 2})
    with pytest.raises(ValidationError, match="core column"):
        rows.params(paths=path, keep={"url": "string"})


def test_a_line_over_the_limit_is_bad(write):
    (chunk,) = read(write("a.jsonl", lines({"text": "x" * 100}, {"text": "y"})), max_bytes=50)
    assert values([chunk], "text") == [("y",)]
    assert [bad.reason for bad in chunk.bad] == ["too_large"]
