from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from stages.dedup.semantic import centroids, nearest, pairs


def frame(matrix: np.ndarray) -> pa.Table:
    n = len(matrix)
    return pa.table(
        {"id": [f"{i:032x}" for i in range(n)], "row": np.arange(n), "embedding": pa.array(list(matrix), pa.list_(pa.float32()))}
    )


def fitted(table: pa.Table, **params: Any) -> pa.Table:
    chosen = centroids.params(**params)
    emitted = centroids.emit(table, chosen)
    emitted = emitted.take(np.argsort(emitted["key"].to_numpy(), kind="stable"))
    return pa.concat_tables(centroids.settle(iter([emitted]), chosen))


def edges(table: pa.Table, cells: pa.Table, **params: Any) -> set[tuple[int, int]]:
    chosen = pairs.params(**params)
    emitted = pairs.emit(table, chosen, centroids=cells)
    emitted = emitted.take(np.lexsort((emitted["row"].to_numpy(), emitted["key"].to_numpy())))
    out = pa.concat_tables(pairs.settle(iter([emitted]), chosen, centroids=cells))
    return set(zip(out["row"].to_pylist(), out["other"].to_pylist(), strict=True))


def planted(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Families of near vectors around random directions, and the family of each."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(60, 32))
    family = np.repeat(np.arange(60), 1 + np.arange(60) % 4)
    return (base[family] + 0.02 * rng.normal(size=(len(family), 32))).astype(np.float32), family


def test_families_are_joined_and_nothing_else() -> None:
    matrix, family = planted(1)
    found = edges(frame(matrix), fitted(frame(matrix), cells=8), min_cosine=0.95)
    first = {int(f): int(np.flatnonzero(family == f)[0]) for f in family}
    expected = {(i, first[int(f)]) for i, f in enumerate(family) if i != first[int(f)]}
    assert found <= expected
    assert len(found) >= 0.95 * len(expected)
    assert edges(frame(matrix), fitted(frame(matrix), cells=8), min_cosine=0.95, probes=8) == expected


def test_order_of_arrival_changes_no_centroid() -> None:
    matrix, _ = planted(2)
    table = frame(matrix)
    order = np.random.default_rng(0).permutation(len(matrix))
    assert fitted(table, cells=5).equals(fitted(table.take(order), cells=5))
    assert fitted(table, cells=5, seed=1)["vector"].to_pylist() != fitted(table, cells=5)["vector"].to_pylist()
    assert fitted(table, cells=1000).num_rows == len(np.unique(matrix, axis=0))


def test_blocks_of_a_large_cell_miss_no_pair() -> None:
    rng = np.random.default_rng(3)
    base = rng.normal(size=(1500, 16)).astype(np.float32)
    matrix = np.concatenate([base, base])
    found = edges(frame(matrix), fitted(frame(matrix), cells=1), min_cosine=1.0)
    assert {(i + 1500, i) for i in range(1500)} == found


def test_texts_without_an_embedding_take_no_part_and_mixed_models_are_refused() -> None:
    table = frame(np.ones((3, 4), np.float32))
    holes = table.set_column(2, "embedding", pa.array([None, [1.0, 0.0], [1.0, 0.0]], pa.list_(pa.float32())))
    assert edges(holes, fitted(holes, cells=2)) == {(2, 1)}
    mixed = table.set_column(2, "embedding", pa.array([[1.0], [1.0, 0.0], None], pa.list_(pa.float32())))
    with pytest.raises(ValueError, match="one model makes one"):
        centroids.emit(mixed, centroids.params())


def test_nearest_cells_come_in_order_and_ties_go_to_the_smaller() -> None:
    centers = np.array([[1, 0], [0, 1], [1, 0]], np.float32)
    assert nearest(np.array([[1, 0], [0.6, 0.8]], np.float32), centers, 2).tolist() == [[0, 2], [1, 0]]
