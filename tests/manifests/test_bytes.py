"""Promises about bytes: identities, parts, journals, manifests, spills."""

from __future__ import annotations

import io
import math
from collections import Counter
from itertools import pairwise
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.fingerprint import canonical, fingerprint
from manifests.manifest import Receipt, parse_journal, parts_table, receipts_of, units_hash
from manifests.shard import PartDraft, TableWriter
from manifests.spill import merge_spills, merged, partition_of, read_index, read_partition, stable_order, taken, write_spill
from manifests.store import Journal, Store

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(plain)
def test_a_fingerprint_is_that_of_the_canonical_form_and_does_not_see_key_order(value):
    assert fingerprint(value) == fingerprint(value)
    if isinstance(value, dict):
        assert fingerprint(dict(reversed(list(value.items())))) == fingerprint(value)


@pytest.mark.parametrize("value", [{"a": object()}, {1: "a"}, {"a": b"bytes"}, [lambda: 0]])
def test_what_has_no_canonical_form_is_refused_with_its_place(value):
    with pytest.raises(TypeError, match=r"^\$"):
        canonical(value)


def test_not_a_number_has_no_identity():
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical({"a": math.nan})


receipts = st.builds(
    Receipt, unit=st.text("0123456789abcdef", min_size=1, max_size=16), name=st.text(max_size=8), rows=st.integers(0, 10**9),
    files=st.dictionaries(st.sampled_from([".parquet", ".bin"]), st.tuples(st.integers(0, 10**9), st.text("0123456789abcdef", max_size=8)), max_size=2),
    counts=st.dictionaries(st.text(max_size=4), st.integers(0, 9), max_size=2), seconds=st.floats(0, 9, allow_nan=False),
)  # fmt: skip


@given(st.lists(receipts, max_size=5), st.integers(0, 40))
def test_a_journal_cut_anywhere_in_its_last_line_loses_that_line_only(found, cut):
    raw = b"".join(r.to_json() + b"\n" for r in found)
    torn = raw + (found[0].to_json()[:cut] if found else b"{")
    parsed, whole = parse_journal(torn)
    assert whole == len(raw)
    assert parsed == {r.unit: r for r in found}


def test_damage_inside_a_journal_is_named():
    with pytest.raises(ValueError, match="journal line 2 is damaged"):
        parse_journal(b'{"unit":"a","name":"","rows":0,"files":{},"counts":{},"seconds":0}\n{"unit\n')


@given(st.lists(receipts, max_size=5))
def test_receipts_come_back_from_the_table_of_parts(found):
    assert list(receipts_of(parts_table(found))) == found


def test_the_order_of_units_is_part_of_a_manifest_name():
    assert units_hash(["a", "b"]) != units_hash(["b", "a"])
    assert units_hash(["ab"]) != units_hash(["a", "b"])


def test_a_part_that_is_not_committed_leaves_nothing(tmp_path):
    def half():
        with PartDraft(tmp_path, "u") as draft:
            draft.open(".bin").write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert not (tmp_path / "parts").exists()
    assert list((tmp_path / "drafts").iterdir()) == []


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=12))
def test_parquet_bytes_do_not_depend_on_how_rows_were_batched(tmp_path_factory, sizes):
    schema = pa.schema([("n", pa.int64()), ("text", pa.large_string())])
    numbers = np.arange(sum(sizes))
    whole = pa.table({"n": numbers, "text": pa.array([f"row {i % 97}" for i in numbers], pa.large_string())})

    def written(pieces):
        file = io.BytesIO()
        writer = TableWriter(file, schema)
        for piece in pieces:
            writer.write(piece)
        writer.close()
        return file.getvalue()

    edges = np.cumsum([0, *sizes])
    batched = written([whole.slice(a, b - a) for a, b in pairwise(edges)])
    assert batched == written([whole])
    assert pq.read_table(io.BytesIO(batched)).equals(whole.cast(schema))


keys_ = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 5), st.integers(2**63 - 3, 2**63 + 3))
rows = st.lists(st.tuples(keys_, st.integers(0, 2**40), st.sampled_from([None, "", "é", "long" * 9])), max_size=60)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(rows, min_size=1, max_size=4), st.integers(1, 9), st.integers(1, 7), st.booleans(), st.booleans(), st.integers(0, 3)
)  # fmt: skip
def test_a_spill_brings_every_row_to_its_partition_once_and_in_order(
    tmp_path_factory, spills, partitions, cut, alone, near, fan_in
):
    folder = tmp_path_factory.mktemp("spills")
    schema = pa.schema([("key", pa.uint64()), ("row", pa.int64()), ("word", pa.string())])
    # `near`: the addresses of one shard, whose upper 32 bits are stored once
    spills = [[(k, (7 << 56) + (r % 2**32 if near else r), w) for k, r, w in found] for found in spills]
    paths = []
    for i, found in enumerate(spills):
        columns = [pa.array([row[c] for row in found], t) for c, t in enumerate(schema.types)]
        paths.append(folder / f"{i}.spill")
        with paths[-1].open("wb") as file:
            write_spill(file, pa.table(columns, schema=schema), partitions)
    if fan_in:
        paths = [_joined(paths[i : i + fan_in], schema) for i in range(0, len(paths), fan_in)]
    came = [row for found in spills for row in found]
    everything = []
    for partition in range(partitions):
        with mock.patch("manifests.spill.PER_SLICE", 1):
            pieces = list(merged(read_partition(paths, partition, schema), schema, cut, alone))
        assert all(p.schema == schema for p in pieces)
        seen = [set(p["key"].to_pylist()) for p in pieces]
        assert sum(len(k) for k in seen) == len(set().union(*seen)), "no key is cut in two"
        assert all(partition_of(np.array([k], np.uint64), partitions)[0] == partition for k in set().union(*seen))
        everything += [tuple(row.values()) for p in pieces for row in p.to_pylist()]
    counts = Counter(k for k, _, _ in came)
    shown = [row for row in came if alone or counts[row[0]] > 1]
    assert everything == sorted(shown, key=lambda row: row[0]), "by key, then in input order; partition order is key order"


def _joined(paths, schema):
    """The spills in one, made as a merge task makes it."""

    def joined(partition):
        table = pa.Table.from_batches(read_partition(paths, partition, schema), schema)
        return taken(table, *stable_order(table["key"].to_numpy()))

    merged_path = paths[0].with_suffix(".merged")
    with merged_path.open("wb") as file:
        rows = merge_spills(file, paths, joined)
    assert rows == sum(b.num_rows for p in range(9) for b in read_partition(paths, p, schema))
    return merged_path


def test_a_partition_comes_in_tables_of_about_the_size_that_was_asked_for(tmp_path):
    rng = np.random.default_rng(7)
    schema = pa.schema([("key", pa.uint64()), ("n", pa.int64())])
    keys = [rng.integers(0, 2**64, 40_000, dtype=np.uint64) for _ in range(3)]
    paths = [tmp_path / f"{i}.spill" for i in range(3)]
    for path, found in zip(paths, keys, strict=True):
        with path.open("wb") as file:
            write_spill(file, pa.table({"key": found, "n": np.arange(len(found))}), 2)
    sizes = [t.num_rows for part in (0, 1) for t in merged(read_partition(paths, part, schema), schema, 8192)]
    assert sum(sizes) == 120_000
    assert 4096 < max(sizes) < 16_384
    assert len(sizes) < 20


def test_a_partition_of_very_many_small_slices_is_cut_as_well(tmp_path):
    schema = pa.schema([("key", pa.uint64()), ("n", pa.int64())])
    rng = np.random.default_rng(8)
    slices = [np.sort(rng.integers(0, 2**64, 20, dtype=np.uint64)) for _ in range(2000)]
    batches = [pa.record_batch([pa.array(k), pa.array(np.full(20, i))], schema=schema) for i, k in enumerate(slices)]
    with mock.patch("manifests.spill.PER_SLICE", 1):
        tables = list(merged(iter(batches), schema, 4096))
    assert 5 < len(tables) < 20
    assert max(t.num_rows for t in tables) < 3 * 4096
    got = np.concatenate([t["key"].to_numpy() for t in tables])
    assert got.tolist() == sorted(np.concatenate(slices).tolist())


def test_a_spill_that_was_cut_off_is_named(tmp_path):
    path = tmp_path / "a.spill"
    with path.open("wb") as file:
        write_spill(file, pa.table({"key": pa.array([1], pa.uint64()), "row": pa.array([1])}), 2)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match="cut off; delete it"):
        read_index(path)
    with pytest.raises(ValueError, match="cut off"):
        list(read_partition([path], 0, pa.schema([("key", pa.uint64()), ("row", pa.int64())])))


def test_a_receipt_counts_only_while_its_files_are_there(tmp_path):
    store = Store.open(tmp_path / "store")
    target = store.object("a-1")
    with PartDraft(target.path, "u") as draft:
        draft.open(".parquet").write(b"x")
        files = draft.commit()
    journal = Journal(target)
    journal.append(Receipt("u", "u", 1, files))
    journal.close()
    assert set(target.receipts()) == {"u"}
    Path(target.part("u")).unlink()
    assert target.receipts() == {}


@pytest.mark.parametrize("spread", [1, 2**40, 2**61])
@given(st.lists(st.integers(0, 6), max_size=200))
def test_the_fast_order_of_keys_is_the_stable_one(spread, keys):
    found = np.array(keys, np.uint64) * np.uint64(spread)
    order, placed = stable_order(found)
    assert order.tolist() == sorted(range(len(keys)), key=lambda i: int(found[i]))
    assert placed.tolist() == found[order].tolist()


def test_keys_that_agree_in_their_leading_bits_are_put_right():
    rng = np.random.default_rng(1)
    # 17 bits hold the row's number, so that keys which differ in their last bits alone look equal at first
    found = (rng.integers(0, 500, 70_000, dtype=np.uint64) << np.uint64(55)) + rng.integers(0, 99, 70_000, dtype=np.uint64)
    order, _ = stable_order(found)
    assert order.tolist() == np.argsort(found, kind="stable").tolist()
    order, placed = stable_order(found[:3000], alone=False)
    counts = Counter(found[:3000].tolist())
    assert placed.tolist() == sorted(k for k in found[:3000].tolist() if counts[k] > 1)
    assert found[order].tolist() == placed.tolist()
