"""Source files out of repositories, folders and archives, and out of published code datasets.

Every row carries `path`, `repo`, `commit`, `code_language` (linguist's name), `license` (an SPDX expression, or null where
none was found) and `license_from`: `header` of the file itself, the path of the licence file that rules its folder, or
`declared` by the dataset.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from pydantic import Field

from stages import languages, licenses
from stages.contract import TEXT, Bad, Chunk, Params, Unit, knob, source
from stages.ingest import files as inputs
from stages.ingest import trees
from stages.ingest.charset import decode
from stages.ingest.rows import HEAD, Collector

WRITES: Mapping[str, pa.DataType] = {
    "text": TEXT, "path": pa.string(), "repo": pa.string(), "commit": pa.string(), "code_language": pa.string(),
    "license": pa.string(), "license_from": pa.string(), "encoding": pa.string(),
}  # fmt: skip
USUAL: Mapping[str, tuple[str, ...]] = {
    "text": ("content", "text", "code", "whole_func_string", "func_code_string", "source_code"),
    "path": ("max_stars_repo_path", "path", "file_path", "func_path_in_repository", "filename"),
    "repo": ("max_stars_repo_name", "repo_name", "repository_name", "repo", "repo_url"),
    "commit": ("max_stars_repo_head_hexsha", "commit_hash", "commit", "revision_id"),
    "license": ("max_stars_repo_licenses", "detected_licenses", "licenses", "license"),
    "code_language": ("lang", "language", "programming_language"),
}
"""Column names of The Stack (v1, v2), StarCoderData, CodeParrot, CodeSearchNet and their kin, first match wins."""
BATCH = 512


class Files(Params):
    """Which trees and files."""

    paths: list[str] | str = knob([], "Git repositories (bare or checked out), folders and tar archives; globs and lists.")
    commit: str = Field("HEAD", description="Commit, tag or branch that is read of every git repository.")
    source: str = Field("code", description="What `source` says of these rows.")
    kinds: tuple[languages.Kind, ...] = Field(
        ("programming", "markup"), description="Linguist's kinds of languages that are read; the rest is skipped as not_code."
    )
    max_bytes: int = Field(64 << 20, ge=1, description="Largest file; larger ones are skipped as too_large.")
    unit_files: int = Field(2_000, ge=1, description="Files of one unit.")


def _units(params: Files) -> Iterator[Unit]:
    for tree in trees.find(params.paths, params.commit):
        entries = tree.entries()
        size, witness = trees.total(entries), tree.witness()
        # A compressed archive cannot be entered in the middle: it is one unit.
        step = max(1, len(entries)) if isinstance(tree, trees.Archive) else params.unit_files
        for start in range(0, max(1, len(entries)), step):
            stop = start + step
            yield Unit(tree.name, tree.path, size, witness, start, stop if stop < len(entries) else None)


@source(version=1, units=_units, writes=WRITES, libraries=("enry-python", "licenseclassifier", "license-expression"))
def files(unit: Unit, params: Files) -> Iterator[Chunk]:
    """One row for each source file: `text`, `path`, `repo`, `commit`, `code_language`, `license`, `license_from`, `encoding`.

    origin.offset is the file's number in the tree's list, origin.length its bytes. A file's licence is that of its own
    header, else of the closest folder above it with a licence file. Skipped by kind: symlink, submodule, special, empty,
    too_large, binary, not_code (other kinds of languages, and files whose language nothing tells). A file that cannot be
    read is a Bad. Bytes that are not UTF-8 are decoded by what is found in them; `encoding` names it. Raises ValueError for
    a repository without that commit and for what is neither folder nor archive.
    """
    tree = trees.open_tree(unit.name, unit.path, _pinned(unit, params))
    entries = tree.entries()
    ruling = _rulings(tree, entries)
    collector = Collector({**HEAD, **WRITES})
    wanted = []
    for number, entry in list(enumerate(entries))[unit.start : unit.stop]:
        fault = entry.fault or ("empty" if not entry.size else "too_large" if entry.size > params.max_bytes else "")
        if fault == "broken":
            collector.bad(Bad(number, "archive", 0, entry.path))
        elif fault:
            collector.skip(fault)
        else:
            wanted.append((number, entry))
    for (number, entry), content in zip(wanted, _contents(tree, wanted, params.max_bytes), strict=True):
        _take(collector, tree, (number, entry, content), ruling, params, unit)
        if collector.full:
            yield collector.take()
    if not collector.empty:
        yield collector.take()


def _pinned(unit: Unit, params: Files) -> str:
    """The commit that was planned, even if the branch has moved since."""
    return unit.witness.removeprefix("git:") if unit.witness.startswith("git:") else params.commit


def _contents(tree: trees.Tree, wanted: Sequence[tuple[int, trees.Entry]], limit: int) -> Iterator[bytes | Exception]:
    """Contents in order. In a folder a file that has gone costs itself only; behind a fault in an archive nothing can be read."""
    entries = [entry for _, entry in wanted]
    alone = isinstance(tree, trees.Folder)
    for group in [[entry] for entry in entries] if alone else [entries]:
        done = 0
        try:
            for content in tree.read(group, limit):
                yield content
                done += 1
        except trees.BROKEN as error:
            yield from [error] * (len(group) - done)


def _rulings(tree: trees.Tree, entries: Sequence[trees.Entry]) -> dict[str, tuple[str | None, str]]:
    """Folder to licence and the licence file that says so."""
    named = [entry for entry in entries if not entry.fault and entry.size and licenses.is_license_file(entry.path)]
    contents = zip(named, _contents(tree, list(enumerate(named)), licenses.MAX_TEXT), strict=True)
    texts = [(entry.path, content.decode("utf-8", "replace")) for entry, content in contents if isinstance(content, bytes)]
    first = {path.rpartition("/")[0]: path for path, _ in reversed(texts)}
    return {folder: (license_, first.get(folder, folder)) for folder, license_ in licenses.by_folder(texts).items()}


def _take(
    collector: Collector, tree: trees.Tree, found: tuple[int, trees.Entry, bytes | Exception],
    ruling: Mapping[str, tuple[str | None, str]], params: Files, unit: Unit,
) -> None:  # fmt: skip
    number, entry, content = found
    if isinstance(content, Exception):
        collector.bad(Bad(number, "unreadable", entry.size, f"{entry.path}: {content}"))
        return
    if languages.is_binary(content):
        collector.skip("binary")
        return
    text, encoding = decode(content, None)
    language = languages.language_of(entry.path, text[: languages.HEAD].encode("utf-8", "replace"))
    if language is None or languages.kind_of(language) not in params.kinds:
        collector.skip("not_code")
        return
    license_, where = licenses.of_header(text), "header"
    if license_ is None:
        folder = licenses.nearest(entry.path, {key: value for key, (value, _) in ruling.items()})[1]
        license_, where = ruling[folder] if folder is not None else (None, "")
    origin = {"unit": unit.name, "offset": number, "length": len(content)}
    head = (None, params.source, None, None, origin)
    said = (tree.name, tree.commit, language, license_, where if license_ else None, encoding)
    collector.row((*head, text.removeprefix("\ufeff"), entry.path, *said), len(content))


class Table(Params):
    """Which columns of a published dataset are what."""

    columns: dict[str, str] = Field({}, description="Our names and theirs, where they are unusual: {text: body, path: file}.")
    source: str = Field("code", description="What `source` says of these rows.")


class Parquet(Table):
    """Which Parquet files."""

    paths: list[str] | str = knob([], "Files and globs, local or on a store; a list, or separated by commas.")


class Dataset(Table):
    """Which dataset of the `datasets` library."""

    dataset: str = knob(..., "A folder written by save_to_disk, a folder of data files, or a name on the hub.")
    config: str | None = knob(None, "The dataset's configuration, where it has several.")
    split: str = knob("train", "The split.")
    unit_rows: int = Field(100_000, ge=1, description="Rows of one unit.")


def _parquet_units(params: Parquet) -> Iterator[Unit]:
    for file in inputs.expand(params.paths):
        yield Unit(file.name, file.path, file.size, file.witness)


@source(version=1, units=_parquet_units, writes=WRITES, libraries=("enry-python", "licenseclassifier", "license-expression"))
def parquet(unit: Unit, params: Parquet) -> Iterator[Chunk]:
    """Rows of Parquet files of code under the usual column names (The Stack, StarCoderData, CodeParrot, CodeSearchNet).

    Columns and licences as in `files`; a declared licence, or list of them, is put into SPDX, and where the dataset names
    none the file's header is asked. Rows without text are skipped as no_text. Raises ValueError where no column looks like
    source text, naming those present.
    """
    import pyarrow.parquet as pq

    with inputs.open_file(unit.path) as file:
        opened = pq.ParquetFile(file)
        names = _named(opened.schema_arrow.names, params, unit.name)
        first = 0
        for batch in opened.iter_batches(BATCH, columns=sorted(set(names.values()))):
            yield _described(pa.Table.from_batches([batch]), names, params, unit, first)
            first += batch.num_rows


def _dataset_units(params: Dataset) -> Iterator[Unit]:
    data = _loaded(params.dataset, params)
    name = "/".join(part for part in (os.path.basename(params.dataset.rstrip("/")), params.config, params.split) if part)  # noqa: PTH119 (hub names are no paths)
    for start in range(0, max(len(data), 1), params.unit_rows):
        stop = start + params.unit_rows
        witness = f"fingerprint:{data._fingerprint}"
        yield Unit(name, params.dataset, len(data), witness, start, stop if stop < len(data) else None)


def _loaded(path: str, params: Dataset) -> Any:
    import datasets

    if os.path.isdir(path) and {"state.json", "dataset_dict.json"} & set(os.listdir(path)):  # noqa: PTH112 (hub names are no paths)
        data = datasets.load_from_disk(path)
        return data[params.split] if isinstance(data, datasets.DatasetDict) else data
    return datasets.load_dataset(path, params.config, split=params.split)


@source(
    version=1, units=_dataset_units, writes=WRITES,
    libraries=("datasets", "enry-python", "licenseclassifier", "license-expression"),
)  # fmt: skip
def dataset(unit: Unit, params: Dataset) -> Iterator[Chunk]:
    """Rows of a code dataset of the `datasets` library, local or on a hub; columns and licences as in `parquet`."""
    data = _loaded(unit.path, params).with_format("arrow")
    names = _named(data.column_names, params, unit.name)
    end = len(data) if unit.stop is None else unit.stop
    for start in range(unit.start, end, BATCH):
        yield _described(data[start : min(end, start + BATCH)], names, params, unit, start)


def _named(present: Sequence[str], params: Table, where: str) -> dict[str, str]:
    """Our names and theirs, for the columns that are there."""
    if strange := sorted(set(params.columns) - set(USUAL)):
        raise ValueError(f"columns maps {', '.join(strange)}; what can be mapped is {', '.join(USUAL)}")
    if lost := sorted(set(params.columns.values()) - set(present)):
        raise ValueError(f"{where}: no column {', '.join(lost)}; there are {', '.join(sorted(present))}")
    found: dict[str, str] = {}
    for ours, usual in USUAL.items():
        theirs = params.columns.get(ours) or next((name for name in usual if name in present and name not in found.values()), None)
        if theirs:
            found[ours] = theirs
    if "text" not in found:
        raise ValueError(f"{where}: no column of source text ({', '.join(USUAL['text'])}); there are {', '.join(sorted(present))}")
    return found


def _described(table: pa.Table, names: Mapping[str, str], params: Table, unit: Unit, first: int) -> Chunk:
    collector = Collector({**HEAD, **WRITES})
    values = {ours: table[theirs].to_pylist() for ours, theirs in names.items()}
    for place in range(table.num_rows):
        row = {ours: column[place] for ours, column in values.items()}
        text = row["text"]
        if not text:
            collector.skip("no_text")
            continue
        origin = {"unit": unit.name, "offset": first + place, "length": 1}
        license_, where = _license(row.get("license"), text)
        path = row.get("path")
        language = languages.language_of(path or "", text[: languages.HEAD].encode("utf-8", "replace")) if path else None
        said = (path, row.get("repo"), row.get("commit"), language or row.get("code_language"), license_, where, "utf-8")
        collector.row((None, params.source, None, None, origin, text, *said), len(text))
    return collector.take()


def _license(declared: Any, text: str) -> tuple[str | None, str | None]:
    several = declared if isinstance(declared, list) else [declared]
    stated = [str(one) for one in several if one]
    if stated:
        return licenses.combined(stated), "declared"
    found = licenses.of_header(text)
    return found, "header" if found else None
