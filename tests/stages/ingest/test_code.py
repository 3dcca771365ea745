"""Code out of repositories, folders, archives and datasets: languages, licences, and what may never be followed."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages import languages, licenses
from stages.ingest import code, trees

MIT = """MIT License

Copyright (c) 2026 A. Miller

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation
files (the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy,
modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the Software
is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES
OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE
LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR
IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
GPL = """# This program is free software; you can redistribute it and/or modify it under the terms of the GNU General
# Public License as published by the Free Software Foundation; either version 2 of the License, or (at your option)
# any later version.
import os
"""
TREE = {
    "LICENSE": MIT,
    "mill.py": "#!/usr/bin/env python3\nprint('grist')\n",
    "src/gear.h": "class Gear { public: virtual ~Gear(); };\n",
    "src/gear.c": "int turn(int n) { return n + 1; }\n",
    "src/copied.py": GPL,
    "third_party/LICENSE.txt": "All rights reserved by the miller and nobody else, ever.\n",
    "third_party/stone.js": "function stone() { return 1; }\n",
    "tagged.rs": "// SPDX-License-Identifier: MIT OR Apache-2.0\nfn main() {}\n",
    "notes.md": "# Notes\n",
    "data.json": "{}\n",
    "empty.py": "",
}


def lay(root: Path, tree: dict[str, str | bytes]) -> Path:
    for name, content in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def git(where: Path, *words: str) -> str:
    settings = (
        "-c",
        "user.name=m",
        "-c",
        "user.email=m@mill.example",
        "-c",
        "init.defaultBranch=main",
        "-c",
        "commit.gpgsign=false",
    )
    return subprocess.run(["git", *settings, "-C", str(where), *words], check=True, capture_output=True, text=True).stdout.strip()


def read(paths: Any, stage: Any = code.files, **params: Any) -> list[Any]:
    chosen = stage.params(paths=paths, **params)
    chunks = [chunk for unit in stage.units(chosen) for chunk in stage(unit, chosen)]
    for chunk in chunks:
        assert chunk.records == chunk.rows.num_rows + sum(chunk.skipped.values()) + len(chunk.bad)
    return chunks


def rows(chunks: list[Any]) -> dict[str, dict[str, Any]]:
    return {row["path"]: row for chunk in chunks for row in chunk.rows.to_pylist()}


def skipped(chunks: list[Any]) -> dict[str, int]:
    found: dict[str, int] = {}
    for chunk in chunks:
        for kind, count in chunk.skipped.items():
            found[kind] = found.get(kind, 0) + count
    return found


def packed(tree: dict[str, str], mode: str = "w:gz") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, content in tree.items():
            member = tarfile.TarInfo(name)
            member.size = len(content.encode())
            archive.addfile(member, io.BytesIO(content.encode()))
    return out.getvalue()


@pytest.fixture(params=["folder", "checkout", "bare", "tar.gz", "tar.xz"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param.startswith("tar"):
        path = tmp_path / f"mill.{request.param}"
        path.write_bytes(packed(TREE, "w:" + request.param[4:]))
        return path
    root = lay(tmp_path / "mill", TREE)
    if request.param != "folder":
        git(root, "init", "-q")
        git(root, "add", "-A")
        git(root, "commit", "-qm", "all")
    if request.param == "bare":
        git(tmp_path, "clone", "-q", "--bare", str(root), str(tmp_path / "bare" / "mill.git"))
        return tmp_path / "bare" / "mill.git"
    return root


def test_all_kinds_of_trees_give_the_same_rows(tree: Path) -> None:
    chunks = read(str(tree))
    found = rows(chunks)
    said = {path: (row["code_language"], row["license"], row["license_from"]) for path, row in found.items()}
    assert said == {
        "mill.py": ("Python", "MIT", "LICENSE"),
        "src/gear.h": ("C++", "MIT", "LICENSE"),
        "src/gear.c": ("C", "MIT", "LICENSE"),
        "src/copied.py": ("Python", "GPL-2.0-or-later", "header"),
        "third_party/stone.js": ("JavaScript", None, None),
        "tagged.rs": ("Rust", "MIT OR Apache-2.0", "header"),
    }
    assert skipped(chunks) == {"not_code": 4, "empty": 1}
    assert {row["repo"] for row in found.values()} == {"mill"}
    assert found["mill.py"]["text"] == TREE["mill.py"]


def test_a_pinned_commit_is_read_and_nothing_else(tmp_path: Path) -> None:
    root = lay(tmp_path / "mill", {"a.py": "x = 1\n"})
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "one")
    first = git(root, "rev-parse", "HEAD")
    lay(root, {"a.py": "x = 2\n", "b.py": "y = 1\n"})
    git(root, "commit", "-qam", "two")
    lay(root, {"a.py": "x = 3\n"})
    assert rows(read(str(root)))["a.py"]["text"] == "x = 2\n", "what is not committed is not there"
    old = rows(read(str(root), commit=first))
    assert {path: (row["text"], row["commit"]) for path, row in old.items()} == {"a.py": ("x = 1\n", first)}
    with pytest.raises(ValueError, match="mill: git rev-parse failed"):
        read(str(root), commit="no-such-branch")


def test_a_branch_that_moves_between_plan_and_run_is_read_as_planned(tmp_path: Path) -> None:
    root = lay(tmp_path / "mill", {"a.py": "x = 1\n"})
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "one")
    params = code.Files(paths=str(root))
    (unit,) = code.files.units(params)
    lay(root, {"a.py": "x = 2\n"})
    git(root, "commit", "-qam", "two")
    (chunk,) = code.files(unit, params)
    assert chunk.rows["text"].to_pylist() == ["x = 1\n"]
    (moved,) = code.files.units(params)
    assert moved.key != unit.key


def test_links_are_never_followed(tmp_path: Path) -> None:
    secret = lay(tmp_path / "outside", {"secret.py": "KEY = 'hidden'\n"})
    root = lay(tmp_path / "mill", {"a.py": "x = 1\n"})
    (root / "out.py").symlink_to(secret / "secret.py")
    (root / "folder").symlink_to(secret)
    (root / "loop").symlink_to(root)
    os.mkfifo(root / "pipe.py")
    chunks = read(str(root))
    assert set(rows(chunks)) == {"a.py"}
    assert skipped(chunks) == {"symlink": 3, "special": 1}
    git(root, "init", "-q")
    git(root, "add", "a.py", "out.py", "folder", "loop")
    git(root, "commit", "-qm", "links")
    chunks = read(str(root))
    assert (set(rows(chunks)), skipped(chunks)) == ({"a.py"}, {"symlink": 3})
    # A link that takes the place of a listed file is refused when it is opened.
    (entry,) = [e for e in trees.Folder("mill", str(root)).entries() if e.path == "a.py"]
    (root / "a.py").unlink()
    (root / "a.py").symlink_to(secret / "secret.py")
    with pytest.raises(OSError, match="symbolic link"):
        list(trees.Folder("mill", str(root)).read([entry], 100))


def test_a_tar_may_name_its_members_as_it_likes(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("../../etc/evil.py", "/abs.py", "./ok.py"):
            member = tarfile.TarInfo(name)
            member.size = 6
            archive.addfile(member, io.BytesIO(b"x = 1\n"))
        link = tarfile.TarInfo("link.py")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    (tmp_path / "odd.tar").write_bytes(out.getvalue())
    chunks = read(str(tmp_path / "odd.tar"))
    assert set(rows(chunks)) == {"../../etc/evil.py", "/abs.py", "ok.py"}
    assert skipped(chunks) == {"symlink": 1}
    assert sorted(os.listdir(tmp_path)) == ["odd.tar"]


def test_a_broken_archive_gives_what_lies_before_the_fault(tmp_path: Path) -> None:
    whole = packed({f"{n}.py": f"x = {n}\n" * 200 for n in range(9)}, "w")
    (tmp_path / "cut.tar").write_bytes(whole[:7000])
    chunks = read(str(tmp_path / "cut.tar"))
    assert list(rows(chunks)) == ["0.py", "1.py", "2.py"]
    assert {bad.reason for chunk in chunks for bad in chunk.bad} <= {"archive", "unreadable"}
    assert sum(len(chunk.bad) for chunk in chunks) >= 1
    (tmp_path / "none.tar").write_bytes(b"no archive at all")
    with pytest.raises(ValueError, match=r"none\.tar is no tar archive"):
        read(str(tmp_path / "none.tar"))


def test_bytes_that_are_not_utf8_are_decoded(tmp_path: Path) -> None:
    root = lay(tmp_path / "mill", {
        "latin.py": "# Müller, Größe und Straße\nx = 'é'\n".encode("latin-1"), "wide.py": "x = 'ż'\n".encode("utf-16"),
        "kanji.py": ("# 粉を挽く水車の説明です。\n" * 8 + "x = 1\n").encode("shift_jis"), "bom.py": b"\xef\xbb\xbfx = 1\n",
        "binary.py": b"\x7fELF\x00\x00\x01", "bad\udcff.py".encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape"): b"x = 1\n",
    })  # fmt: skip
    chunks = read(str(root))
    found = rows(chunks)
    assert "Müller, Größe und Straße" in found["latin.py"]["text"]
    assert found["wide.py"]["text"] == "x = 'ż'\n"
    assert found["kanji.py"]["text"].startswith("# 粉を挽く水車")
    assert found["bom.py"]["text"] == "x = 1\n"
    assert skipped(chunks) == {"binary": 1}
    assert "bad\\udcff.py" in found
    assert found["latin.py"]["encoding"] not in ("utf-8", None)


def test_ten_thousand_files_in_one_folder(tmp_path: Path) -> None:
    root = tmp_path / "many"
    root.mkdir()
    for n in range(10_000):
        (root / f"f{n:05d}.py").write_bytes(b"x = %d\n" % n)
    params = code.Files(paths=str(root))
    units = list(code.files.units(params))
    assert [(u.start, u.stop) for u in units] == [(0, 2000), (2000, 4000), (4000, 6000), (6000, 8000), (8000, None)]
    assert len({u.key for u in units}) == 5
    texts = [text for chunk in code.files(units[3], params) for text in chunk.rows["text"].to_pylist()]
    assert texts == [f"x = {n}\n" for n in range(6000, 8000)]


def test_a_large_file_is_skipped_by_size_alone(tmp_path: Path) -> None:
    root = lay(tmp_path / "mill", {"a.js": "var a=1;" * 4000, "b.js": "var b = 1;\n"})
    chunks = read(str(root), max_bytes=10_000)
    assert (set(rows(chunks)), skipped(chunks)) == ({"b.js"}, {"too_large": 1})


def test_names_are_identities_and_a_missing_input_is_said(tmp_path: Path) -> None:
    lay(tmp_path / "a" / "mill", {"a.py": "x = 1\n"})
    lay(tmp_path / "b" / "mill", {"a.py": "x = 1\n"})
    with pytest.raises(ValueError, match="two inputs are called 'mill'"):
        read([str(tmp_path / "a" / "mill"), str(tmp_path / "b" / "mill")])
    assert {row["repo"] for chunk in read(str(tmp_path / "*/mill")) for row in chunk.rows.to_pylist()} == {"a/mill", "b/mill"}
    with pytest.raises(ValueError, match="no folder, repository or tar archive matches"):
        read(str(tmp_path / "c*"))
    with pytest.raises(ValueError, match="neither a folder nor a tar archive"):
        read(str(tmp_path / "a" / "mill" / "a.py"))


STACK = {"content": ["x = 1\n", GPL, None], "max_stars_repo_path": ["a.py", "b.py", "c.py"], "max_stars_repo_name": ["m/mill"] * 3,
         "max_stars_repo_licenses": [["MIT", "apache-2.0"], ["no-such"], ["MIT"]], "lang": ["Python"] * 3}  # fmt: skip
PLAIN = {
    "code": ["int a;\n", GPL],
    "path": ["a.c", "b.py"],
    "repo_name": ["m/mill"] * 2,
    "license": ["mit", None],
    "language": ["C", "Python"],
}


def test_datasets_come_under_their_usual_names(tmp_path: Path) -> None:
    pq.write_table(pa.table(STACK), tmp_path / "stack.parquet")
    pq.write_table(pa.table(PLAIN), tmp_path / "plain.parquet")
    chunks = read(str(tmp_path / "*.parquet"), code.parquet)
    assert skipped(chunks) == {"no_text": 1}
    found = [(r["path"], r["code_language"], r["license"], r["license_from"]) for c in chunks for r in c.rows.to_pylist()]
    assert found == [
        ("a.c", "C", "MIT", "declared"), ("b.py", "Python", "GPL-2.0-or-later", "header"),
        ("a.py", "Python", "(Apache-2.0) AND (MIT)".replace("(", "").replace(")", ""), "declared"), ("b.py", "Python", None, "declared"),
    ]  # fmt: skip
    pq.write_table(pa.table({"body": ["x = 1"]}), tmp_path / "odd.parquet")
    with pytest.raises(ValueError, match=r"no column of source text .* there are body"):
        read(str(tmp_path / "odd.parquet"), code.parquet)
    assert read(str(tmp_path / "odd.parquet"), code.parquet, columns={"text": "body"})[0].rows["text"].to_pylist() == ["x = 1"]


def test_a_saved_dataset_reads_as_its_parquet_does(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_dict(STACK).save_to_disk(str(tmp_path / "saved"))
    pq.write_table(pa.table(STACK), tmp_path / "stack.parquet")
    params = code.Dataset(dataset=str(tmp_path / "saved"), unit_rows=2)
    units = list(code.dataset.units(params))
    saved = [row for unit in units for chunk in code.dataset(unit, params) for row in chunk.rows.to_pylist()]
    plain = [row for chunk in read(str(tmp_path / "stack.parquet"), code.parquet) for row in chunk.rows.to_pylist()]
    assert len(units) == 2
    assert [{k: v for k, v in row.items() if k != "origin"} for row in saved] == [
        {k: v for k, v in row.items() if k != "origin"} for row in plain
    ]


@pytest.mark.parametrize(
    ("expression", "permitted"),
    [("MIT", True), ("GPL-3.0-only", False), ("MIT OR GPL-3.0-only", True), ("MIT AND GPL-3.0-only", False), ("Apache-2.0 WITH LLVM-exception", True),
     ("(MIT AND Zlib) OR GPL-2.0-only", True), ("MIT AND (Zlib OR GPL-2.0-only)", True)],
)  # fmt: skip
def test_an_expression_is_permitted_when_it_can_be_satisfied(expression: str, permitted: bool) -> None:
    assert licenses.is_permitted(expression, frozenset(licenses.PERMISSIVE)) is permitted


def test_declared_names_are_put_into_spdx() -> None:
    assert [licenses.normal(name) for name in ("apache-2.0", "GPL-3.0", "MIT OR mit", "NOASSERTION", "(", "bsd")] == [
        "Apache-2.0", "GPL-3.0-only", "MIT OR MIT", None, None, None,
    ]  # fmt: skip
    assert licenses.by_folder([("LICENSE-MIT", MIT), ("x/LICENSES/MIT.txt", MIT), ("x/AUTHORS", "A. Miller")])[""] == "MIT"
    assert [licenses.is_license_file(n) for n in ("LICENSE", "a/COPYING.md", "MIT-LICENSE.txt", "licenses.py", "UNLICENSE", "silence.txt")] == [
        True, True, True, False, True, False,
    ]  # fmt: skip


NOTICE = """Copyright 2026 the millers

Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except in compliance with the License.
You may obtain a copy of the License at

    http://www.apache.org/licenses/LICENSE-2.0

Unless required by applicable law or agreed to in writing, software distributed under the License is distributed on an "AS IS" BASIS,
WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific language governing
permissions and limitations under the License.
"""


def test_a_licence_file_holds_a_licence_or_its_notice_and_little_else() -> None:
    ours = (Path(__file__).parents[3] / "LICENSE").read_text(encoding="utf-8")
    assert licenses.by_folder([("LICENSE", ours)]) == {"": "Apache-2.0"}, "our own repository is no stranger to us"
    assert licenses.of_text(NOTICE) == "Apache-2.0"
    assert (
        licenses.of_text(NOTICE + "The wheel is by the wheelwright, who allows nothing without being asked for it first. " * 8)
        is None
    )


def test_languages_of_real_files_agree_with_their_repositories(shared: Path) -> None:
    """Measured: 2,559 of 2,567; the rest are headers of C with C++ guards."""
    import orjson
    import zstandard

    with zstandard.open(shared / "code.jsonl.zst", "rb") as file:
        files = [orjson.loads(line) for line in file.read().splitlines()]
    told = [languages.language_of(f["path"], f["content"].encode()) for f in files]
    alias = {"Jupyter": "Jupyter Notebook"}
    right = sum(found == alias.get(f["language"], f["language"]) for f, found in zip(files, told, strict=True))
    assert right >= 0.99 * len(files)
