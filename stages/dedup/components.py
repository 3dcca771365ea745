"""Connected components of an edge list: union-find on flat arrays, in memory or, above a limit, in files mapped to memory.

Nodes are row addresses. A component's label is its smallest address, so the result depends on the edges as a set alone.
Cost: 8 bytes an endpoint while the nodes are sorted out, then 16 bytes a node.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from stages.splitting import inlined, kernel

PIECE: Final = 1 << 20
"""Edges that are looked up at a time."""


class Room:
    """Where arrays live: memory while they are small, else files in a folder that goes when the room is left."""

    def __init__(self, limit: int, folder: str | None = None) -> None:
        """Arrays above `limit` bytes become files under `folder` (None: the system's folder for temporary files)."""
        self._limit, self._parent, self._count = limit, folder, 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Self:
        """The room itself."""
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        """Remove the files."""
        if self._folder is not None:
            self._folder.cleanup()

    def array(self, size: int, kind: Any) -> NDArray[Any]:
        """An array of undefined content."""
        if size * np.dtype(kind).itemsize <= self._limit or size == 0:
            return np.empty(size, kind)
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="components-", dir=self._parent)
        self._count += 1
        return np.memmap(Path(self._folder.name) / f"{self._count}.bin", kind, "w+", shape=(size,))


class Edges:
    """Edges as they come in, two int64 columns; spooled into a room's files once they are many."""

    def __init__(self, room: Room) -> None:
        """No edges yet."""
        self._room, self._size = room, 0
        self._left, self._right = room.array(PIECE, np.int64), room.array(PIECE, np.int64)

    def add(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> None:
        """Append edges."""
        stop = self._size + len(left)
        if stop > len(self._left):
            self._left, self._right = self._grown(self._left, stop), self._grown(self._right, stop)
        self._left[self._size : stop], self._right[self._size : stop] = left, right
        self._size = stop

    def _grown(self, old: NDArray[np.int64], least: int) -> NDArray[np.int64]:
        new: NDArray[np.int64] = self._room.array(max(least, 2 * len(old)), np.int64)
        new[: self._size] = old[: self._size]
        return new

    @property
    def left(self) -> NDArray[np.int64]:
        """One end of each edge."""
        return self._left[: self._size]

    @property
    def right(self) -> NDArray[np.int64]:
        """The other end."""
        return self._right[: self._size]

    def components(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All nodes in ascending order, and for each the place (among them) of its component's smallest node."""
        nodes = self._room.array(2 * self._size, np.int64)
        nodes[: self._size], nodes[self._size :] = self.left, self.right
        nodes.sort()
        nodes = nodes[: squeeze(nodes)]
        parent = self._room.array(len(nodes), np.int64)
        parent[:] = np.arange(len(nodes))
        for start in range(0, self._size, PIECE):
            piece = slice(start, min(start + PIECE, self._size))
            unite(parent, np.searchsorted(nodes, self.left[piece]), np.searchsorted(nodes, self.right[piece]))
        flatten(parent)
        return nodes, parent


def forest(pairs: Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The fewest edges that connect the same nodes: every node but the smallest of its component, and that smallest one."""
    with Room(1 << 62) as room:
        edges = Edges(room)
        for left, right in pairs:
            edges.add(left, right)
        nodes, parent = edges.components()
        below = parent != np.arange(len(parent))
        return nodes[below], nodes[parent[below]]


@kernel
def squeeze(values: Any) -> int:
    """Move the distinct values of a sorted array to its front; returns how many there are."""
    if values.shape[0] == 0:
        return 0
    count = 1
    for i in range(1, values.shape[0]):
        if values[i] != values[count - 1]:
            values[count] = values[i]
            count += 1
    return count


@inlined
def find(parent: Any, node: int) -> int:
    """The root of a node; halves the path on its way."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@kernel
def unite(parent: Any, left: Any, right: Any) -> None:
    """Join the ends of every edge: the smaller root becomes the root, so that a root is its component's smallest node."""
    for i in range(left.shape[0]):
        a, b = find(parent, left[i]), find(parent, right[i])
        if a < b:
            parent[b] = a
        elif b < a:
            parent[a] = b


@kernel
def flatten(parent: Any) -> None:
    """Point every node at its root. A parent is never larger than its node, so one pass upwards does it."""
    for node in range(parent.shape[0]):
        parent[node] = parent[parent[node]]


@kernel
def count_members(parent: Any, sizes: Any) -> None:
    """Add every node to the size that stands at its root."""
    for node in range(parent.shape[0]):
        sizes[parent[node]] += 1


@kernel
def stars(keys: Any, rows: Any, left: Any, right: Any) -> int:
    """Edges from every member of a run of equal keys to the run's first; returns how many. A million members give a million."""
    count, first = 0, 0
    for i in range(1, keys.shape[0]):
        if keys[i] != keys[first]:
            first = i
        else:
            left[count], right[count] = rows[i], rows[first]
            count += 1
    return count
