import io
from typing import Any

import orjson
import pyarrow as pa
import zstandard

from stages.contract import TEXT
from stages.export.jsonl import Jsonl, files


class Memory(dict[str, io.BytesIO]):
    def open(self, suffix: str) -> Any:
        return self.setdefault(suffix, io.BytesIO())


TABLE = pa.table(
    {
        "id": ["a", "b"],
        "text": pa.array(['Łódź\n"x"', None], TEXT),
        "url": ["http://a.b", None],
        "score": pa.array([0.5, None], pa.float32()),
    }
)
PARAMS = Jsonl(known=("id", "url", "text"), columns={"score": "float32"}, rename={"id": "record"})


def written(batches: list[pa.Table]) -> bytes:
    memory = Memory()
    assert files.encode(iter(batches), PARAMS, memory) == {"rows": 2}
    return memory[".jsonl.zst"].getvalue()


def test_every_row_is_an_object_on_its_line() -> None:
    lines = zstandard.ZstdDecompressor().decompressobj().decompress(written([TABLE])).splitlines()
    assert [orjson.loads(line) for line in lines] == [
        {"record": "a", "url": "http://a.b", "text": 'Łódź\n"x"', "score": 0.5},
        {"record": "b", "url": None, "text": None, "score": None},
    ]


def test_bytes_do_not_depend_on_how_rows_are_batched() -> None:
    assert written([TABLE]) == written([TABLE.slice(0, 1), TABLE.slice(1)])


def test_the_list_of_files_counts_all_rows() -> None:
    made = files.finish([{"name": "b", "rows": 2}, {"name": "a", "rows": 1}], PARAMS)
    assert orjson.loads(made["files.json"])["rows"] == 3
