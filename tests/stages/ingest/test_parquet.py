from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.ingest.parquet import rows


@pytest.fixture
def table(tmp_path) -> str:
    count = 2000
    data = pa.table(
        {
            "content": pa.array([f"text {number}" if number % 10 else None for number in range(count)]),
            "meta": pa.array([{"uuid": f"{number:x}", "lang": "de"} for number in range(count)]),
            "stars": pa.array(range(count), pa.int32()),
            "a.b": pa.array(["dotted"] * count),
        }
    )
    path = tmp_path / "a.parquet"
    pq.write_table(data, path, row_group_size=300)
    return str(path)


MAPPED = {"text": "content", "id": "meta.uuid", "language": "meta.lang", "tag": "a.b"}
KEEP = {"stars": "int64", "tag": "string"}


def read(paths, **params):
    chosen = rows.params(paths=paths, **params)
    return [chunk for unit in rows.units(chosen) for chunk in rows(unit, chosen)]


def test_rows_come_under_our_names_with_their_number(table):
    chunks = read(table, columns=MAPPED, keep=KEEP, source="books")
    assert sum(chunk.records for chunk in chunks) == 2000
    assert sum(chunk.skipped.get("no_text", 0) for chunk in chunks) == 200
    found = pa.concat_tables([chunk.rows for chunk in chunks]).to_pylist()
    assert found[0] == {
        "id": "1", "url": None, "source": "books", "date": None, "language": "de", "stars": 1, "tag": "dotted", "text": "text 1",
        "origin": {"unit": "a.parquet", "offset": 1, "length": 1},
    }  # fmt: skip
    assert [row["origin"]["offset"] for row in found] == [number for number in range(2000) if number % 10]


@pytest.mark.parametrize("unit_bytes", [1, 3000, 20_000, 1 << 30])
def test_units_are_ranges_of_row_groups_and_hold_every_row_once(table, unit_bytes):
    chosen = rows.params(paths=table, columns={"text": "content"}, unit_bytes=unit_bytes)
    units = list(rows.units(chosen))
    assert len(units) == (7 if unit_bytes == 1 else 1 if unit_bytes == 1 << 30 else len(units))
    assert [unit.stop for unit in units] == [*(unit.start for unit in units[1:]), None]
    found = [row for unit in units for chunk in rows(unit, chosen) for row in chunk.rows["text"].to_pylist()]
    assert found == [f"text {number}" for number in range(2000) if number % 10]


def test_a_missing_column_is_named_with_those_present(table):
    with pytest.raises(ValueError, match=r"a.parquet: no column 'text' for 'text'; there are a.b, content, meta, stars"):
        read(table)
    with pytest.raises(ValueError, match=r"no column 'meta.id' for 'id'"):
        read(table, columns={"text": "content", "id": "meta.id"})
    with pytest.raises(ValueError, match="column 'content' is string, not int64 as 'stars' needs"):
        read(table, columns={"text": "content", "stars": "content"}, keep={"stars": "int64"})


def test_what_is_no_parquet_file_is_said_so(write):
    with pytest.raises(ValueError, match="is no Parquet file"):
        read(write("a.parquet", b"PAR?"))


def test_a_broken_row_group_costs_itself_only(table):
    path = Path(table)
    data = bytearray(path.read_bytes())
    column = pq.read_metadata(table).row_group(2).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + 40] = b"\xff" * 40
    path.write_bytes(data)
    chunks = read(table, columns={"text": "content"})
    (bad,) = (bad for chunk in chunks for bad in chunk.bad)
    assert (bad.offset, bad.reason) == (600, "row_group")
    assert sum(chunk.rows.num_rows for chunk in chunks) == (2000 - 300) * 9 // 10


def test_rows_without_text_speak_their_conversation(tmp_path):
    talk = [{"weight": 1, "content": "2+2?", "role": "user"}, {"weight": 0, "content": "4", "role": "assistant"}]
    path = tmp_path / "chat.parquet"
    pq.write_table(pa.table({"messages": [talk, [], None, talk[:1]], "text": [None, None, None, "own"]}), path)
    (chunk,) = read(str(path), keep={"messages": "messages"})
    assert chunk.rows["text"].to_pylist() == ["2+2?\n\n4", "own"]
    assert chunk.rows["messages"].to_pylist()[0] == [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]
    assert (chunk.records, chunk.skipped) == (4, {"no_text": 2})
    pq.write_table(pa.table({"messages": [talk]}), path)
    (chunk,) = read(str(path), keep={"messages": "messages"})
    assert chunk.rows["text"].to_pylist() == ["2+2?\n\n4"]
