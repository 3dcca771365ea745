"""What more workers, nodes and shards cost.

    python benchmarks/scale.py [--quick] [--no-ray] [--curator]

Two workers against one, as a ratio to a bare two-process pool that does the same work in the same minutes; overhead per
task of the local pool and of Ray, against a bare pool, bare Ray tasks, Ray Data and NeMo Curator on the same map;
scheduling efficiency on one to four Ray nodes with tasks that sleep; planning of 100,000 shards and what it asks of an
object store. The last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = str(ROOT)

STAGES = """
import time
import pyarrow as pa
from pydantic import Field
from stages.contract import TEXT, Params, map_stage

class Work(Params):
    loops: int = Field(0, description="busy loops a row")
    seconds: float = Field(0.0, description="sleep a batch")

def busy(loops):
    total = 0
    for i in range(loops):
        total += i * i
    return total

@map_stage(version=1, reads={"text": TEXT}, writes={"total": pa.int64()})
def toil(batch, params: Work):
    if params.seconds:
        time.sleep(params.seconds)
    return pa.table({"total": pa.array([busy(params.loops) for _ in range(batch.num_rows)], pa.int64())})
"""
RECIPE = """
name: toil
steps:
  lines: {{uses: stages.ingest.jsonl.rows, with: {{paths: "${{here}}/rows*.jsonl", columns: {{id: id, text: text}}}}}}
  toil:  {{uses: mine.toil, from: lines, with: {{loops: {loops}, seconds: {seconds}}}}}
"""


def lay(folder: Path, units: int, rows: int, loops: int, seconds: float) -> Path:
    """Inputs, stage and recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    for unit in range(units):
        lines = (json.dumps({"id": f"u{unit}r{i}", "text": "text"}) + "\n" for i in range(rows))
        (folder / f"rows{unit:05d}.jsonl").write_text("".join(lines))
    (folder / "mine.py").write_text(STAGES)
    (folder / "recipe.yaml").write_text(RECIPE.format(loops=loops, seconds=seconds))
    return folder / "recipe.yaml"


def planned(recipe: Path, root: str):
    """A plan of the recipe for a store."""
    from manifests.store import Store
    from pipelines.graph import build
    from pipelines.plan import make_plan
    from pipelines.recipe import load
    from pipelines.targets import lay_out

    loaded = load(recipe)
    return make_plan(lay_out(loaded, build(loaded), Store.open(root)))


class Warm:
    """An executor that is warm when the clock starts: its workers have done one task of another store."""

    def __init__(self, make: Callable[[str], object], recipe: Path, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.executor = make(str(folder / "warm"))
        self.run(recipe)

    def run(self, recipe: Path) -> float:
        """Seconds of a run into a store of its own."""
        from pipelines.run import Run

        self.count += 1
        plan = planned(recipe, str(self.folder / f"store{self.count}"))
        began = time.perf_counter()
        result = Run(plan, self.executor, lambda _: None, 0.0).go()  # type: ignore[arg-type]
        assert result.code == 0, result.errors
        return time.perf_counter() - began


def toil(args: tuple[int, int]) -> int:
    """One unit of the bare pool: the same loops as the stage's."""
    rows, loops = args
    total = 0
    for _ in range(rows):
        total = 0
        for i in range(loops):
            total += i * i
    return total


def pool_seconds(workers: int, units: int, rows: int, loops: int) -> float:
    """The same work in a bare pool that is warm."""
    with get_context("forkserver").Pool(workers) as pool:
        pool.map(toil, [(1, 1)] * workers * 2)
        began = time.perf_counter()
        pool.map(toil, [(rows, loops)] * units, chunksize=1)
        return time.perf_counter() - began


def local(workers: int) -> Callable[[str], object]:
    """Makes the local executor."""
    from pipelines.executors.local import Local

    return lambda _: Local(workers)


def efficiency(folder: Path, quick: bool) -> tuple[float, list[float], list[float]]:
    """Speed-up of two workers over one, divided by that of a bare pool: pairs in turn, so that both see the same load."""
    units, rows, loops, rounds = (12, 40, 20_000, 3) if quick else (24, 60, 40_000, 5)
    recipe = lay(folder / "toil", units, rows, loops, 0)
    crews = {n: Warm(local(n), recipe, folder / f"local{n}") for n in (1, 2)}
    ours, bare = [], []
    for _ in range(rounds):
        ours.append(crews[1].run(recipe) / crews[2].run(recipe))
        bare.append(pool_seconds(1, units, rows, loops) / pool_seconds(2, units, rows, loops))
    for crew in crews.values():
        crew.executor.close()  # type: ignore[attr-defined]
    return statistics.median(ours) / statistics.median(bare), ours, bare


def task_overhead(folder: Path, make: Callable[[str], object], workers: int, quick: bool) -> float:
    """Milliseconds a task with one row and nothing to do, times workers: open, read, layer, commit, receipt, hand over."""
    units = 60 if quick else 200
    warm = Warm(make, lay(folder / "warm-in", 4, 1, 0, 0), folder / "w")
    seconds = warm.run(lay(folder / "empty", units, 1, 0, 0))
    warm.executor.close()  # type: ignore[attr-defined]
    return 1000 * seconds * workers / units


def write_like_us(folder: str, number: int) -> int:
    """What a task of ours cannot avoid: a small Parquet file, flushed to the disk and renamed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(folder) / f"{number}.parquet"
    draft = path.with_suffix(".draft")
    pq.write_table(pa.table({"id": ["a"], "total": [0]}), draft, compression="zstd")
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    draft.replace(path)
    return number


def bare_pool_overhead(folder: Path, units: int) -> float:
    """Milliseconds a task of a bare pool that writes one small file."""
    folder.mkdir()
    with get_context("forkserver").Pool(2) as pool:
        pool.starmap(write_like_us, [(str(folder), n) for n in range(4)])
        began = time.perf_counter()
        pool.starmap(write_like_us, [(str(folder), n) for n in range(units)], chunksize=1)
        return 2000 * (time.perf_counter() - began) / units


class Nodes:
    """A Ray cluster on this machine that grows node by node."""

    def __init__(self) -> None:
        import ray
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 100 << 20}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        ray.init(address=self.cluster.address, log_to_driver=False)

    def grow(self) -> None:
        """One more node of two processors."""
        self.cluster.add_node(num_cpus=2, object_store_memory=100 << 20)
        self.cluster.wait_for_nodes()

    def close(self) -> None:
        """End it."""
        import ray

        ray.shutdown()
        self.cluster.shutdown()


def on_ray(workers: int) -> Callable[[str], object]:
    """Makes the Ray executor."""

    def make(root: str) -> object:
        from pipelines.executors.ray import Ray

        return Ray(root, workers)

    return make


def sleeping(folder: Path, nodes: int, quick: bool) -> float:
    """The share of the time that workers sleep in their tasks; a sleeping task needs no processor, so nodes may share one."""
    workers, seconds, each = 2 * nodes, 2.0, 3 if quick else 6
    # One task for each worker, long enough for all of them to start: on two cores eight take half a minute.
    warm = Warm(on_ray(workers), lay(folder / "s-warm", workers, 1, 0, 10.0 + 10.0 * nodes), folder / "s")
    took = warm.run(lay(folder / f"s{nodes}", workers * each, 1, 0, seconds))
    warm.executor.close()  # type: ignore[attr-defined]
    return each * seconds / took


def ray_peers(folder: Path, units: int) -> dict[str, float]:
    """Milliseconds a task of bare Ray tasks and of Ray Data (where its extra is installed) that write one small file each."""
    import ray

    place = folder / "peer"
    place.mkdir()
    remote = ray.remote(write_like_us)
    ray.get([remote.remote(str(place), n) for n in range(4)])
    began = time.perf_counter()
    ray.get([remote.remote(str(place), n) for n in range(units)])
    return {"bare Ray tasks": 2000 * (time.perf_counter() - began) / units} | ray_data(place, units)


def ray_data(place: Path, units: int) -> dict[str, float]:
    """Ray Data on the same map: one block a file, one small file written for each."""
    try:
        import ray.data
    except ImportError:
        return {}

    def each(row: dict) -> dict:
        return {"n": write_like_us(str(place), int(row["id"]) + 10_000)}

    began = time.perf_counter()
    ray.data.range(units, override_num_blocks=units).map(each).materialize()
    return {"Ray Data": 2000 * (time.perf_counter() - began) / units}


class Counting:
    """A place that counts what is asked of it, as an object store would bill it."""

    def __init__(self, place) -> None:
        self._place, self.local, self.root = place, False, place.root
        self.counts: dict[str, int] = {}

    def __getattr__(self, name: str):
        real = getattr(self._place, name)
        if name not in ("read", "exists", "names", "sizes", "put", "create", "read_log", "open", "range"):
            return real

        def counted(*args, **kwargs):
            self.counts[name] = self.counts.get(name, 0) + 1
            return real(*args, **kwargs)

        return counted


def plan_100k(folder: Path, units: int) -> tuple[float, dict[str, int], dict[str, int]]:
    """Seconds to plan so many shards of an empty store and of one where all is there, with the store's requests."""
    from manifests.store import Store
    from pipelines.graph import build
    from pipelines.plan import make_plan
    from pipelines.recipe import load
    from pipelines.targets import lay_out
    from pipelines.witnesses import remembering

    recipe = lay(folder / "many", units, 1, 0, 0)
    store = Store.open(folder / "many-store")
    counting = Counting(store.place)
    loaded = load(recipe)

    def once():
        began = time.perf_counter()
        with remembering(folder / "witnesses.json"):
            layout = lay_out(loaded, build(loaded), store)
        plan = make_plan(layout)
        return plan, time.perf_counter() - began

    once()  # witnesses of the inputs are learned
    store.place = counting
    plan, seconds = once()
    empty = dict(counting.counts)
    complete(plan)
    counting.counts.clear()
    plan, _ = once()
    assert not plan.actions
    return seconds, empty, dict(counting.counts)


def complete(plan) -> None:
    """Write the answers of a plan as if all had been done."""
    from manifests.manifest import Receipt
    from pipelines.targets import question_record

    for target in plan.layout.targets:
        place = plan.layout.object(target)
        place.ask(question_record(plan.layout, target))
        parts = [Receipt(u.key, u.name, 1, {".parquet": (1, "0" * 64)}) for u in plan.layout.frames[target.frame]]
        place.answer(plan.layout.units[target.frame], parts, {"members": [{}] * len(target.steps)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds and tasks, 20,000 shards to plan")
    parser.add_argument("--no-ray", action="store_true", help="leave Ray out")
    parser.add_argument("--curator", action="store_true", help="NeMo Curator too: 5 GB in .venv-curator")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found, text = measure(Path(name), chosen.quick, not chosen.no_ray, chosen.curator)
    from benchmarks.results import write_section

    write_section("scale", text)
    print(json.dumps(found))


def measure(folder: Path, quick: bool, ray: bool, peer: bool) -> tuple[dict[str, float], str]:
    """Headline figures and the section of the report."""
    from benchmarks.results import machine

    tasks = 60 if quick else 200
    ratio, ours, bare = efficiency(folder, quick)
    found: dict[str, float] = {"efficiency_2_workers": round(ratio, 3)}
    found["task_overhead_ms_local"] = round(task_overhead(folder / "l", local(2), 2, quick), 1)
    lines = [
        f"| two workers over one, gristmill | {statistics.median(ours):.2f} | {min(ours):.2f} to {max(ours):.2f} |",
        f"| two processes over one, bare pool | {statistics.median(bare):.2f} | {min(bare):.2f} to {max(bare):.2f} |",
        f"| ratio of the two | **{ratio:.3f}** | |",
        f"| overhead of a task, local | **{found['task_overhead_ms_local']} ms** | a whole commit: read, layer, flush, receipt |",
        f"| a bare pool that writes one small file | {bare_pool_overhead(folder / 'bare', tasks):.1f} ms | |",
    ]
    for line in lines:
        progress([line])
    if ray:
        more, extra = on_a_cluster(folder, quick, tasks)
        found |= extra
        lines += more
    if peer:
        from benchmarks.curator import curator

        lines += [f"| {name}, that write one small file | {ms:.1f} ms | |" for name, ms in curator(folder / "c", tasks).items()]
    units = 20_000 if quick else 100_000
    seconds, empty, there = plan_100k(folder, units)
    found["plan_100k_s"] = round(seconds * 100_000 / units, 2)
    lines += [
        f"| plan {units:,} shards, witnesses known | {seconds:.2f} s | store requests: {sum(empty.values())} ({said(empty)}) |",
        f"| the same, all done before | | store requests: {sum(there.values())} ({said(there)}) |",
    ]
    command = f"python benchmarks/scale.py{' --quick' if quick else ''}"
    head = f"## Scale\n\n`{command}` on {machine()}.\n\n| what | measured | remarks |\n|---|---|---|\n"
    return found, head + "\n".join(lines)


def progress(lines: list[str]) -> None:
    """The last line so far, for who watches."""
    print(lines[-1], file=sys.stderr, flush=True)


def said(counts: dict[str, int]) -> str:
    """Requests by kind."""
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def on_a_cluster(folder: Path, quick: bool, tasks: int) -> tuple[list[str], dict[str, float]]:
    """Rows of the table and headline figures that need Ray."""
    nodes = Nodes()
    try:
        overhead = task_overhead(folder / "r", on_ray(2), 2, quick)
        lines = [f"| overhead of a task, Ray | **{overhead:.1f} ms** | the same commit |"]
        progress(lines)
        lines += [f"| {name} that write one small file | {ms:.1f} ms | |" for name, ms in ray_peers(folder, tasks // 3).items()]
        for count in range(1, 5):
            if count > 1:
                nodes.grow()
            share = sleeping(folder / f"n{count}", count, quick)
            progress(lines)
            lines.append(f"| scheduling efficiency, {count} Ray nodes of 2 workers | {share:.3f} | tasks that sleep 2 s |")
    finally:
        nodes.close()
    return lines, {"task_overhead_ms_ray": round(overhead, 1)}


if __name__ == "__main__":
    main()
