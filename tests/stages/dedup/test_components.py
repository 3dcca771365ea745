import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.dedup.components import Components, Forest, Room

ROOT = Path(__file__).parents[3]
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


def labelled(edges: list[tuple[int, int]], limit: int, folder: Path | None = None, cut: int = 1) -> dict[int, int]:
    with Room(limit, str(folder) if folder else None) as room:
        made = Components(room)
        for start in range(0, len(edges), cut):
            piece = np.array(edges[start : start + cut], np.int64)
            made.add(piece[:, 0].copy(), piece[:, 1].copy())
        nodes, parent = made.solve()
        assert (np.diff(nodes) > 0).all()
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
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 70)), min_size=2, max_size=40), st.integers(1, 9))
def test_rows_of_several_frames_and_shards_are_told_apart(places: list[tuple[int, int, int]], cut: int) -> None:
    rows = [frame << 56 | shard << 32 | position for frame, shard, position in places]
    edges = list(pairwise(rows[::2])) + list(pairwise(rows[1::2]))
    assert labelled(edges, 1 << 40, None, cut) == plain(edges)


@settings(deadline=None)
@given(st.lists(EDGES, max_size=4))
def test_a_forest_connects_the_same_with_the_fewest_edges(pieces: list[list[tuple[int, int]]]) -> None:
    forest, kept = Forest(), list[tuple[int, int]]()
    for piece in pieces:
        pairs = np.array(piece, np.int64).reshape(-1, 2)
        left, right = forest.connect(pairs[:, 0].copy(), pairs[:, 1].copy())
        kept += zip(left.tolist(), right.tolist(), strict=True)
    label, found = plain([edge for piece in pieces for edge in piece]), plain(kept)
    assert {n: found.get(n, n) for n in label} == label
    assert len(kept) == len(label) - len(set(label.values()))


def test_more_edges_than_one_piece_holds_are_kept() -> None:
    with Room(1 << 40) as room:
        edges = Components(room)
        for start in range(0, 3_000_000, 500_000):
            rows = np.arange(start, start + 500_000)
            edges.add(rows + 1, rows)
        nodes, parent = edges.solve()
        assert len(nodes) == 3_000_001
        assert not parent.any()


LIMITED = """
import resource, sys
import numpy as np
import pyarrow as pa
from stages.dedup.minhash import clusters

def edges():
    rng = np.random.default_rng(5)
    for _ in range(12):
        rows, others = rng.integers(0, 6_000_000, (2, 250_000))
        yield pa.table({"row": rows, "other": others, "survivor": pa.nulls(len(rows), pa.string())})

params = clusters.params(memory_mb=int(sys.argv[1]))
for _ in clusters.settle(iter([pa.table({"row": [1], "other": [0], "survivor": pa.nulls(1, pa.string())})]), params):
    pass
used = int(open("/proc/self/statm").read().split()[5]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_DATA, (used + (56 << 20), -1))
nodes, size = 0, 0
for out in clusters.settle(edges(), params):
    nodes, size = nodes + out.num_rows, max(size, out["cluster_size"].to_numpy().max())
print(nodes, size)
"""


def test_clusters_stay_within_the_memory_that_they_are_given() -> None:
    """3 million edges and 3.8 million nodes are 130 MB of arrays; the process may grow by 56 MB, or by 16 for the arrays."""

    def run(limit: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", LIMITED, str(limit)]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)

    small = run(16)
    assert small.returncode == 0, small.stderr
    nodes, size = map(int, small.stdout.split())
    rng, seen = np.random.default_rng(5), list[np.ndarray]()
    for _ in range(12):
        seen.append(rng.integers(0, 6_000_000, (2, 250_000)))
    assert nodes == len(np.unique(np.concatenate(seen, axis=1)))
    assert 0 < size < nodes
    assert "MemoryError" in run(4096).stderr, "the limit would not have been felt"
