from __future__ import annotations

import gzip
import hashlib
import os
import time
from pathlib import Path

import pytest
import zstandard

from stages.ingest import files


def fill(root: Path, names: list[str]) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a/*.gz", ["1.gz", "2.gz"]),
        ("a/1.gz", ["1.gz"]),
        ("*/1.gz", ["a/1.gz", "b/1.gz"]),
        ("**/*.gz", ["a/1.gz", "a/2.gz", "b/1.gz", "b/c/3.gz", "top.gz"]),
        ("b/**", ["1.gz", "c/3.gz", "c/x.txt"]),
        ("[ab]/?.gz", ["a/1.gz", "a/2.gz", "b/1.gz"]),
        ("b/.hidden/*", ["4.gz"]),
        ("./b/*.gz", ["b/1.gz"]),
        ("./b/c/3.gz", ["b/c/3.gz"]),
        ("b/./**", ["1.gz", "c/3.gz", "c/x.txt"]),
    ],
)
def test_names_are_paths_under_the_longest_plain_folder(tmp_path, pattern, names):
    fill(tmp_path, ["a/1.gz", "a/2.gz", "b/1.gz", "b/c/3.gz", "b/c/x.txt", "b/.hidden/4.gz", "top.gz"])
    found = files.expand(f"{tmp_path}/{pattern}")
    assert [file.name for file in found] == names
    for file in found:
        assert Path(file.path).stat().st_size == file.size
        assert file.witness == "sha256:" + hashlib.sha256(Path(file.path).read_bytes()).hexdigest()


def test_a_store_takes_names_from_behind_the_mark_as_well(tmp_path):
    fill(tmp_path, ["a/1.gz", "b/1.gz"])
    for pattern, name in (("a/./1.gz", "1.gz"), ("./a/*.gz", "a/1.gz")):
        (found,) = files._remote(f"local://{tmp_path}/{pattern}")
        assert found.name == name


def test_lists_and_commas_mean_the_same_and_an_input_named_twice_is_one(tmp_path):
    fill(tmp_path, ["a/1", "b/2"])
    listed = files.expand([f"{tmp_path}/a/*", f"{tmp_path}/b/2", f"{tmp_path}/a/1"])
    assert listed == files.expand(f"{tmp_path}/a/*, {tmp_path}/b/2")
    assert [file.name for file in listed] == ["1", "2"]


def test_two_inputs_with_one_name_are_refused(tmp_path):
    fill(tmp_path, ["a/1", "b/1"])
    with pytest.raises(ValueError, match=r"two inputs are called '1'.*one glob from a folder above"):
        files.expand([f"{tmp_path}/a/1", f"{tmp_path}/b/*"])


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("data/*.warc", "no file matches .*data/\\*.warc.*there is a.gz, b.gz"),
        ("data/c.gz", "no file matches .*data/c.gz.*there is a.gz, b.gz"),
        ("absent/c.gz", "the folder .*absent.* is not there"),
    ],
)
def test_a_pattern_without_files_says_what_is_there(tmp_path, pattern, message):
    fill(tmp_path, ["data/a.gz", "data/b.gz"])
    with pytest.raises(ValueError, match=message):
        files.expand(f"{tmp_path}/{pattern}")
    with pytest.raises(ValueError, match="paths is empty"):
        files.expand("")


def test_a_witness_sees_both_ends_and_the_middle_and_no_time(tmp_path):
    path = tmp_path / "x"
    data = bytearray(os.urandom(1 << 20))
    seen = []
    for at in (None, 0, len(data) // 2, len(data) - 1):
        if at is not None:
            data[at] ^= 1
        path.write_bytes(data)
        seen.append(files.witness_of(str(path), len(data)))
    assert len(set(seen)) == 4
    os.utime(path, (1, 1))
    assert files.witness_of(str(path), len(data)) == seen[-1]


def test_a_remembered_witness_is_not_read_again(tmp_path, monkeypatch):
    fill(tmp_path, ["1", "2"])
    cache: dict[files.Stamp, str] = {}
    with files.remembered(cache):
        first = files.expand(f"{tmp_path}/*")
        monkeypatch.setattr(files, "witness_of", None)
        assert files.expand(f"{tmp_path}/*") == first
    assert {stamp[0] for stamp in cache} == {file.path for file in first}
    monkeypatch.undo()
    (tmp_path / "2").write_bytes(b"other")
    with files.remembered(cache):
        assert files.expand(f"{tmp_path}/*")[1] != first[1]


def test_a_warm_cache_makes_listing_cheap(tmp_path):
    for number in range(3000):
        (tmp_path / f"{number}.gz").touch()
    cache: dict[files.Stamp, str] = {}
    with files.remembered(cache):
        files.expand(f"{tmp_path}/*.gz")
        begun = time.process_time()
        assert len(files.expand(f"{tmp_path}/*.gz")) == 3000
    # 12 us were measured with 20,000 files; the bound leaves room for a busy machine.
    assert (time.process_time() - begun) / 3000 < 200e-6


def test_compressed_content_is_inflated_over_all_its_members(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"one ") + gzip.compress(b"two"))
    (tmp_path / "a.zst").write_bytes(zstandard.compress(b"one ") + zstandard.compress(b"two"))
    (tmp_path / "a").write_bytes(b"one two")
    for name in ("a.gz", "a.zst", "a"):
        with files.open_content(str(tmp_path / name)) as file:
            assert b"".join(iter(lambda: file.read(100), b"")) == b"one two"


def test_stores_are_read_through_fsspec():
    import fsspec

    store = fsspec.filesystem("memory")
    store.pipe({"/ingest/a/1.gz": b"one", "/ingest/a/2.gz": b"two", "/ingest/b.txt": b"no"})
    found = files.expand("memory://ingest/a/*.gz")
    assert [(file.name, file.size) for file in found] == [("1.gz", 3), ("2.gz", 3)]
    assert found[0].witness == "sha256:" + hashlib.sha256(b"one").hexdigest()
    with files.open_file(found[1].path) as file:
        assert file.read() == b"two"
    with pytest.raises(ValueError, match=r"no file matches.*there is 1.gz, 2.gz"):
        files.expand("memory://ingest/a/*.warc")


@pytest.mark.parametrize(
    ("size", "unit", "parts"), [(0, 10, 1), (10, 10, 1), (14, 10, 1), (16, 10, 2), (100, 10, 10), (104, 10, 10)]
)
def test_ranges_cover_a_file_without_a_short_rest(size, unit, parts):
    found = list(files.ranges(size, unit))
    assert [start for start, _ in found] == [number * unit for number in range(parts)]
    assert [stop for _, stop in found] == [*(number * unit for number in range(1, parts)), None]
