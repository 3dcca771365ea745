"""Semantic duplicates: texts whose embeddings point the same way (SemDeDup: Abbas et al., arXiv 2303.09540).

    embed      Map     text -> `embedding`, by `classifiers.embedding` or any column of vectors
    centroids  Reduce  a sample of the embeddings -> k centroids, a small dataset
    pairs      Reduce  embeddings, given the centroids -> edges between neighbours in the same cell
    clusters and twins of `stages.dedup.minhash` then choose the survivors.

Two texts that fall into different cells are never compared: `probes` puts each text into its nearest few cells. Within a
cell all pairs are compared, n * n / 2 products: choose k so that a cell holds some thousand texts.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray
from pydantic import Field

from stages.contract import Memory, Params, reduce_stage

EMBEDDING = pa.list_(pa.float32())
PACKED = pa.binary()
WIDTH = 1024
"""Dimensions of an embedding, for estimates alone."""
BLOCK = 1024
"""Rows whose products with all earlier ones are made at a time: 8 MB a thousand earlier rows."""


def unit_matrix(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """Vectors as rows of length 1; ValueError where they differ in length."""
    array = column.combine_chunks()
    array = pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
    widths = pc.unique(pc.list_value_length(array)).to_pylist()
    if len(widths) > 1:
        raise ValueError(f"embeddings have {sorted(widths)} dimensions; one model makes one")
    matrix = array.flatten().to_numpy().astype(np.float32).reshape(len(array), -1)
    return np.asarray(matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12), np.float32)


def _packed(matrix: NDArray[np.float32]) -> pa.Array:
    return pa.array([row.tobytes() for row in np.ascontiguousarray(matrix, "<f4")], PACKED)


def _unpacked(column: pa.ChunkedArray) -> NDArray[np.float32]:
    values = column.to_pylist()
    return np.frombuffer(b"".join(values), "<f4").reshape(len(values), -1)


class Centroids(Params):
    """How the space is cut."""

    cells: int = Field(256, ge=1, description="Cells; some thousand texts for each.")
    sample: float = Field(1.0, gt=0, le=1, description="Share of the texts that the centroids are fitted to, by a hash of the id.")
    rounds: int = Field(20, ge=1, description="Rounds of k-means at most.")
    seed: int = Field(0, ge=0, description="Seed of the sample and of the first centroids.")


def _settle_centroids(batches: Iterator[pa.Table], params: Centroids) -> Iterator[pa.Table]:
    parts = [_unpacked(batch["vector"]) for batch in batches]
    if not parts:
        return
    points = np.concatenate(parts)
    # Rows come in the order of their hashed ids: the first ones are a random choice that no arrival can change.
    first = np.unique(points, axis=0, return_index=True)[1]
    centers: NDArray[np.float32] = points[np.sort(first)[: params.cells]]
    for _ in range(params.rounds):
        cell = nearest(points, centers, 1)[:, 0]
        sums = np.zeros(centers.shape, np.float64)
        np.add.at(sums, cell, points)
        moved = np.where(np.bincount(cell, minlength=len(centers))[:, None] > 0, sums, centers)
        moved = np.round(moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12), 5).astype(np.float32)
        if np.array_equal(moved, centers):
            break
        centers = moved
    yield pa.table({"vector": _packed(centers)})


@reduce_stage(
    version=1,
    reads={"id": pa.string(), "embedding": EMBEDDING},
    emits={"key": pa.uint64(), "vector": PACKED},
    writes={"vector": PACKED},
    settle=_settle_centroids,
    result="dataset",
    partitions=lambda _params: 1,
    memory=lambda _params: Memory(per_row=3 * 4 * WIDTH),
    libraries=("xxhash",),
)
def centroids(batch: pa.Table, params: Centroids) -> pa.Table:
    """Centroids of the embeddings by spherical k-means: a dataset of `vector` (float32 values as bytes), one a cell.

    The sample is held in memory by one task: 4 bytes a dimension and text.
    """
    batch = batch.filter(pc.is_valid(batch["embedding"]))
    keys = np.array([xxhash.xxh3_64_intdigest(i, params.seed) for i in batch["id"].to_pylist()], np.uint64)
    chosen = keys <= np.uint64(min(int(params.sample * 2**64), 2**64 - 1))
    batch, keys = batch.filter(pa.array(chosen)), keys[chosen]
    return pa.table({"key": keys, "vector": _packed(unit_matrix(batch["embedding"])) if batch.num_rows else pa.nulls(0, PACKED)})


def nearest(points: NDArray[np.float32], centers: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """The cells of each point, nearest first; of equally near ones the smaller number."""
    found = np.empty((len(points), count), np.int64)
    for start in range(0, len(points), 65_536):
        near = np.round(points[start : start + 65_536] @ centers.T, 4)
        found[start : start + 65_536] = np.argsort(-near, axis=1, kind="stable")[:, :count]
    return found


class Pairs(Params):
    """What is near."""

    min_cosine: float = Field(0.95, gt=0, le=1, description="Cosine at or above which two texts are one.")
    probes: int = Field(1, ge=1, description="Cells that a text is put into, nearest first.")
    partitions: int = Field(64, ge=1, description="Parts of the exchange; one must fit into memory (three times its embeddings).")


EDGES = {"row": pa.int64(), "other": pa.int64(), "survivor": pa.string()}


def _settle_pairs(batches: Iterator[pa.Table], params: Pairs, **_given: pa.Table) -> Iterator[pa.Table]:
    from stages.dedup.components import Forest

    forest = Forest()
    for found in _neighbours(batches, params.min_cosine):
        left, right = forest.connect(*found)
        yield pa.table([left, right, pa.nulls(len(left), pa.string())], schema=pa.schema(EDGES))


def _neighbours(batches: Iterator[pa.Table], least: float) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    for batch in batches:
        key, rows, points = batch["key"].to_numpy(), batch["row"].to_numpy(), _unpacked(batch["vector"])
        edges = np.flatnonzero(np.r_[True, key[1:] != key[:-1], True])
        for low, high in zip(edges[:-1], edges[1:], strict=True):  # noqa: RUF007 - arrays
            for start in range(low, high, BLOCK):
                stop = min(start + BLOCK, high)
                near = np.round(points[start:stop] @ points[low:stop].T, 4) >= np.float32(least)
                one, two = np.nonzero(near)
                later = one + start > two + low
                yield rows[one[later] + start], rows[two[later] + low]


@reduce_stage(
    version=1,
    reads={"embedding": EMBEDDING, "row": pa.int64()},
    emits={"key": pa.uint64(), "row": pa.int64(), "vector": PACKED},
    writes=EDGES,
    settle=_settle_pairs,
    result="dataset",
    memory=lambda _params: Memory(per_row=70),
    given=("centroids",),
)
def pairs(batch: pa.Table, params: Pairs, *, centroids: pa.Table) -> pa.Table:
    """Edges between texts of one cell whose cosine is `min_cosine` or more, 4 decimals: for `stages.dedup.minhash.clusters`."""
    batch = batch.filter(pc.is_valid(batch["embedding"]))
    if not batch.num_rows:
        return pa.schema({"key": pa.uint64(), "row": pa.int64(), "vector": PACKED}).empty_table()
    points, centers = unit_matrix(batch["embedding"]), _unpacked(centroids["vector"])
    count = min(params.probes, len(centers))
    cells = nearest(points, centers, count).reshape(-1).astype(np.uint64)
    keys = (cells + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    keys = (keys ^ keys >> np.uint64(31)) * np.uint64(0xD6E8FEB86659FD93)
    index = np.repeat(np.arange(batch.num_rows), count)
    return pa.table({"key": keys, "row": batch["row"].to_numpy()[index], "vector": _packed(points).take(pa.array(index))})
