"""Exports copied to where training reads, and read there by their consumers."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import pytest

from manifests.store import StoreError
from pipelines.deliver import SUMS, deliver

RECIPE = """
name: out
steps:
  docs:    {uses: stages.ingest.jsonl.rows, with: {paths: "${here}/rows*.jsonl", columns: {id: id, text: text}, keep: {quality: string, kind: string, tokens: int32}, source: news}}
  spread:  {uses: stages.shuffle.by_hash, from: docs, with: {shards: 3, columns: {quality: string, kind: string, tokens: int32}}}
  hive:    {uses: stages.export.parquet.hive, from: spread, with: {partition_by: [quality, kind], columns: {tokens: int32}}}
  hub:     {uses: stages.export.dataset.folder, from: spread, with: {title: Grist, summary: "All of it.", license: odc-by}}
  tokens:  {uses: stages.export.megatron.shards, from: spread, with: {split_by: [quality], tokenizer: "${here}/bytes.tiktoken", pattern: '.', specials: {"<|endoftext|>": 256}}}
publish: {grist: hive, hub: hub, tokens: tokens, rows: spread}
"""


@pytest.fixture
def made(engine: Any) -> Any:
    rows = [
        {
            "id": f"d{n}",
            "text": f"row {n} of the mill",
            "quality": ["high", "low"][n % 3 > 0],
            "kind": ["actual", "synthetic"][n % 2],
            "tokens": n,
        }
        for n in range(60)
    ]
    engine.write("bytes.tiktoken", b"".join(base64.b64encode(bytes([b])) + b" %d\n" % b for b in range(256)))
    for unit in range(2):
        engine.rows(f"rows{unit}.jsonl", rows[unit::2])
    assert engine.run(RECIPE).code == 0
    return engine


def quiet(_: str) -> None: ...


def digests(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def sums(folder: Path) -> dict[str, str]:
    return {line.split("  ", 1)[1]: line.split("  ", 1)[0] for line in (folder / SUMS).read_text().splitlines()}


def test_duckdb_and_datasets_read_the_hive_layout_by_its_folders(made: Any, tmp_path: Path) -> None:
    import datasets
    import duckdb

    where = tmp_path / "grist"
    deliver(made.store, "grist", str(where), quiet)
    assert {p.parent.name for p in where.rglob("*.parquet")} == {"kind=actual", "kind=synthetic"}
    query = f"select quality, kind, count(*), sum(tokens) from read_parquet('{where}/**/*.parquet', hive_partitioning=true) group by all order by all"
    expected = {
        (q, k): [n for n in range(60) if ["high", "low"][n % 3 > 0] == q and ["actual", "synthetic"][n % 2] == k]
        for q in ("high", "low")
        for k in ("actual", "synthetic")
    }
    assert duckdb.sql(query).fetchall() == [(q, k, len(ns), sum(ns)) for (q, k), ns in sorted(expected.items())]
    loaded = datasets.load_dataset(
        "parquet", data_files=str(where / "quality=high" / "**" / "*.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded.num_rows == 20
    assert digests(where) == sums(where) | {SUMS: digests(where)[SUMS]}


def test_datasets_opens_the_hub_folder_by_its_card(made: Any, tmp_path: Path) -> None:
    import datasets

    where = tmp_path / "hub"
    deliver(made.store, "hub", str(where), quiet)
    loaded = datasets.load_dataset(str(where), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    assert sorted(loaded["train"]["id"]) == sorted(f"d{n}" for n in range(60))
    from huggingface_hub import DatasetCard

    card = DatasetCard.load(where / "README.md")
    assert (card.data.license, card.data.pretty_name, card.data.size_categories) == ("odc-by", "Grist", ["n<1K"])
    assert "| news | 60 |" in card.text


def test_blend_files_name_what_was_copied(made: Any, tmp_path: Path) -> None:
    where = tmp_path / "tokens"
    deliver(made.store, "out.tokens", str(where), quiet)
    words = (where / "blend-high.txt").read_text().split()
    assert len(words) == 2 * 3
    assert all((where / f"{name}.bin").exists() and (where / f"{name}.idx").exists() for name in words[1::2])


def test_a_copy_goes_on_where_it_stopped_and_does_not_copy_twice(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines import deliver as module

    where, copied = tmp_path / "grist", []
    real = module._copy

    def stopping(place: Any, piece: Any) -> None:
        if len(copied) == 4:
            raise OSError(28, "No space left on device")
        copied.append(piece)
        real(place, piece)

    monkeypatch.setattr(module, "_copy", stopping)
    with pytest.raises(OSError, match="No space left"):
        deliver(made.store, "grist", str(where), quiet)
    assert not (where / SUMS).exists()
    monkeypatch.setattr(module, "_copy", real)
    total = len(module.pieces(made.store, "grist"))
    assert deliver(made.store, "grist", str(where), quiet) == total - 4
    assert deliver(made.store, "grist", str(where), quiet) == 0
    next(where.rglob("*.parquet")).unlink()
    assert deliver(made.store, "grist", str(where), quiet) == 1


def test_a_file_that_rotted_in_the_store_is_not_passed_on(made: Any, tmp_path: Path) -> None:
    victim = sorted((made.store.root / "objects").glob("hive-*/parts/*.parquet"))[1]
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(bytes(data))
    with pytest.raises(StoreError, match="not the bytes that the store wrote down; run `gristmill verify`"):
        deliver(made.store, "grist", str(tmp_path / "grist"), quiet)
    assert not list((tmp_path / "grist").rglob("drafts"))


def test_a_copy_that_changed_on_its_way_is_taken_back(made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from manifests.place import Folder

    def torn(self: Folder, draft: Path, key: str) -> None:
        path = Path(self.root) / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draft.read_bytes()[:-1] + b"!")
        draft.unlink()

    monkeypatch.setattr(Folder, "publish", torn)
    with pytest.raises(StoreError, match="not the bytes that the store wrote down"):
        deliver(made.store, "grist", str(tmp_path / "grist"), quiet)
    assert not [p for p in (tmp_path / "grist").rglob("*") if p.is_file()]


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("rows", "names? a step that writes files"),
        ("nothing", "neither a published name .*grist, hub, rows, tokens"),
        ("out.docs", "makes rows"),
    ],
)
def test_what_is_no_export_is_refused(made: Any, tmp_path: Path, name: str, fault: str) -> None:
    with pytest.raises(StoreError, match=fault):
        deliver(made.store, name, str(tmp_path / "x"), quiet)


def test_an_unknown_kind_of_store_is_refused(made: Any) -> None:
    with pytest.raises(OSError, match="nosuch"):
        deliver(made.store, "grist", "nosuch://x/y", quiet)
