from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.contract import TEXT
from stages.export.flat import Flat, tokens
from stages.tokenizers import Tokenizer


def encoder(size: int) -> Tokenizer:
    return Tokenizer(lambda texts: [np.frombuffer(t.encode(), np.uint8).astype(np.int32) for t in texts], size, 256, None)


@pytest.mark.parametrize(("size", "dtype"), [(257, "uint16"), (65_536, "uint16"), (65_537, "int32")])
def test_a_memory_map_as_nanogpt_opens_it_holds_every_document(tmp_path: Path, size: int, dtype: str) -> None:
    texts = ["The mill", None, "水车", ""]
    table = pa.table({"id": [f"d{n}" for n in range(4)], "text": pa.array(texts, TEXT)})

    class Group:
        opened: list[Any] = []  # noqa: RUF012

        def open(self, suffix: str) -> Any:
            self.opened.append((tmp_path / f"train{suffix}").open("wb"))
            return self.opened[-1]

    summary = dict(tokens.encode(iter([table.slice(0, 1), table.slice(1)]), Flat(), Group(), model=encoder(size)))
    for file in Group.opened:
        file.close()
    data = np.memmap(tmp_path / "train.bin", dtype=getattr(np, dtype), mode="r")
    assert data.tolist() == [*b"The mill", 256, *"水车".encode(), 256]
    assert summary == {"rows": 4, "documents": 2, "empty": 2, "tokens": len(data), "dtype": dtype}
    back = pq.read_table(tmp_path / "train.docs.parquet").to_pylist()
    assert [(row["id"], row["start"], row["tokens"]) for row in back] == [("d0", 0, 9), ("d2", 9, 7)]
    facts = orjson.loads(tokens.finish([{**summary, "name": "parts/train"}], Flat())["flat.json"])
    assert facts == {"dtype": dtype, "tokens": len(data), "files": [{"file": "parts/train.bin", "tokens": len(data)}]}
