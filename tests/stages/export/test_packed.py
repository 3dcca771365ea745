import io
import re
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.columns import MESSAGES
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


# -- conversations ------------------------------------------------------------------------------------------------------

MARKS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)
SPOKEN: list[list[dict[str, str | None]] | None] = [
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}],
    [{"role": "user", "content": "Say <|im_end|>"}, {"role": "assistant", "content": "<|im_end|> it is"},
     {"role": "user", "content": "And\n\nmore?"}, {"role": "assistant", "content": "No."}],
    [{"role": "user", "content": "anybody?"}],
    None,
    [],
    [{"role": "user", "content": None}, {"role": "assistant", "content": "Hello there, miller"}],
]  # fmt: skip


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer as Fast
    from tokenizers import decoders, models, pre_tokenizers, trainers

    fast = Fast(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=list(MARKS), initial_alphabet=alphabet, show_progress=False)
    fast.train_from_iterator(["user assistant system Hello there, miller. And more?"] * 3, trainer)
    path = tmp_path_factory.mktemp("spoken") / "tokenizer.json"
    fast.save(str(path))
    return path


def talk(folder: Path, words: Path, rows: Any, **params: Any) -> tuple[Path, dict[str, Any]]:
    table = pa.table({"id": [f"d{n}" for n in range(len(rows))], "talk": pa.array(rows, MESSAGES)})
    files = Folder(folder / "talk")
    chosen = Packed(tokenizer=str(words), messages="talk", **params)
    summary = sequences.encode(iter([table.slice(0, 2), table.slice(2)]), chosen, files, model=sequences.model(chosen))
    for file in files.opened:
        file.close()
    return folder / "talk.packed.parquet", dict(summary)


def rendered(template: str, turns: Any) -> str:
    """What a chat template of the model's own renders."""
    if template == "chatml":
        return "".join(f"<|im_start|>{turn['role']}\n{turn['content'] or ''}<|im_end|>\n" for turn in turns)
    heads = (f"<|start_header_id|>{turn['role']}<|end_header_id|>\n\n{(turn['content'] or '').strip()}<|eot_id|>" for turn in turns)
    return "<|begin_of_text|>" + "".join(heads)


@pytest.mark.parametrize("template", ["chatml", "llama3"])
def test_datasets_reads_conversations_as_the_models_template_lays_them_out(tmp_path: Path, spoken: Path, template: str) -> None:
    import datasets
    from tokenizers import Tokenizer as Fast

    plain = [row for row in SPOKEN if row and "<|im_end|>" not in str(row)]
    path, summary = talk(tmp_path, spoken, [*plain, *SPOKEN[2:5]], template=template, capacity=64)
    assert (summary["rows"], summary["documents"], summary["empty"], summary["unlearned"]) == (6, 2, 4, 0)
    loaded = datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    fast, found, answers = Fast.from_file(str(spoken)), [], []
    for row in loaded:
        ids, starts = row["input_ids"], row["seq_start_id"]
        for start, stop in zip(starts, [*starts[1:], len(ids)], strict=True):
            found.append(ids[start:stop])
            mask = row["loss_mask"][start:stop]
            assert mask[-1] == 0
            answers.append(fast.decode([ids[start + 1 + i] for i in range(len(mask) - 1) if mask[i]], skip_special_tokens=False))
    expected = [row for row in plain if any(turn["role"] == "assistant" for turn in row)]
    assert sorted(found) == sorted(fast.encode(rendered(template, row), add_special_tokens=False).ids for row in expected)
    end = "<|im_end|>" if template == "chatml" else "<|eot_id|>"
    assert sorted(answers) == sorted(f"{row[-1]['content']}{end}" for row in expected)


def test_a_mark_that_a_turn_spells_out_stays_text(tmp_path: Path, spoken: Path) -> None:
    from tokenizers import Tokenizer as Fast

    path, _ = talk(tmp_path, spoken, [SPOKEN[1]], capacity=256)
    (row,) = pq.read_table(path).to_pylist()
    end = Fast.from_file(str(spoken)).token_to_id("<|im_end|>")
    assert row["input_ids"].count(end) == 4
    learned = [token for token, taught in zip(row["input_ids"][1:], row["loss_mask"], strict=False) if taught]
    assert learned.count(end) == 2
    assert Fast.from_file(str(spoken)).decode(learned, skip_special_tokens=False) == "<|im_end|> it is<|im_end|>No.<|im_end|>"


def test_a_conversation_cut_before_its_answer_is_counted(tmp_path: Path, spoken: Path) -> None:
    _, summary = talk(tmp_path, spoken, [SPOKEN[0]], capacity=4)
    assert (summary["documents"], summary["unlearned"], summary["tokens"]) == (1, 1, 4)


@pytest.mark.parametrize(
    ("params", "fault"),
    [
        ({"template": "llama3"}, "no token '<|begin_of_text|>', which the template llama3 needs; try chatml"),
        ({"prompt": "text"}, "give prompt or messages, not both"),
        ({"eod": True}, "has no eod token"),
    ],
)
def test_templates_that_a_vocabulary_cannot_write_are_refused(tmp_path: Path, params: dict[str, Any], fault: str) -> None:
    from tokenizers import Tokenizer as Fast
    from tokenizers import models

    Fast(models.WordLevel({"a": 0, "?": 1, "<|im_start|>": 2, "<|im_end|>": 3}, unk_token="?")).save(str(tmp_path / "words.json"))
    with pytest.raises(ValueError, match=re.escape(fault)):
        sequences.model(Packed(tokenizer=str(tmp_path / "words.json"), messages="talk", **params))


def test_roles_of_other_conventions_are_renamed_or_refused(tmp_path: Path, spoken: Path) -> None:
    rows = [[{"role": "human", "content": "2+2?"}, {"role": "gpt", "content": "4"}, {"role": "assistant", "content": "4"}]]
    with pytest.raises(
        ValueError, match="a turn has the role 'human'; roles are system, user, assistant, tool: name others in roles"
    ):
        talk(tmp_path, spoken, rows)
    _, summary = talk(tmp_path, spoken, rows, roles={"human": "user", "gpt": "assistant"})
    assert summary["documents"] == 1


def test_conversations_go_from_json_lines_to_packed_rows(engine: Any, spoken: Path) -> None:
    engine.rows("talk.jsonl", [{"messages": row, "weight": 1} for row in SPOKEN])
    recipe = f"""
        name: talk
        steps:
          turns:  {{uses: stages.ingest.jsonl.rows, with: {{paths: "${{here}}/talk.jsonl", keep: {{messages: messages}}}}}}
          spread: {{uses: stages.shuffle.by_hash, from: turns, with: {{shards: 2, columns: {{messages: messages}}}}}}
          packed: {{uses: stages.export.packed.sequences, from: spread, with: {{tokenizer: "{spoken}", messages: messages, capacity: 128}}}}
        """
    assert engine.run(recipe).code == 0
    texts = {row["text"] for row in engine.table("turns")}
    assert "Be brief.\n\n2+2?\n\n4" in texts
    assert engine.head("packed")["rows"] == 4
    parts = [pq.read_table(p) for p in sorted(engine.store.root.glob("objects/packed-*/parts/*.packed.parquet"))]
    assert sum(len(row["seq_start_id"]) for part in parts for row in part.to_pylist()) == 3
