"""Copy an export to where training reads it: a local folder or any store that fsspec opens, checked after the copy.

    parts/<shard><suffix>      the files of each shard, where the blend files say that they are
    <folder>/<shard>.parquet   instead, where the export lays folders out (Hive layout, a dataset for the hub)
    README.md, blend.txt, ...  files of the whole dataset
    SHA256SUMS                 written last: whoever finds it finds everything

A copy is read back against the digest that the store knows before it counts. What counts is remembered in the store, so
that a copy that was stopped goes on where it was; a file that has changed its size meanwhile is copied again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import orjson

from manifests.place import open_url
from manifests.store import Object, Store, StoreError

BLOCK = 8 << 20
"""Bytes read and written at once; a part of a multipart upload is at least 5 MiB."""
SUMS = "SHA256SUMS"


@dataclass(frozen=True, slots=True)
class Piece:
    """A file to copy: where it is, where it goes, and what it has to be."""

    source: str
    target: str
    size: int
    digest: str


def pieces(store: Store, name: str) -> list[Piece]:
    """Files of an export, by published name or RECIPE.STEP; StoreError for what is none."""
    target, units = _export(store, name)
    manifest = target.manifest(units)
    if manifest is None:
        raise StoreError(f"{name}: the export is not complete; run its recipe to the end")
    found = []
    for part in manifest.parts:
        folders = part.counts.get("summary", {}).get("folders", {})
        for suffix, (size, digest) in part.files.items():
            found.append(Piece(target.part(part.unit, suffix), _place(part.unit, suffix, folders), size, digest))
    return found


def _place(unit: str, suffix: str, folders: dict[str, str]) -> str:
    if unit.startswith("dataset-"):
        return suffix.removeprefix(".")
    if suffix in folders:
        return f"{folders[suffix]}/{unit}.{suffix.rsplit('.', 1)[1]}"
    return f"parts/{unit}{suffix}"


def _export(store: Store, name: str) -> tuple[Object, str]:
    refs = store.records("refs")
    if name in refs:
        record = refs[name]
        return _checked(store, name, record["object"]), record["units"]
    recipe, _, step = name.partition(".")
    record = store.records("recipes").get(recipe, {})
    found = record.get("steps", {}).get(step)
    if found is None:
        known = ", ".join(sorted(refs)) or "none"
        raise StoreError(f"{name}: neither a published name (there are: {known}) nor RECIPE.STEP of a recipe that ran here")
    return _checked(store, name, found["object"]), found["units"]


def _checked(store: Store, name: str, address: str) -> Object:
    target = store.object(address)
    if target.question()["shape"] != "export":
        raise StoreError(f"{name}: this step makes rows; name a step that writes files (stages.export...)")
    return target


def deliver(store: Store, name: str, where: str, say: Callable[[str], Any]) -> int:
    """Copy and check every file that is not there yet; the number of files copied."""
    system, root = _system(where)
    wanted = pieces(store, name)
    journal = f"deliveries/{hashlib.blake2b(where.encode(), digest_size=8).hexdigest()}"
    known = _known(store.place.read_log(journal))
    left = [p for p in wanted if known.get(p.target) != p.digest or _size(system, f"{root}/{p.target}") != p.size]
    say(f"{name} -> {where}: {len(left):,} of {len(wanted):,} files, {sum(p.size for p in left) / 1e6:,.1f} MB")
    log = store.place.log(journal)
    try:
        for piece in left:
            _copy(system, piece, f"{root}/{piece.target}")
            log.append(orjson.dumps([piece.target, piece.digest]) + b"\n")
    finally:
        log.close()
    sums = "".join(f"{p.digest}  {p.target}\n" for p in sorted(wanted, key=lambda p: p.target))
    system.pipe_file(f"{root}/{SUMS}", sums.encode())
    return len(left)


def _system(where: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    try:
        system, root = url_to_fs(where)
    except (ImportError, ValueError) as error:
        raise StoreError(f"{where}: {error}") from error
    return system, str(root).rstrip("/")


def _known(log: bytes) -> dict[str, str]:
    """Targets that were checked before, and their digests; a torn last line is forgotten."""
    return dict(orjson.loads(line) for line in log.split(b"\n")[:-1])


def _size(system: Any, path: str) -> int | None:
    try:
        return int(system.size(path))
    except FileNotFoundError:
        return None


def _copy(system: Any, piece: Piece, path: str) -> None:
    """Copy under another name where renaming is cheap, read back, and only then let the file appear."""
    local = "file" in (system.protocol if isinstance(system.protocol, tuple) else (system.protocol,))
    draft = f"{path}.draft" if local else path
    system.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
    try:
        with open_url(piece.source) as source, system.open(draft, "wb", block_size=BLOCK) as out:
            for block in _blocks(source):
                out.write(block)
        with system.open(draft, "rb", block_size=BLOCK) as back:
            read = hashlib.sha256()
            for block in _blocks(back):
                read.update(block)
        _compare(path, read.hexdigest(), piece)
        if local:
            system.mv(draft, path)
    except BaseException:
        if _size(system, draft) is not None:
            system.rm_file(draft)
        raise


def _compare(path: str, digest: str, piece: Piece) -> None:
    if digest != piece.digest:
        raise StoreError(f"{path}: the copy has another digest than the store knows: run `gristmill verify`, then this again")


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(BLOCK):
        yield block
