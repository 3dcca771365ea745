import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.contract import TEXT
from stages.export.indexed import framed
from stages.export.megatron import Megatron, shards
from stages.tokenizers import Tokenizer, Vocabulary, open_tokenizer

TEXTS = ["The mill grinds slowly.", "", "Żółta łódź\nna rzece", None, "水车" * 50]


class Memory:
    """Files of a shard, kept in memory as the engine would keep them on disk."""

    def __init__(self) -> None:
        self.files: dict[str, io.BytesIO] = {}

    def open(self, suffix: str) -> Any:
        return self.files.setdefault(suffix, io.BytesIO())

    def __getitem__(self, suffix: str) -> bytes:
        return self.files[suffix].getvalue()


def batches(*cuts: int) -> list[pa.Table]:
    table = pa.table({"id": [f"{n:032x}" for n in range(len(TEXTS))], "text": pa.array(TEXTS, TEXT)})
    return [table.slice(a, b - a) for a, b in zip((0, *cuts), (*cuts, len(TEXTS)), strict=True)]


def read(index: bytes, tokens: bytes) -> tuple[list[list[int]], np.dtype[Any]]:
    """A plain reader of the format, for one sequence a document."""
    magic, version, code, sequences, documents = struct.unpack_from("<9sQBQQ", index)
    assert (magic, version, documents) == (b"MMIDIDX\x00\x00", 1, sequences + 1)
    dtype = np.dtype({4: "<i4", 8: "<u2"}[code])
    lengths = np.frombuffer(index, "<i4", sequences, 34)
    offsets = np.frombuffer(index, "<i8", sequences, 34 + 4 * sequences)
    assert np.frombuffer(index, "<i8", -1, 34 + 12 * sequences).tolist() == list(range(documents))
    assert len(index) == 34 + 12 * sequences + 8 * documents
    assert int(lengths.sum()) * dtype.itemsize == len(tokens)
    return [np.frombuffer(tokens, dtype, n, at).tolist() for n, at in zip(lengths, offsets, strict=True)], dtype


@pytest.fixture(scope="module")
def tekken() -> Tokenizer:
    return shards.model(Megatron())


def encode(params: Megatron, model: Tokenizer, *cuts: int) -> tuple[Memory, dict[str, Any]]:
    files = Memory()
    return files, dict(shards.encode(iter(batches(*cuts)), params, files, model=model))


def test_a_plain_reader_finds_every_document_with_its_end(tekken: Tokenizer) -> None:
    files, summary = encode(Megatron(), tekken)
    documents, dtype = read(files[".idx"], files[".bin"])
    plain = [ids.tolist() for ids in open_tokenizer(Vocabulary()).encode([t for t in TEXTS if t])]
    assert documents == [[*ids, 2] for ids in plain]
    assert dtype == np.int32
    assert summary["rows"] == 5
    assert (summary["documents"], summary["empty"]) == (3, 2)
    assert summary["tokens"] == sum(map(len, documents))


def test_the_way_back_leads_from_a_document_to_its_id(tekken: Tokenizer) -> None:
    files, _ = encode(Megatron(bos=True), tekken)
    documents, _ = read(files[".idx"], files[".bin"])
    back = pq.read_table(io.BytesIO(files[".docs.parquet"])).to_pydict()
    assert back["id"] == [f"{n:032x}" for n in (0, 2, 4)]
    assert back["tokens"] == [len(d) for d in documents]
    assert back["start"] == [0, *np.cumsum(back["tokens"])[:-1]]
    assert all(d[0] == 1 and d[-1] == 2 for d in documents)


def test_bytes_do_not_depend_on_how_rows_are_batched(tekken: Tokenizer) -> None:
    whole, _ = encode(Megatron(), tekken)
    cut, _ = encode(Megatron(), tekken, 1, 1, 4)
    assert {s: whole[s] for s in whole.files} == {s: cut[s] for s in cut.files}


def test_small_vocabularies_take_two_bytes_a_token(tekken: Tokenizer) -> None:
    small = Tokenizer(lambda texts: [np.frombuffer(t.encode(), np.uint8).astype(np.int32) for t in texts], 257, 256, None)
    files, _ = encode(Megatron(), small)
    documents, dtype = read(files[".idx"], files[".bin"])
    assert dtype == np.uint16
    assert documents[0] == [*TEXTS[0].encode(), 256]  # type: ignore[union-attr]
    assert read(encode(Megatron(dtype="int32"), small)[0][".idx"], encode(Megatron(dtype="int32"), small)[0][".bin"])[1] == np.int32
    with pytest.raises(ValueError, match="uint16"):
        shards.model(Megatron(dtype="uint16"))


def test_the_blend_file_weighs_shards_by_their_tokens(tekken: Tokenizer) -> None:
    summary = encode(Megatron(), tekken)[1]
    empty = dict(shards.encode(iter([]), Megatron(), Memory(), model=tekken))
    parts = [{**summary, "name": "b/1"}, {**empty, "name": "a/0"}, {**summary, "name": "a/2"}]
    files = shards.finish(parts, Megatron(prefix="/data/"))
    assert files["blend.txt"].decode().split() == [str(summary["tokens"]), "/data/a/2", str(summary["tokens"]), "/data/b/1"]
    assert files["prefixes.txt"].decode().split() == ["/data/a/2", "/data/b/1"]
    assert orjson.loads(files["splits.json"]) == {"train": files["blend.txt"].decode().split(), "valid": None, "test": None}
    facts = orjson.loads(files["megatron.json"])
    assert facts["tokens"] == 2 * summary["tokens"]
    assert (facts["dtype"], facts["vocab_size"], facts["eod_id"], facts["bos_id"]) == ("int32", 131072, [2], [])
    with pytest.raises(ValueError, match="white space"):
        shards.finish(parts, Megatron(prefix="/my data/"))


def mixture(copies: int = 1) -> pa.Table:
    names = {"phase": ["p1", "p1", "p1", "p2", "p2"], "step": ["web", "web", "wiki", "web", "wiki"], "copies": [1, 1, copies, 1, 1]}
    columns = {name: pa.array(values, pa.int32() if name == "copies" else pa.string()) for name, values in names.items()}
    return pa.table(
        {"id": [f"d{n}" for n in range(5)], "text": pa.array(["a b", "c", "the mill", "water", "wheel"], TEXT), **columns}
    )


def test_every_phase_and_source_gets_files_and_the_weight_of_its_copies(tekken: Tokenizer) -> None:
    params, files = Megatron(split_by=("phase", "step")), Memory()
    summary = dict(shards.encode(iter([mixture(3).slice(0, 2), mixture(3).slice(2)]), params, files, model=tekken))
    stems = [".p1.web", ".p1.wiki", ".p2.web", ".p2.wiki"]
    assert sorted(files.files) == sorted(f"{stem}{suffix}" for stem in stems for suffix in (".bin", ".idx", ".docs.parquet"))
    documents, _ = read(files[".p1.web.idx"], files[".p1.web.bin"])
    assert documents == [[*ids.tolist(), 2] for ids in tekken.encode(["a b", "c"])]
    assert pq.read_table(io.BytesIO(files[".p1.web.docs.parquet"]))["id"].to_pylist() == ["d0", "d1"]
    made = shards.finish([{**summary, "name": f"parts/{n}"} for n in range(4)], params.model_copy(update={"valid": 1, "test": 1}))
    weights = dict(zip(*[iter(made["blend-p1.txt"].decode().split())] * 2, strict=True))
    wiki = len(tekken.encode(["the mill"])[0]) + 1
    assert set(made["blend-p1.txt"].decode().split()[1::2]) == {f"parts/{n}{stem}" for n in (0, 1) for stem in stems[:2]}
    assert str(3 * wiki) in weights
    splits = orjson.loads(made["splits-p2.json"])
    assert [words[1::2] for words in splits.values()] == [
        [f"parts/{n}{stem}" for n in some for stem in stems[2:]] for some in ((0, 1), (2,), (3,))
    ]
    assert [group["values"] for group in orjson.loads(made["megatron.json"])["groups"]] == [s[1:].split(".") for s in stems]


def test_repeats_that_only_a_weight_can_make_are_refused_in_shared_files(tekken: Tokenizer) -> None:
    with pytest.raises(ValueError, match="set split_by to"):
        shards.encode(iter([mixture(2)]), Megatron(), Memory(), model=tekken)
    shards.encode(iter([mixture(1)]), Megatron(), Memory(), model=tekken)


def test_names_that_a_blend_cannot_hold_and_too_few_shards_are_refused(tekken: Tokenizer) -> None:
    table = mixture().set_column(3, "step", pa.array(["crawl ++"] * 5))
    with pytest.raises(ValueError, match=r"'crawl \+\+' of 'step' cannot stand in a file name"):
        shards.encode(iter([table]), Megatron(split_by=("step",)), Memory(), model=tekken)
    summary = {**dict(shards.encode(iter([mixture()]), Megatron(), Memory(), model=tekken)), "name": "parts/0"}
    with pytest.raises(ValueError, match="1 shards are held out for validation and testing, and there are 1"):
        shards.finish([summary], Megatron(valid=1))


def test_a_document_longer_than_all_others_together_is_one_sequence(tekken: Tokenizer) -> None:
    count = 10_000_000
    long = Tokenizer(lambda texts: [np.arange(count if t == "long" else 1, dtype=np.int32) for t in texts], 2**30, 7, None)
    table = pa.table({"id": ["a", "b"], "text": pa.array(["long", "b"], TEXT)})
    files = Memory()
    summary = shards.encode(iter([table]), Megatron(), files, model=long)
    documents, _ = read(files[".idx"], files[".bin"])
    assert [len(d) for d in documents] == [count + 1, 2]
    assert summary["tokens"] == count + 3


def test_a_vocabulary_without_an_end_is_refused_unless_none_is_wanted(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Fast
    from tokenizers import models

    path = tmp_path / "tokenizer.json"
    Fast(models.WordLevel({"a": 0, "?": 1}, unk_token="?")).save(str(path))
    with pytest.raises(ValueError, match="eod_token"):
        shards.model(Megatron(tokenizer=str(path)))
    assert shards.model(Megatron(tokenizer=str(path), eod=False)).eod is None


@given(
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), max_size=6),
    st.sampled_from([(), (7,), (7, 8)]),
    st.sampled_from([(), (9,), (9, 6)]),
)
def test_documents_stand_between_their_ends(documents: list[list[int]], before: tuple[int, ...], after: tuple[int, ...]) -> None:
    flat = np.array([token for one in documents for token in one], np.int32)
    ends = (np.array(before, np.int32), np.array(after, np.int32))
    stream, lengths = framed((flat, np.array([len(one) for one in documents], np.int64)), ends)
    plain = [[*before, *one, *after] for one in documents]
    assert stream.tolist() == [token for one in plain for token in one]
    assert lengths.tolist() == [len(one) for one in plain]
