"""Promises about bytes: identities, parts, journals, manifests, spills."""

from __future__ import annotations

import io
import math
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.fingerprint import canonical, fingerprint
from manifests.manifest import Receipt, parse_journal, parts_table, receipts_of, units_hash
from manifests.shard import PartDraft, TableWriter
from manifests.spill import by_key, by_order, partition_of, read_index, read_partition, write_spill
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


rows = st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**40)), max_size=60)


@settings(deadline=None, max_examples=60)
@given(st.lists(rows, min_size=1, max_size=4), st.integers(1, 9), st.integers(1, 7))
def test_a_spill_brings_every_row_to_its_partition_once_and_in_order(tmp_path_factory, spills, partitions, cut):
    folder = tmp_path_factory.mktemp("spills")
    schema = pa.schema([("key", pa.uint64()), ("row", pa.int64())])
    paths = []
    for i, found in enumerate(spills):
        table = pa.table({"key": pa.array([k for k, _ in found], pa.uint64()), "row": pa.array([r for _, r in found], pa.int64())})
        paths.append(folder / f"{i}.spill")
        with paths[-1].open("wb") as file:
            write_spill(file, table, partitions)
    everything = []
    for partition in range(partitions):
        table = by_order(pa.concat_tables([schema.empty_table(), *read_partition(paths, partition)]))
        got = list(zip(table["key"].to_pylist(), table["row"].to_pylist(), strict=True))
        assert got == sorted(got)
        assert all(partition_of(np.array([k], np.uint64), partitions)[0] == partition for k, _ in got)
        pieces = list(by_key(table, cut))
        keys = [set(p["key"].to_pylist()) for p in pieces]
        assert sum(len(k) for k in keys) == len(set().union(*keys)), "no key is cut in two"
        everything += got
    assert sorted(everything) == sorted(pair for found in spills for pair in found)
    assert everything == sorted(everything), "partition order is key order"


def test_a_spill_that_was_cut_off_is_named(tmp_path):
    path = tmp_path / "a.spill"
    with path.open("wb") as file:
        write_spill(file, pa.table({"key": pa.array([1], pa.uint64()), "row": pa.array([1])}), 2)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match="cut off; delete it"):
        read_index(path)
    with pytest.raises(ValueError, match="cut off"):
        list(read_partition([path], 0))


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
    target.part("u").unlink()
    assert target.receipts() == {}


@given(st.lists(st.integers(0, 6), max_size=200), st.booleans())
def test_the_fast_order_of_keys_is_the_stable_one(keys, spread):
    import numpy as np

    from manifests.spill import _stable

    found = np.array(keys, np.uint64) * np.uint64(2**61 if spread else 1)
    assert _stable(found).tolist() == sorted(range(len(keys)), key=lambda i: int(found[i]))
