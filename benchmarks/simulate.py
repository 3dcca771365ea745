"""What a whole snapshot would take: a discrete simulation of a recipe's actions with costs that were measured here.

    python benchmarks/simulate.py [--quick] [--input GLOB]

Two small runs of a short web recipe calibrate it; it then predicts a run with more files, which is measured as well: once
with two workers and once with one. The start of workers and the opening of models are in all of them. Last it is asked about
one Common Crawl snapshot on 1,000 cores, with processor time in place of wall time, because those cores would not be shared.
The last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
CRAWL = ROOT / ".." / "shared" / "data" / "dev" / "crawl" / "CC-SIM-dev-2*.warc.gz"
RECIPE = """
name: snapshot
params: {paths: ""}
steps:
  crawl:    {uses: stages.ingest.warc.pages, with: {paths: "${paths}"}}
  text:     {uses: stages.extract.resiliparse.main_text, from: crawl}
  repaired: {uses: stages.clean.unicode.repair, from: text}
  language: {uses: classifiers.language.identify, from: repaired, with: {keep: [en], min_score: 0.3}}
  length:   {uses: stages.filters.length.by_words, from: language, with: {min_words: 50}}
  twins:    {uses: stages.dedup.exact.documents, from: length, with: {partitions: 4}}
  web:      {uses: stages.compact.keep, from: [length, twins]}
  shuffled: {uses: stages.shuffle.by_hash, from: web, with: {shards: 4, seed: 7}}
  shards:   {uses: stages.export.megatron.shards, from: shuffled}
"""
FILES, PAGES, CORES = 90_000, 3_000_000_000, 1_000
FAN_IN = 256
"""Spills in a merged one: `pipelines.plan.FAN_IN`."""
PUT, GET, STORED = 0.005 / 1000, 0.0004 / 1000, 0.023
"""US dollars a request and a GB-month: list prices of S3 Standard in us-east-1."""
EXACT_ROW = 180
"""Bytes of memory that `exact.documents` needs a row of a partition (docs/scale.md)."""


@dataclass
class Action:
    """Tasks of one kind, after the actions it needs: durations in seconds."""

    name: str
    needs: tuple[str, ...]
    durations: list[float]


def simulate(actions: list[Action], workers: int, driver: float, startup: float = 0.0) -> float:
    """Seconds until all is done: workers take the next task of the first action that is ready; the driver hears one outcome
    at a time and needs `driver` seconds for it, as a run does.
    """
    left = {a.name: len(a.durations) for a in actions}
    queues = {a.name: iter(a.durations) for a in actions}
    events: list[tuple[float, str]] = []
    clock, free, heard = startup, workers, startup
    waiting = list(actions)
    while waiting or events:
        waiting = [a for a in waiting if left[a.name]]
        for action in waiting:
            while free and all(not left[n] for n in action.needs):
                duration = next(queues[action.name], None)
                if duration is None:
                    break
                heapq.heappush(events, (max(clock, heard) + duration, action.name))
                free -= 1
        if not events:
            break
        clock, name = heapq.heappop(events)
        heard = max(heard, clock) + driver
        free += 1
        left[name] -= 1
    return max(clock, heard)


@dataclass
class Measured:
    """One real run as its driver saw it."""

    files: int
    workers: int
    wall: float = 0.0
    startup: float = 0.0
    """Seconds from the start of the run until the first task was handed out."""
    needs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    planned: dict[str, int] = field(default_factory=dict)
    spans: dict[str, list[float]] = field(default_factory=dict)
    """Seconds of each task from the moment it was handed out until its outcome came, in the order of handing out: with the
    start of a worker, the opening of models and the commit.
    """
    heard: list[float] = field(default_factory=list)
    """Seconds that the driver needed for each outcome."""

    def cold(self, action: str) -> float:
        """Mean seconds of the tasks that were the first of their action in a worker."""
        return fmean(self.spans[action][: self.workers])

    def warm(self, action: str) -> float:
        """Mean seconds of all others; of the first ones where there are no others."""
        return fmean(self.spans[action][self.workers :] or self.spans[action])


class Clocked:
    """An executor, and when each of its tasks was handed out and answered; `names` tells the action of a program."""

    def __init__(self, inner: Any, found: Measured, names: dict[str, str]) -> None:
        self.inner, self.found, self.names, self.began = inner, found, names, time.perf_counter()
        self._handed: dict[tuple[str, str], tuple[float, int]] = {}

    def map(self, work: Any, tasks: Iterator[Any]) -> Iterator[Any]:
        """As the inner one does."""
        for outcome in self.inner.map(work, self._taken(tasks)):
            at, place = self._handed[outcome.task.program, outcome.task.unit.key]
            self.found.spans[self.names[outcome.task.program]][place] = time.perf_counter() - at
            before = time.perf_counter()
            yield outcome
            self.found.heard.append(time.perf_counter() - before)

    def _taken(self, tasks: Iterator[Any]) -> Iterator[Any]:
        for task in tasks:
            if hasattr(task, "program"):
                now = time.perf_counter()
                self.found.startup = self.found.startup or now - self.began
                spans = self.found.spans.setdefault(self.names[task.program], [])
                self._handed[task.program, task.unit.key] = (now, len(spans))
                spans.append(0.0)
            yield task

    def drain(self) -> None:
        """Not asked for."""

    def close(self) -> None:
        """Stop the workers."""
        self.inner.close()


def recipe_in(folder: Path) -> Path:
    """The recipe as a file."""
    path = folder / "snapshot.yaml"
    path.write_text(RECIPE)
    return path


def run_web(folder: Path, inputs: list[str], workers: int) -> Measured:
    """Run the recipe with workers that have to be started."""
    from manifests.store import Store
    from pipelines.executors.local import Local
    from pipelines.graph import build
    from pipelines.plan import make_plan
    from pipelines.recipe import load
    from pipelines.run import Run
    from pipelines.targets import lay_out

    place = folder / f"in{time.monotonic_ns()}"
    place.mkdir()
    for number, path in enumerate(inputs):
        (place / f"{number:04d}.warc.gz").write_bytes(Path(path).read_bytes())
    loaded = load(recipe_in(folder), {"paths": f"{place}/*.warc.gz"})
    plan = make_plan(lay_out(loaded, build(loaded), Store.open(place / "store")))
    found = Measured(len(inputs), workers, needs={a.name: a.needs for a in plan.actions})
    found.planned = {a.name: len(a.tasks) for a in plan.actions}
    executor = Clocked(Local(workers), found, {program: a.name for a in plan.actions for program in a.work})
    try:
        result = Run(plan, executor, lambda _: None, 0.05).go()
        found.wall = time.perf_counter() - executor.began
    finally:
        executor.close()
    assert result.code == 0, result.errors
    return found


def predicted(small: Measured, large: Measured, files: int) -> float:
    """Wall time of a run with so many files and the workers of two smaller runs.

    An action with a task for each file keeps the seconds of its tasks, first ones and others apart; the tasks of one with a
    fixed number grow along the line through both runs.
    """
    actions = []
    for name, needs in large.needs.items():
        grows = large.planned[name] != small.planned[name]
        count = round(large.planned[name] * files / large.files) if grows else large.planned[name]
        first, other = (
            _at(files, small, large, kind(small, name), kind(large, name), grows) for kind in (Measured.cold, Measured.warm)
        )
        actions.append(Action(name, needs, [first] * min(large.workers, count) + [other] * (count - large.workers)))
    driver = fmean([*small.heard, *large.heard])
    return simulate(actions, large.workers, driver, fmean([small.startup, large.startup]))


def _at(files: int, small: Measured, large: Measured, low: float, high: float, grows: bool) -> float:
    """Seconds of a task: the mean of both runs, weighed with their files, or the line through both."""
    if grows:
        return (low * small.files + high * large.files) / (small.files + large.files)
    slope = max(high - low, 0.0) / (large.files - small.files)
    return high + slope * (files - large.files)


def processor_costs(folder: Path, inputs: list[str]) -> tuple[dict[str, float], dict[str, float]]:
    """Processor seconds by action of one run in this process, and what it read and wrote."""
    sys.path.insert(0, str(ROOT / "tests"))
    from manifests.store import Store
    from pipelines.executors.contract import Outcome
    from pipelines.graph import build
    from pipelines.perform import perform
    from pipelines.plan import make_plan
    from pipelines.recipe import load
    from pipelines.run import Run
    from pipelines.targets import lay_out

    spent: dict[str, float] = {}

    class Timed:
        def map(self, work, tasks):
            for task in tasks:
                began = time.process_time()
                receipts = perform(work[task.program], task, lambda _: None)
                action = next(a.name for a in plan.actions if task.program in a.work)
                spent[action] = spent.get(action, 0.0) + time.process_time() - began
                yield Outcome(task, receipts)

        def drain(self) -> None: ...

        def close(self) -> None: ...

    facts: dict[str, float] = {"bytes": 0, "pages": 0, "kept": 0, "spilled": 0}

    def hear(event: dict) -> None:
        if event["event"] == "part":
            facts["spilled" if event["address"].startswith("spill:") else "bytes"] += event["bytes"]

    loaded = load(recipe_in(folder), {"paths": ",".join(inputs)})
    for name in ("warm", "clocked"):  # kernels are compiled and models opened by the first
        spent.clear()
        plan = make_plan(lay_out(loaded, build(loaded), Store.open(folder / name)))
        facts.update(dict.fromkeys(facts, 0))

        assert Run(plan, Timed(), hear, 0.05).go().code == 0
    head = {s: plan.layout.object(t).head(plan.layout.units[t.frame]) for s, (t, _) in plan.layout.holder.items()}
    facts["pages"], facts["kept"] = head["crawl"]["members"][0]["standing"], head["web"]["rows"]
    facts["judged"] = head["length"]["members"][plan.layout.holder["length"][1]]["standing"]
    facts["input"] = sum(Path(p).stat().st_size for p in inputs)
    return spent, facts


def snapshot(spent: dict[str, float], facts: dict[str, float], driver: float, partitions: int) -> dict:
    """The whole snapshot: wall time, storage, files, requests, price, memory. Requests are counted as the engine makes them:
    a part is one PUT; a stored layer is read with a HEAD and three ranges; a settle reads index and slice of every merged spill.
    """
    scale = PAGES / facts["pages"]
    work = {name: seconds * (1 if name.startswith("finish") else scale) for name, seconds in spent.items()}  # one task of shards
    counts = {name: partitions if name.startswith("settle") else 1 if name.startswith("finish") else FILES for name in work}
    order = list(work)
    actions = [Action(n, (order[i - 1],) if i else (), [work[n] / counts[n]] * counts[n]) for i, n in enumerate(order)]
    wall = simulate(actions, CORES, driver)
    reduces = sum(name.startswith("settle") for name in work)
    joined = -(-FILES // FAN_IN)
    puts = sum(counts.values()) + reduces * (FILES + joined)
    gets = reduces * (FILES + 2 * partitions * joined) + 4 * 3 * FILES
    judged = PAGES * facts["judged"] / facts["pages"]
    return {
        "wall_h": wall / 3600, "core_h": sum(work.values()) / 3600, "stored_tb": facts["bytes"] * scale / 1e12,
        "spilled_tb": facts["spilled"] * scale / 1e12, "files": sum(counts.values()), "puts": puts, "gets": gets,
        "dollars": puts * PUT + gets * GET, "month": facts["bytes"] * scale / 1e9 * STORED,
        "settle_gb": judged / partitions * EXACT_ROW / 1e9,
    }  # fmt: skip


def report(rows: list[tuple[str, float, float]], world: dict[int, dict], spent: dict[str, float], facts: dict[str, float]) -> str:
    from benchmarks.results import machine

    lines = ["| run | predicted | measured | off by |", "|---|---|---|---|"]
    lines += [f"| {name} | {guess:.1f} s | {real:.1f} s | {guess / real - 1:+.1%} |" for name, guess, real in rows]
    costs = ", ".join(f"{name} {1000 * seconds / facts['pages']:.3f}" for name, seconds in spent.items())
    names = {"wall_h": "wall time, hours", "core_h": "core-hours", "stored_tb": "stored, TB", "spilled_tb": "in the exchange, TB",
             "files": "files", "puts": "PUT requests", "gets": "GET requests", "dollars": "price of the requests, US$",
             "month": "price of storage, US$ a month", "settle_gb": "memory of the largest settle, GB"}  # fmt: skip
    table = [f"| one snapshot | {' | '.join(f'{p:,} partitions' for p in world)} |", "|---" * (len(world) + 1) + "|"]
    table += [f"| {text} | {' | '.join(f'{w[key]:,.1f}' for w in world.values())} |" for key, text in names.items()]
    return f"""## Simulation

`python benchmarks/simulate.py` on {machine()}: a short web recipe (resiliparse, Unicode, language, length, exact
duplicates, shuffle, Megatron). Each prediction is calibrated by two smaller runs with as many workers: seconds of tasks that are
the first of their action in a worker (it starts, opens models) and of others, of the driver for each outcome, and of the start.

{chr(10).join(lines)}

Processor time by action, milliseconds a page: {costs}.

One snapshot of {FILES:,} files and {PAGES:,} pages on {CORES:,} cores, by simulation with these processor times:

{chr(10).join(table)}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="half the files")
    parser.add_argument("--input", default=str(CRAWL), help="WARC files")
    chosen = parser.parse_args()
    sample = ROOT / "pipelines" / "recipes" / "sample" / "sample.warc.gz"
    pool = sorted(map(str, Path("/").glob(str(Path(chosen.input).absolute())[1:]))) or [str(sample)]
    unit = 1 if chosen.quick else 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pick = lambda n: [pool[i % len(pool)] for i in range(n)]  # noqa: E731
        run_web(folder, pick(2), 2)  # the first run of all compiles
        rows, heard = [], []
        for files, workers in ((10 * unit, 2), (8 * unit, 1)):
            small, large = run_web(folder, pick(3 * unit), workers), run_web(folder, pick(5 * unit), workers)
            guess, real = predicted(small, large, files), run_web(folder, pick(files), workers)
            heard += [*small.heard, *large.heard]
            rows.append((f"{files} files, {workers} workers", guess, real.wall))
            for run in (small, large, real):
                print(run, file=sys.stderr)
            print(rows[-1], file=sys.stderr, flush=True)
        driver = fmean(heard)
        spent, facts = processor_costs(folder, pick(2 * unit))
    world = {p: snapshot(spent, facts, driver, p) for p in (64, 1024)}
    from benchmarks.results import write_section

    write_section("simulation", report(rows, world, spent, facts))
    worst = max(abs(guess / real - 1) for _, guess, real in rows)
    print(json.dumps({"prediction_off_by": round(worst, 3), "snapshot_core_h": round(world[64]["core_h"], 1)}))


if __name__ == "__main__":
    main()
