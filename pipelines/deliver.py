"""Copy an export to where training reads it: a local folder or an object store, checked after the copy.

    parts/<shard><suffix>      the files of each shard, where the blend files say that they are
    <folder>/<shard>.parquet   instead, where the export lays folders out (Hive layout, a dataset for the hub)
    README.md, blend.txt, ...  files of the whole dataset
    SHA256SUMS                 written last: whoever finds it finds everything

A copy is read back against the digest that the store knows before it counts. What counts is remembered in the store, so
that a copy that was stopped goes on where it was; a file that has changed its size meanwhile is copied again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from manifests.place import Place, open_url, place_of
from manifests.shard import HashingFile
from manifests.store import Object, Store, StoreError

BLOCK = 8 << 20
"""Bytes read and written at once: one request to an object store."""
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
    place = place_of(where)
    wanted = pieces(store, name)
    journal = f"deliveries/{hashlib.blake2b(where.encode(), digest_size=8).hexdigest()}"
    known, there = _known(store.place.read_log(journal)), place.sizes("")
    left = [p for p in wanted if known.get(p.target) != p.digest or there.get(p.target) != p.size]
    say(f"{name} -> {where}: {len(left):,} of {len(wanted):,} files, {sum(p.size for p in left) / 1e6:,.1f} MB")
    log = store.place.log(journal)
    try:
        for piece in left:
            _copy(place, piece)
            log.append(orjson.dumps([piece.target, piece.digest]) + b"\n")
    finally:
        log.close()
        place.sweep("")
    sums = "".join(f"{p.digest}  {p.target}\n" for p in sorted(wanted, key=lambda p: p.target))
    place.put(SUMS, sums.encode())
    return len(left)


def _known(log: bytes) -> dict[str, str]:
    """Targets that were checked before, and their digests; a torn last line is forgotten."""
    return dict(orjson.loads(line) for line in log.split(b"\n")[:-1])


def _copy(place: Place, piece: Piece) -> None:
    """Copy into a draft, publish it whole, and read back what is there."""
    folder = place.drafts("")
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f"{hashlib.blake2b(piece.target.encode(), digest_size=8).hexdigest()}.{os.getpid()}"
    with open_url(piece.source) as source:
        out = HashingFile(draft)
        while block := source.read(BLOCK):
            out.write(block)
    _compare(piece.source, out.seal()[1], piece)
    place.publish(draft, piece.target)
    read = hashlib.sha256()
    for start in range(0, piece.size, BLOCK):
        read.update(place.range(piece.target, start, min(start + BLOCK, piece.size)))
    try:
        _compare(place.url(piece.target), read.hexdigest(), piece)
    except StoreError:
        place.remove(piece.target)
        raise


def _compare(where: str, digest: str, piece: Piece) -> None:
    if digest != piece.digest:
        raise StoreError(f"{where}: not the bytes that the store wrote down; run `gristmill verify`, then this again")
