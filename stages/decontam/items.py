"""Test items of benchmarks read from files, and the table of their n-grams. Not a stage."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

KINDS = (".jsonl", ".jsonl.gz", ".json", ".csv", ".parquet")
EMPTY = np.uint64(0)


@dataclass(frozen=True, slots=True)
class Item:
    """One test item: what the model must not have read."""

    benchmark: str
    name: str
    text: str


def read_items(place: str, fields: Sequence[str], only: Sequence[str] = ()) -> list[Item]:
    """Items of a file, or of every file below a folder in the order of their names.

    The text is the first of `fields` that a row has; a CSV file whose header names none of them has no header and its text
    in the first column, as MMLU's have. The benchmark is the row's `benchmark`, else the name of the file (of the folder
    below `place` where there is one). ValueError for a file of another kind, a row without text, or no item at all.
    """
    root = Path(place)
    if not root.exists():
        raise ValueError(f"benchmarks: {place} does not exist")
    found: list[Item] = []
    for path in [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.name.endswith(KINDS)):
        inside = path.relative_to(root).parts if root.is_dir() else (path.name,)
        default = inside[0].split(".")[0]
        for number, row in enumerate(_rows(path, fields)):
            text = next((str(row[f]) for f in fields if row.get(f)), None)
            if text is None:
                raise ValueError(f"{path}: row {number} has none of the fields {list(fields)}; name its field in `fields`")
            name = row.get("id") or row.get("task_id") or f"{path.name.split('.')[0]}/{number}"
            found.append(Item(str(row.get("benchmark") or default), str(name), text))
    found = [item for item in found if not only or item.benchmark in only]
    if not found:
        raise ValueError(f"benchmarks: no items in {place}; files are {', '.join(KINDS)}")
    return found


def _rows(path: Path, fields: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    if path.name.endswith(".parquet"):
        import pyarrow.parquet as pq

        yield from pq.read_table(path).to_pylist()
        return
    if not path.name.endswith(KINDS):
        raise ValueError(f"{path}: not one of {', '.join(KINDS)}")
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    if path.name.endswith(".json"):
        data = json.loads(text)
        yield from data if isinstance(data, list) else [data]
    elif path.name.endswith(".csv"):
        lines = list(csv.reader(io.StringIO(text)))
        header = lines[0] if lines and set(lines[0]) & set(fields) else None
        for line in lines[1:] if header else lines:
            yield dict(zip(header, line, strict=False)) if header else {fields[0]: line[0]}
    else:
        yield from (json.loads(line) for line in text.splitlines() if line.strip())


@dataclass(frozen=True, slots=True)
class Grams:
    """The n-grams of all items: an open-addressing table from hash to postings."""

    items: tuple[Item, ...]
    lengths: NDArray[np.int64]
    """Gram lengths in use, ascending."""
    keys: NDArray[np.uint64]
    first: NDArray[np.int64]
    """Slot to the first posting of its gram."""
    starts: NDArray[np.int64]
    """Gram to its range of postings."""
    postings: NDArray[np.int64]
    """Items of each gram."""
    sizes: NDArray[np.int64]
    """Distinct grams of each item that are looked for."""


def build(items: Sequence[Item], size: int, least: int, most_items: int) -> Grams:
    """Grams of `size` words; an item of fewer words, but at least `least`, is one gram; grams of more than `most_items` go.

    What many items share is the form of a task ("Which of the following statements is"), and says nothing about leakage.
    """
    from stages.decontam.matching import item_grams, put

    hashes: list[NDArray[np.uint64]] = []
    lengths: set[int] = set()
    for item in items:
        data = np.frombuffer(item.text.encode(), np.uint8)
        out = np.empty(len(data) + 1, np.uint64)
        count, words = item_grams(data, size, least, *_tables(), out)
        hashes.append(np.unique(out[:count]))
        lengths |= {min(size, int(words))} if count else set()
    owner = np.repeat(np.arange(len(items)), [len(h) for h in hashes])
    flat = np.concatenate([*hashes, np.zeros(0, np.uint64)])
    order = np.argsort(flat, kind="stable")
    grams, place, counts = np.unique(flat[order], return_index=True, return_counts=True)
    wanted = counts <= most_items
    grams, place, counts = grams[wanted], place[wanted], counts[wanted]
    within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    postings = owner[order][np.repeat(place, counts) + within]
    slots = 1 << max(int(4 * len(grams)).bit_length(), 10)
    keys, first = np.zeros(slots, np.uint64), np.zeros(slots, np.int64)
    put(grams, keys, first)
    starts = np.append(np.cumsum(counts) - counts, len(postings))
    sizes = np.bincount(postings, minlength=len(items))
    return Grams(tuple(items), np.array(sorted(lengths), np.int64), keys, first, starts, postings, sizes)


def _tables() -> tuple[Any, Any]:
    from stages import characters

    return characters.tables()
