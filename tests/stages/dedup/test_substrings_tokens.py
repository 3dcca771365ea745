"""Repeated spans of tokens, against looking at every window of every document."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.contract import TEXT
from stages.dedup.spans import gather
from stages.dedup.substrings import anchors, repeats
from stages.tokenize import places
from stages.tokenizers import Vocabulary, open_tokenizer

PHRASES = ["the quick brown fox ", "abcabcab", "aaaaaaaa", "é日本語 ", "x", " lorem ipsum, dolor", "𝒜\n\n"]
TEXTS = st.lists(st.lists(st.sampled_from(PHRASES), max_size=9).map("".join), min_size=1, max_size=5)
TRIMMED = {True: "trimmed", False: "whole"}


@pytest.fixture(scope="module")
def vocabularies(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Two small byte-level tokenizers of Hugging Face: one leaves the space before a word out of the word's place."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    found = {}
    for trim in (True, False):
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.post_processor = processors.ByteLevel(trim_offsets=trim)
        trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
        made.train_from_iterator(PHRASES, trainer)
        found[trim] = tmp_path_factory.mktemp("vocabulary") / f"{TRIMMED[trim]}.json"
        made.save(str(found[trim]))
    return found


def exchanged(stage: Any, table: pa.Table, params: Any) -> pa.Table:
    emitted = stage.emit(table.select(list(stage.reads_of(params))), params)
    assert {f.name: f.type for f in emitted.schema} == stage.emits_of(params)
    emitted = emitted.take(np.argsort(emitted["key"].to_numpy(), kind="stable"))
    return pa.concat_tables(stage.settle(iter([emitted]), params))


def with_column(table: pa.Table, found: pa.Table, name: str) -> pa.Table:
    place = {row: i for i, row in enumerate(found["row"].to_pylist())}
    take = pa.array([place.get(row) for row in table["row"].to_pylist()], pa.int64())
    return table.append_column(name, found[name].combine_chunks().take(take))


def spans(texts: list[str], tokenizer: Path, size: int, keep: str) -> list[list[tuple[int, int]]]:
    table = pa.table({"id": [f"{i:032x}" for i in range(len(texts))], "row": np.arange(len(texts)), "text": pa.array(texts, TEXT)})
    params = places.params(tokenizer=str(tokenizer), engine="reference")
    table = table.append_column("token_places", places(table, params, model=places.model(params))["token_places"])
    grams = exchanged(anchors, table, anchors.params(unit="tokens", size=size))
    table = with_column(table, exchanged(gather, grams, gather.params(column="anchors")), "anchors")
    found = exchanged(repeats, table, repeats.params(unit="tokens", size=size, keep=keep))
    made = with_column(table, exchanged(gather, found, gather.params()), "spans")["spans"].to_pylist()
    return [[] if v is None else [tuple(p) for p in np.frombuffer(v, "<i8").reshape(-1, 2).tolist()] for v in made]


def plain(texts: list[str], tokenizer: Path, size: int, keep: str) -> list[list[tuple[int, int]]]:
    cut = open_tokenizer(Vocabulary(tokenizer=str(tokenizer), engine="reference")).places(texts)
    windows: dict[bytes, list[tuple[int, int, int, int]]] = {}
    for row, tokens in enumerate(cut):
        mark = xxhash.xxh3_64_intdigest(f"{row:032x}") >> 8
        for at in range(len(tokens) - size + 1):
            name = tokens[at : at + size, 0].tobytes()
            windows.setdefault(name, []).append((mark, row, int(tokens[at, 1]), int(tokens[at + size - 1, 2])))
    go, stay = ([np.zeros(len(t.encode()), bool) for t in texts] for _ in range(2))
    for found in windows.values():
        for n, (_, row, start, stop) in enumerate(sorted(found) if len(found) > 1 else []):
            (stay if n == 0 and keep == "first" else go)[row][start:stop] = True
    edges = [np.flatnonzero(np.diff(np.r_[False, a & ~b, False])).reshape(-1, 2) for a, b in zip(go, stay, strict=True)]
    return [[(int(x), int(y)) for x, y in rows] for rows in edges]


@settings(max_examples=60)
@given(TEXTS, st.integers(8, 14), st.sampled_from(["first", "none"]), st.booleans())
def test_spans_are_exactly_the_bytes_of_repeated_tokens(
    vocabularies: dict[bool, Path], texts: list[str], size: int, keep: str, trim: bool
) -> None:
    assert spans(texts, vocabularies[trim], size, keep) == plain(texts, vocabularies[trim], size, keep)


def test_places_name_the_bytes_of_every_token(vocabularies: dict[bool, Path]) -> None:
    from tokenizers import Tokenizer

    text = "the quick 日本語 brown 𝒜 fox\n\n lorem"
    for trim, path in vocabularies.items():
        (found,) = open_tokenizer(Vocabulary(tokenizer=str(path), engine="reference")).places([text])
        assert found[:, 0].tolist() == Tokenizer.from_file(str(path)).encode(text).ids
        covered = np.zeros(len(text.encode()), bool)
        for _, start, stop in found.tolist():
            covered[start:stop] = True
            text.encode()[start:stop].decode()
        gaps = bytes(b for b, c in zip(text.encode(), covered, strict=True) if not c)
        assert gaps == (b" " * len(gaps) if trim else b"")
    tekken = open_tokenizer(Vocabulary())
    (ids,) = tekken.encode([text])
    (found,) = tekken.places([text])
    assert found[:, 0].tolist() == ids.tolist()
    assert found[0, 1] == 0
    assert found[-1, 2] == len(text.encode())
    assert (found[1:, 1] == found[:-1, 2]).all()


RECIPE = """
name: spans_of_tokens
steps:
  read:     {uses: stages.ingest.jsonl.rows, with: {paths: "${here}/rows.jsonl", columns: {id: id}}}
  tokens:   {uses: stages.tokenize.places, from: read, with: {tokenizer: "${here}/tokenizer.json"}}
  grams:    {uses: stages.dedup.substrings.anchors, from: tokens, with: {unit: tokens, size: 10, partitions: 2}}
  anchored: {uses: stages.dedup.spans.gather, from: grams, with: {column: anchors, partitions: 2}}
  again:    {uses: stages.tokenize.places, from: anchored, with: {tokenizer: "${here}/tokenizer.json"}}
  windows:  {uses: stages.dedup.substrings.repeats, from: again, with: {unit: tokens, size: 10, partitions: 2}}
  spans:    {uses: stages.dedup.spans.gather, from: windows, with: {partitions: 2}}
  cleared:  {uses: stages.dedup.spans.cut, from: spans}
"""


def test_through_the_engine_tokens_are_made_where_they_are_read_and_never_stored(
    engine: Any, vocabularies: dict[bool, Path]
) -> None:
    engine.write("tokenizer.json", vocabularies[False].read_bytes())
    texts = ["one: " + PHRASES[0] * 4 + "end", "alone and short", PHRASES[0] * 4 + " of two"]
    engine.rows("rows.jsonl", [{"id": f"{i:032x}", "text": text} for i, text in enumerate(texts)])
    assert engine.run(RECIPE).code == 0
    expected = plain(texts, vocabularies[False], 10, "first")
    assert sum(map(len, expected)) > 0
    for row, text, cut in zip(engine.table("cleared"), texts, expected, strict=True):
        gone = sum(b - a for a, b in cut)
        assert row["cut_bytes"] == gone
        assert len((row["text"] if gone else text).encode()) == len(text.encode()) - gone
    assert "token_places" not in engine.table("tokens")[0]
