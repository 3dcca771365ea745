import io
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.contract import TEXT
from stages.export.packed import Packed, pack, sequences
from stages.tokenizers import Tokenizer

BYTES = Tokenizer(lambda texts: [np.frombuffer(t.encode(), np.uint8).astype(np.int32) for t in texts], 257, 256, None)


class Folder:
    """Files of a shard in a folder."""

    def __init__(self, stem: Path) -> None:
        self.stem, self.opened = stem, list[BinaryIO]()

    def open(self, suffix: str) -> Any:
        self.opened.append(self.stem.with_name(self.stem.name + suffix).open("wb"))
        return self.opened[-1]


def written(folder: Path, rows: list[tuple[str | None, str | None]], batch: int = 3, **params: Any) -> tuple[Path, dict[str, Any]]:
    table = pa.table(
        {
            "id": [f"d{n}" for n in range(len(rows))],
            "prompt": pa.array([prompt for prompt, _ in rows], TEXT),
            "text": pa.array([text for _, text in rows], TEXT),
        }
    )
    files = Folder(folder / "shard")
    batches = [table.slice(i, batch) for i in range(0, len(rows), batch)]
    summary = sequences.encode(iter(batches), Packed(prompt="prompt", **params), files, model=BYTES)
    for file in files.opened:
        file.close()
    return folder / "shard.packed.parquet", dict(summary)


def plain(lengths: list[int], capacity: int) -> list[list[int]]:
    """First-fit decreasing with a look into every pack."""
    packs: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        place = next((n for n, left in enumerate(room) if left >= lengths[index]), len(packs))
        if place == len(packs):
            packs.append([])
            room.append(capacity)
        packs[place].append(index)
        room[place] -= lengths[index]
    return sorted(sorted(members) for members in packs)


@given(st.lists(st.integers(1, 50), max_size=60))
def test_documents_are_packed_as_a_plain_search_would(lengths: list[int]) -> None:
    packs = pack(lengths, 50)
    assert packs == plain(lengths, 50)
    assert sorted(index for members in packs for index in members) == list(range(len(lengths)))


ROWS: list[tuple[str | None, str | None]] = [
    ("Q: 2+2?", "4"), (None, "plain text"), ("Q: name a mill part", "the hopper"), ("no answer", None), ("", "x" * 30), ("Q", "A"), ("p" * 50, "never"),
]  # fmt: skip


def test_datasets_and_duckdb_read_rows_whose_loss_falls_on_answers_only(tmp_path: Path) -> None:
    import datasets
    import duckdb

    path, summary = written(tmp_path, ROWS, capacity=40)
    loaded = datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.features["input_ids"].feature.dtype == "int32"
    assert loaded.features["loss_mask"].feature.dtype == "uint8"
    learned, documents = [], 0
    for row in loaded:
        ids, starts = row["input_ids"], row["seq_start_id"]
        assert len(ids) == len(row["loss_mask"]) <= 40
        assert starts[0] == 0
        for start, stop in zip(starts, [*starts[1:], len(ids)], strict=True):
            documents += 1
            part, mask = ids[start:stop], row["loss_mask"][start:stop]
            assert mask[-1] == 0
            # What a trainer does: token i predicts token i + 1 where the mask is set.
            learned.append(bytes(part[i + 1] for i in range(len(part) - 1) if mask[i] and part[i + 1] != 256).decode())
    assert sorted(learned) == sorted(["4", "lain text", "the hopper", "x" * 29, "A", ""])
    assert documents == summary["documents"] == 6
    assert (summary["rows"], summary["empty"], summary["cut_tokens"]) == (7, 1, 50 + 5 + 1 - 40)
    assert duckdb.sql(f"select sum(len(input_ids)) from '{path}'").fetchall() == [(summary["tokens"],)]


def test_the_way_back_names_the_document_of_every_token(tmp_path: Path) -> None:
    path, _ = written(tmp_path, ROWS, capacity=40)
    stream = np.concatenate([np.array(ids) for ids in pq.read_table(path)["input_ids"].to_pylist()])
    texts = {f"d{n}": (prompt or "") + (text or "") for n, (prompt, text) in enumerate(ROWS)}
    for row in pq.read_table(tmp_path / "shard.docs.parquet").to_pylist():
        tokens = stream[row["start"] : row["start"] + row["tokens"]]
        assert texts[row["id"]].startswith(bytes(t for t in tokens if t != 256).decode())


def test_bytes_do_not_depend_on_how_rows_are_batched(tmp_path: Path) -> None:
    made = []
    for batch in (1, 7):
        folder = tmp_path / str(batch)
        folder.mkdir()
        made.append(written(folder, ROWS, batch=batch, capacity=40)[0].read_bytes())
    assert made[0] == made[1]
    pq.ParquetFile(io.BytesIO(made[0]))


def test_a_shard_without_rows_is_an_empty_file(tmp_path: Path) -> None:
    path, summary = written(tmp_path, [])
    assert pq.read_table(path).num_rows == 0
    assert summary["filled"] is None


def test_a_vocabulary_without_an_end_is_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Fast
    from tokenizers import models

    Fast(models.WordLevel({"a": 0, "?": 1}, unk_token="?")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="eod_token"):
        sequences.model(Packed(tokenizer=str(tmp_path / "tokenizer.json")))
