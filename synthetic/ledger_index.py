"""Sorted index files of a ledger: where the answer to a key lies, in 24 bytes, mapped and never loaded.

An index file covers stretches of answer files. Its header (JSON) is followed by four arrays, little-endian: the first
64 bits of each key (ascending), byte offset, length, and number of the answer file. Keys are hashes, so 64 bits are
nearly unique; the line itself holds the whole key. Everything here can be made again from the answer files.
"""

from __future__ import annotations

import mmap
import os
import uuid
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson

from manifests.place import replace_file

MAGIC = b"gristidx"
_HEAD = 16
FAN_IN = 8
"""Index files of about the same size that are merged into one: a key of N is looked up in about 8 log8(N) of them at most."""
SLICE = 1 << 20
"""Entries that a merge holds in memory at once (24 bytes each)."""

Stretch = tuple[str, int, int]
"""An answer file, and the first and last byte of what is covered of it."""
Place = tuple[str, int, int]
"""An answer file, offset and length of a line."""


@dataclass(frozen=True)
class Entries:
    """Index entries as columns, in any order."""

    keys: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray
    files: np.ndarray

    @staticmethod
    def of(rows: Sequence[tuple[int, int, int]]) -> Entries:
        """From (key, offset, length) of lines of one answer file."""
        keys, offsets, lengths = zip(*rows, strict=True) if rows else ((), (), ())
        return Entries(
            np.array(keys, "<u8"), np.array(offsets, "<u8"), np.array(lengths, "<u4"), np.zeros(len(rows), "<u4")
        )  # fmt: skip

    def sorted(self) -> Entries:
        """By key, then by place: the same entries give the same file."""
        order = np.lexsort((self.offsets, self.files, self.keys))
        return Entries(self.keys[order], self.offsets[order], self.lengths[order], self.files[order])


class Run:
    """One index file, open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        view = memoryview(self._map)
        if bytes(view[:8]) != MAGIC:
            raise ValueError(f"{path} is not an index of a ledger; remove it, it is made again")
        size = int.from_bytes(view[8:_HEAD], "little")
        head = orjson.loads(view[_HEAD : _HEAD + size])
        self.count: int = head["count"]
        self.files: list[str] = head["files"]
        self.stretches: list[Stretch] = [(s[0], s[1], s[2]) for s in head["stretches"]]
        self.tokens: tuple[int, int] = (head["tokens"][0], head["tokens"][1])
        start, n = _HEAD + size, self.count
        self.keys = view[start : start + 8 * n].cast("Q")
        self._offsets = view[start + 8 * n : start + 16 * n].cast("Q")
        self._lengths = view[start + 16 * n : start + 20 * n].cast("I")
        self._numbers = view[start + 20 * n : start + 24 * n].cast("I")

    def find(self, key: int) -> Iterator[Place]:
        """Where lines whose key begins with these 64 bits lie."""
        at = bisect_left(self.keys, key)
        while at < self.count and self.keys[at] == key:
            yield self.files[self._numbers[at]], self._offsets[at], self._lengths[at]
            at += 1

    def slice(self, low: int, high: int, numbers: Mapping[str, int]) -> Entries:
        """Entries `low` to `high` with the file numbers of a new index."""
        renumber = np.array([numbers[name] for name in self.files], "<u4")
        columns = [np.frombuffer(v, t)[low:high] for v, t in (
            (self.keys, "<u8"), (self._offsets, "<u8"), (self._lengths, "<u4"), (self._numbers, "<u4"))]  # fmt: skip
        return Entries(columns[0], columns[1], columns[2], renumber[columns[3]])

    def close(self) -> None:
        """Unmap. Views may still be held by a merge: then the map goes with them."""
        for view in (self.keys, self._offsets, self._lengths, self._numbers):
            view.release()


def write_run(folder: Path, name: str, rows: Sequence[tuple[int, int, int]], stretch: Stretch, tokens: tuple[int, int]) -> None:
    """Index the lines (key, offset, length) of one stretch of an answer file; whole or absent."""
    entries = Entries.of(rows).sorted()
    head = _head(len(rows), [name], [stretch], tokens)
    body = b"".join(a.tobytes() for a in (entries.keys, entries.offsets, entries.lengths, entries.files))
    replace_file(folder / f"{uuid.uuid4().hex}.idx", head + body)


def _head(count: int, files: Sequence[str], stretches: Sequence[Stretch], tokens: tuple[int, int]) -> bytes:
    head = orjson.dumps({"count": count, "files": files, "stretches": stretches, "tokens": tokens})
    head += b" " * (-len(head) % 8)
    return MAGIC + len(head).to_bytes(8, "little") + head


def to_merge(runs: Iterable[Run]) -> list[Run]:
    """Index files of one size class that are worth merging, or none."""
    classes: dict[int, list[Run]] = defaultdict(list)
    for run in runs:
        classes[run.count.bit_length() // 3].append(run)
    return next((classes[size] for size in sorted(classes) if len(classes[size]) >= FAN_IN), [])


def merge(folder: Path, runs: Sequence[Run]) -> None:
    """Write one index file for several, in flat memory, and remove them."""
    files = sorted({name for run in runs for name in run.files})
    numbers = {name: i for i, name in enumerate(files)}
    count = sum(run.count for run in runs)
    tokens = sum(run.tokens[0] for run in runs), sum(run.tokens[1] for run in runs)
    head = _head(count, files, joined_stretches(s for run in runs for s in run.stretches), tokens)
    draft = folder / f".{uuid.uuid4().hex}"
    with draft.open("wb+") as out:
        out.write(head)
        out.truncate(len(head) + 24 * count)
        at = 0
        for piece in _pieces(runs, numbers):
            for array, start in zip(
                (piece.keys, piece.offsets, piece.lengths, piece.files), (0, 8 * count, 16 * count, 20 * count), strict=True
            ):
                out.seek(len(head) + start + at * array.itemsize)
                out.write(array.tobytes())
            at += len(piece.keys)
        out.flush()
        os.fsync(out.fileno())
    draft.replace(folder / f"{uuid.uuid4().hex}.idx")
    for run in runs:
        run.path.unlink(missing_ok=True)


def _pieces(runs: Sequence[Run], numbers: Mapping[str, int]) -> Iterator[Entries]:
    """All entries in order, in pieces by ranges of the key: keys are uniform, so ranges are about equal."""
    parts = max(1, sum(run.count for run in runs) // SLICE)
    borders = [(i << 64) // parts for i in range(1, parts)]
    cuts = [[0, *(bisect_left(run.keys, b) for b in borders), run.count] for run in runs]
    for part in range(parts):
        found = [run.slice(cut[part], cut[part + 1], numbers) for run, cut in zip(runs, cuts, strict=True)]
        yield Entries(*(np.concatenate([getattr(f, c) for f in found]) for c in ("keys", "offsets", "lengths", "files"))).sorted()


def joined_stretches(stretches: Iterable[Stretch]) -> list[Stretch]:
    """Stretches in order, neighbours joined."""
    out: list[Stretch] = []
    for name, start, stop in sorted(stretches):
        if out and out[-1][0] == name and start <= out[-1][2]:
            out[-1] = (name, out[-1][1], max(stop, out[-1][2]))
        else:
            out.append((name, start, stop))
    return out


def covered(runs: Iterable[Run]) -> dict[str, int]:
    """How far each answer file is covered from its beginning without a gap."""
    return {name: stop for name, start, stop in joined_stretches(s for run in runs for s in run.stretches) if start == 0}


def redundant(runs: Sequence[Run]) -> list[Run]:
    """Index files that another one covers wholly: what a merge that was killed before its last line leaves behind."""
    ordered = sorted(runs, key=lambda run: (-run.count, run.path.name))
    spare: list[Run] = []
    for i, run in enumerate(ordered):
        for other in ordered[:i]:
            if other not in spare and all(_within(s, other.stretches) for s in run.stretches):
                spare.append(run)
                break
    return spare


def _within(stretch: Stretch, others: Iterable[Stretch]) -> bool:
    return any(name == stretch[0] and start <= stretch[1] and stretch[2] <= stop for name, start, stop in others)
