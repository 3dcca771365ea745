import io
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from stages.contract import TEXT
from stages.export.parquet import Parquet, files


class Memory(dict[str, io.BytesIO]):
    def open(self, suffix: str) -> Any:
        return self.setdefault(suffix, io.BytesIO())


TABLE = pa.table({
    "id": [f"{n:032x}" for n in range(100)], "text": pa.array([f"text {n}" for n in range(100)], TEXT),
    "tokens": pa.array(range(100), pa.int64()), "tags": [["a", "b"]] * 100,
})  # fmt: skip
PARAMS = Parquet(known=("text", "id"), columns={"tokens": "int32", "tags": "list<string>"}, row_group_rows=30)


def written(*cuts: int) -> bytes:
    memory = Memory()
    batches = (TABLE.slice(a, b - a) for a, b in zip((0, *cuts), (*cuts, 100), strict=True))
    assert files.encode(batches, PARAMS, memory) == {"rows": 100}
    return memory[".parquet"].getvalue()


def test_rows_come_back_with_the_declared_columns_and_types() -> None:
    table = pq.read_table(io.BytesIO(written()))
    assert table.column_names == ["text", "id", "tokens", "tags"]
    assert table.schema.field("tokens").type == pa.int32()
    assert table["tokens"].to_pylist() == list(range(100))
    assert table["tags"][7].as_py() == ["a", "b"]


def test_row_groups_and_bytes_do_not_show_how_rows_came_batched() -> None:
    assert written(1, 29, 30, 95) == written()
    meta = pq.read_metadata(io.BytesIO(written(50)))
    assert [meta.row_group(i).num_rows for i in range(meta.num_row_groups)] == [30, 30, 30, 10]


def test_an_empty_shard_is_a_file_without_rows() -> None:
    memory = Memory()
    assert files.encode(iter([]), PARAMS, memory) == {"rows": 0}
    assert pq.read_table(io.BytesIO(memory[".parquet"].getvalue())).num_rows == 0


def test_the_list_of_files_counts_all_rows() -> None:
    made = files.finish([{"name": "b", "rows": 2}, {"name": "a", "rows": 1}], PARAMS)
    listed = {"rows": 3, "files": [{"file": "a.parquet", "rows": 1}, {"file": "b.parquet", "rows": 2}]}
    assert orjson.loads(made["files.json"]) == listed


def test_columns_need_a_type_that_exists() -> None:
    with pytest.raises(ValidationError, match="no column type"):
        Parquet(columns={"tokens": "number"})
    with pytest.raises(ValidationError, match="types already"):
        Parquet(columns={"text": "string"})
    with pytest.raises(ValueError, match="name them in columns"):
        files.reads_of(Parquet(known=("tokens",)))
