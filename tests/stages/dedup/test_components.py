from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.dedup.components import Edges, Room, forest

EDGES = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=40)


def plain(edges: list[tuple[int, int]]) -> dict[int, int]:
    """Node to the smallest node of its component, by relabelling until nothing changes."""
    label = {n: n for edge in edges for n in edge}
    changed = True
    while changed:
        changed = False
        for a, b in edges:
            low = min(label[a], label[b])
            changed |= label[a] != low or label[b] != low
            label[a] = label[b] = low
    return label


def labelled(edges: list[tuple[int, int]], limit: int, folder: Path | None = None) -> dict[int, int]:
    with Room(limit, str(folder) if folder else None) as room:
        made = Edges(room)
        for a, b in edges:
            made.add(np.array([a], np.int64), np.array([b], np.int64))
        nodes, parent = made.components()
        return dict(zip(nodes.tolist(), nodes[parent].tolist(), strict=True))


@settings(deadline=None)
@given(EDGES)
def test_components_equal_those_of_a_plain_twin(edges: list[tuple[int, int]]) -> None:
    assert labelled(edges, 1 << 40) == plain(edges)


def test_components_on_disk_equal_those_in_memory_and_leave_nothing_behind(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    edges = [(int(a), int(b)) for a, b in rng.integers(0, 4000, (3000, 2))]
    assert labelled(edges, 64, tmp_path) == labelled(edges, 1 << 40)
    assert list(tmp_path.iterdir()) == []


@settings(deadline=None)
@given(EDGES)
def test_a_forest_connects_the_same_with_the_fewest_edges(edges: list[tuple[int, int]]) -> None:
    pairs = np.array(edges, np.int64).reshape(-1, 2)
    left, right = forest([(pairs[:, 0].copy(), pairs[:, 1].copy())])
    label = plain(edges)
    assert dict(zip(left.tolist(), right.tolist(), strict=True)) == {n: low for n, low in label.items() if n != low}


def test_edges_beyond_the_first_room_are_kept() -> None:
    with Room(1 << 40) as room:
        edges = Edges(room)
        for start in range(0, 3_000_000, 500_000):
            rows = np.arange(start, start + 500_000)
            edges.add(rows + 1, rows)
        nodes, parent = edges.components()
        assert len(nodes) == 3_000_001
        assert not parent.any()
