"""Union-find, twice: one over all edges, whose arrays move to disk, and a small one that finds spanning edges in a partition.

Nodes are row addresses (frame << 56 | shard << 32 | position). `Components` takes edges in any order: a bit a row marks the
rows that have one, and the rank of its bit is the number of a node, so nothing is sorted or hashed. A component's label is
its smallest address: the result depends on the edges as a set alone. `Forest` keeps, of very many edges, those that connect
something new; its nodes stand in a hash table.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from stages.compiled import inlined, kernel

Int64 = NDArray[np.int64]
PIECE: Final = 1 << 18
"""Edges, words or nodes that are handled at a time: 2 MB a column."""
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ONE, _SIX, _LOW = np.uint64(1), np.uint64(6), np.uint64(63)


class Room:
    """Where arrays live: memory up to a limit, then files in a folder that goes when the room is left."""

    def __init__(self, limit: int, folder: str | None = None) -> None:
        """`limit`: bytes of all arrays in memory; what does not fit becomes files under `folder` (None: the system's)."""
        self._left, self._parent, self._count = limit, folder, 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Self:
        """The room itself."""
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        """Remove the files."""
        if self._folder is not None:
            self._folder.cleanup()

    def zeros(self, size: int, kind: Any, share: float = 1.0) -> NDArray[Any]:
        """An array of zeros; in memory if it takes no more than this share of what is left of the limit."""
        needed = size * np.dtype(kind).itemsize
        if needed <= self._left * share or size == 0:
            self._left -= needed
            return np.zeros(size, kind)
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="components-", dir=self._parent)
        self._count += 1
        return np.memmap(Path(self._folder.name) / f"{self._count}.bin", kind, "w+", shape=(size,))


class Components:
    """Connected components of edges that come in pieces."""

    def __init__(self, room: Room) -> None:
        """No edges yet."""
        self._room, self._pieces, self._filled = room, list[tuple[Int64, Int64]](), 0
        self._extents = np.zeros((1, 1), np.int64)

    def add(self, left: Int64, right: Int64) -> None:
        """Take edges; they are kept where the room has space for them."""
        for start in range(0, len(left), PIECE):
            self._add(left[start : start + PIECE], right[start : start + PIECE])

    def _add(self, left: Int64, right: Int64) -> None:
        highest = int(max(left.max(), right.max())) >> 56
        shard = int(max((left >> 32 & 0xFFFFFF).max(), (right >> 32 & 0xFFFFFF).max()))
        frames, shards = self._extents.shape
        if highest >= frames or shard >= shards:
            wider = np.zeros((max(frames, highest + 1), max(shards, 2 * shard + 1)), np.int64)
            wider[:frames, :shards] = self._extents
            self._extents = wider
        extend(self._extents, left)
        extend(self._extents, right)
        at = 0
        while at < len(left):
            if not self._pieces or self._filled == PIECE:
                # A quarter for edges, which are read in order; the arrays that are jumped about in come later.
                self._pieces.append((self._room.zeros(PIECE, np.int64, 0.25), self._room.zeros(PIECE, np.int64, 0.25)))
                self._filled = 0
            count = min(PIECE - self._filled, len(left) - at)
            for held, new in zip(self._pieces[-1], (left, right), strict=True):
                held[self._filled : self._filled + count] = new[at : at + count]
            self._filled, at = self._filled + count, at + count

    def _edges(self) -> Iterator[tuple[Int64, Int64]]:
        for left, right in self._pieces[:-1]:
            yield left, right
        for left, right in self._pieces[-1:]:
            yield left[: self._filled], right[: self._filled]

    def solve(self) -> tuple[Int64, Int64]:
        """All nodes in ascending order, and for each the place (among them) of its component's smallest node."""
        words = self._extents + 63 >> 6
        firsts = (np.cumsum(words) - words.reshape(-1)).reshape(words.shape)
        bits = self._room.zeros(int(words.sum()), np.uint64)
        ranks = self._room.zeros(len(bits) + 1, np.int64)
        for left, right in self._edges():
            set_bits(bits, firsts, left)
            set_bits(bits, firsts, right)
        count = rank(bits, ranks)
        parent = self._room.zeros(count, np.int64)
        parent[:] = np.arange(count)
        for left, right in self._edges():
            unite(parent, bits, ranks, firsts, left, right)
        flatten(parent)
        nodes = self._room.zeros(count, np.int64)
        for frame, shard in zip(*np.nonzero(words), strict=True):
            low = int(firsts[frame, shard])
            address = int(frame) << 56 | int(shard) << 32
            addresses(bits, ranks, low, low + int(words[frame, shard]), address, nodes)
        return nodes, parent


class Forest:
    """Edges that connect what was not connected: at most one a node, in 40 to 70 bytes a node."""

    def __init__(self) -> None:
        """No nodes yet."""
        self._table, self._parent, self._count = _empty(1 << 10), np.empty(1 << 9, np.int64), 0

    def connect(self, left: Int64, right: Int64) -> tuple[Int64, Int64]:
        """Of these edges, those that connect what was not connected."""
        self._widen(self._count + 2 * len(left))
        kept = np.zeros(len(left), np.bool_)
        self._count = spanning(left, right, self._table, self._parent, self._count, kept)
        return left[kept], right[kept]

    def _widen(self, nodes: int) -> None:
        if nodes > len(self._parent):
            parent = np.empty(max(nodes, 2 * len(self._parent)), np.int64)
            parent[: self._count] = self._parent[: self._count]
            self._parent = parent
        if 2 * nodes > len(self._table):
            table = _empty(1 << (2 * nodes - 1).bit_length())
            move(self._table, table)
            self._table = table


def _empty(size: int) -> NDArray[np.int64]:
    """A hash table of (row, number) with `size` places, a power of two; row -1: free."""
    return np.full((size, 2), -1, np.int64)


@inlined
def lookup(table: Any, row: Any) -> Any:
    """Where a row stands in the table, or the free place for it."""
    mask = np.uint64(table.shape[0] - 1)
    place = np.uint64(row) * _GOLDEN >> np.uint64(32) & mask
    while table[place, 0] != row and table[place, 0] != -1:
        place = place + _ONE & mask
    return place


@kernel
def move(table: Any, into: Any) -> None:
    """Put all rows of a table into a wider one."""
    for i in range(table.shape[0]):
        if table[i, 0] != -1:
            place = lookup(into, table[i, 0])
            into[place, 0], into[place, 1] = table[i, 0], table[i, 1]


@inlined
def number(table: Any, parent: Any, row: Any, count: int) -> Any:
    """The number of a row's node; `count` where it is new."""
    place = lookup(table, row)
    if table[place, 0] == -1:
        table[place, 0], table[place, 1] = row, count
        parent[count] = count
    return table[place, 1]


@inlined
def find(parent: Any, node: int) -> int:
    """The root of a node; halves the path on its way."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@kernel
def spanning(left: Any, right: Any, table: Any, parent: Any, count: int, kept: Any) -> int:
    """Unite the ends of every edge and mark those that connected; the number of nodes now."""
    for i in range(left.shape[0]):
        one = number(table, parent, left[i], count)
        count += 1 if one == count else 0
        two = number(table, parent, right[i], count)
        count += 1 if two == count else 0
        a, b = find(parent, one), find(parent, two)
        if a != b:
            parent[max(a, b)] = min(a, b)
            kept[i] = True
    return count


@kernel
def extend(extents: Any, rows: Any) -> None:
    """Let `extents` (frames, shards) hold one more than the highest position met in each."""
    for i in range(rows.shape[0]):
        frame, shard, position = rows[i] >> 56, rows[i] >> 32 & 0xFFFFFF, rows[i] & 0xFFFFFFFF
        if extents[frame, shard] <= position:
            extents[frame, shard] = position + 1


@inlined
def bit_of(firsts: Any, row: Any) -> Any:
    """The number of a row's bit."""
    return np.uint64(firsts[row >> 56, row >> 32 & 0xFFFFFF] << 6) + np.uint64(row & 0xFFFFFFFF)


@kernel
def set_bits(bits: Any, firsts: Any, rows: Any) -> None:
    """Mark rows."""
    for i in range(rows.shape[0]):
        bit = bit_of(firsts, rows[i])
        bits[bit >> _SIX] |= _ONE << (bit & _LOW)


@inlined
def ones(word: Any) -> Any:
    """How many bits of a word are set (Warren, Hacker's Delight, 5-1; the compiler makes one instruction of it)."""
    word = word - (word >> _ONE & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + (word >> np.uint64(2) & np.uint64(0x3333333333333333))
    word = word + (word >> np.uint64(4)) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return word * np.uint64(0x0101010101010101) >> np.uint64(56)


@kernel
def rank(bits: Any, ranks: Any) -> int:
    """Set bits before each word; returns how many there are in all."""
    for i in range(bits.shape[0]):
        ranks[i + 1] = ranks[i] + np.int64(ones(bits[i]))
    return int(ranks[bits.shape[0]])


@inlined
def node_of(bits: Any, ranks: Any, firsts: Any, row: Any) -> Any:
    """The number of a row's node: how many marked rows have smaller addresses."""
    bit = bit_of(firsts, row)
    word = bit >> _SIX
    return ranks[word] + np.int64(ones(bits[word] & ((_ONE << (bit & _LOW)) - _ONE)))


@kernel
def unite(parent: Any, bits: Any, ranks: Any, firsts: Any, left: Any, right: Any) -> None:
    """Join the ends of every edge: the smaller root becomes the root, so that a root is its component's smallest node."""
    for i in range(left.shape[0]):
        a = find(parent, node_of(bits, ranks, firsts, left[i]))
        b = find(parent, node_of(bits, ranks, firsts, right[i]))
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
def addresses(bits: Any, ranks: Any, low: int, high: int, address: int, nodes: Any) -> None:
    """The addresses of the marked rows of one shard, whose bits are the words [low, high)."""
    for word in range(low, high):
        at, left = ranks[word], bits[word]
        for bit in range(64):
            if left >> np.uint64(bit) & _ONE:
                nodes[at] = address + ((word - low) << 6) + bit
                at += 1


@kernel
def count_members(parent: Any, sizes: Any) -> None:
    """Add every node to the size that stands at its root."""
    for node in range(parent.shape[0]):
        sizes[parent[node]] += 1
