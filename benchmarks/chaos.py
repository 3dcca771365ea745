"""Runs that are killed: at named commit points and at random moments, on local workers and on Ray, over a store that misbehaves.

    python benchmarks/chaos.py            30 runs, table into RESULTS.md
    python benchmarks/chaos.py --quick    8 runs without Ray

Each run has an empty store in an S3 server on loopback (moto, in .venv-moto; `make test-far` makes it) that answers some
requests with 503 or 429, drops the line in the middle of uploads, and loses answers. After the kill the recipe is run again
until it ends; then every part must have the bytes of the undisturbed run, no part may be there twice, rows must balance,
`gristmill verify` must agree, and nothing may be left to do. The table says what was killed, where, and what was in flight.
The suite has to fail on a mutant that makes receipts durable before the files they speak of.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

RECIPE = ROOT / "tests" / "far" / "small.yaml"
POINTS = [
    ("before_part", 2), ("before_upload", 3), ("half_upload", 2), ("after_upload", 4), ("before_journal", 3), ("after_journal", 5),
    ("before_flush", 2), ("after_flush", 6), ("before_question", 3), ("before_manifest", 2), ("before_manifest_head", 1),
    ("after_manifest_head", 3), ("before_drop_spill", 1), ("after_record", 1), ("after_lock", 4),
]  # fmt: skip
FAULTS = ["503", "429", "half", "lost", "slow"]
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "it", "rains", "on", "every", "hill"]


@dataclass
class Row:
    """One run: what was done to it, and what was found afterwards."""

    what: str
    where: str
    flight: str = ""
    lost: int = 0
    doubled: int = 0
    fault: str = ""
    lives: int = 1
    seconds: float = 0.0


@dataclass
class Bench:
    """A folder with the recipe, a server, and the digests of the undisturbed run."""

    folder: Path
    endpoint: str
    expected: dict[str, str] = field(default_factory=dict)
    address: str = ""
    took: float = 0.0

    @property
    def recipe(self) -> Path:
        """The recipe's file."""
        return self.folder / "recipe.yaml"

    def faults(self, **wish: object) -> None:
        """What the server spoils from now on."""
        body = json.dumps({"slow": 6.0, **wish}).encode()
        urllib.request.urlopen(f"{self.endpoint}/-/faults", data=body, timeout=30).close()

    def lay(self) -> None:
        """Write inputs and recipe."""
        for unit in range(6):
            rows = [{"id": f"u{unit}r{i}", "text": " ".join(WORDS[(i * unit) % 7 : 5 + i % 9])} for i in range(40)]
            (self.folder / f"rows{unit}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.recipe.write_bytes(RECIPE.read_bytes())

    def command(self, root: str, *more: str) -> list[str]:
        """The command of a user."""
        address = ["--executor", "ray", "--set", f"address={self.address}"] if "ray" in more else ["--workers", "2"]
        return [sys.executable, "-m", "pipelines.cli", "run", str(self.recipe), "--store", root, *address]

    def start(self, command: list[str]) -> subprocess.Popen[str]:
        """Begin a run."""
        return subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def finish(self, root: str, row: Row, *more: str) -> None:
        """Run until it ends well; a run that the store itself brought down is begun again."""
        for _ in range(4):
            row.lives += 1
            done = subprocess.run(self.command(root, *more), cwd=ROOT, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return
            last = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no word"
            row.fault = last.replace(str(self.folder), "")[:160]
        row.fault = f"never ended: {row.fault}"

    def judge(self, root: str, row: Row, executor: str = "local") -> None:
        """Compare with the undisturbed run.

        A store may end an upload, of a worker that is dead or that gave up waiting and sent it again, when its spills are dropped
        already: the next run has to drop those.
        """
        from manifests.place import place_of
        from manifests.store import Store
        from pipelines.upkeep import verify_store

        self.faults()
        found = digests(root)
        missing = [k for k, d in self.expected.items() if found.get(k) != d]
        row.lost, row.doubled = len(missing), len(set(found) - set(self.expected))
        store = Store(root)
        for target in store.objects():
            for units in target.answers():
                keys = [p.unit for p in target.manifest(units).parts]
                row.doubled += len(keys) - len(set(keys))
                row.lost += unbalanced(target.head(units))
        if place_of(root).names("spills"):
            self.finish(root, row, executor)
        if place_of(root).names("spills"):
            row.fault = row.fault or "spills are left"
        elif verify_store(store, lambda _: None):
            row.fault = "verify found other bytes"
        elif not row.fault.startswith("never"):
            row.fault = ""


def unbalanced(head: dict) -> int:
    """Members of an answer whose rows do not add up."""
    wrong = 0
    for counts in head["members"]:
        if "standing" in counts:
            out = counts["standing"] + sum(counts.get("dropped", {}).values()) + counts.get("quarantined", 0)
            came = counts.get("records", counts.get("in", 0)) - sum(counts.get("skipped", {}).values())
            wrong += out != came
    return wrong


def digests(root: str) -> dict[str, str]:
    from manifests.place import place_of

    place = place_of(root)
    keys = sorted(k for k in place.sizes("objects") if "/parts/" in k)
    return {k: hashlib.sha256(place.read(k)).hexdigest() for k in keys}


def at_point(bench: Bench, point: str, n: int, *more: str) -> Row:
    """The driver dies at a commit point."""
    root, row, began = new_root(), Row("driver, SIGKILL", f"{point} {n}"), time.monotonic()
    bench.faults(rate=0.05, seed=n, kinds=FAULTS)
    drive = [sys.executable, str(Path(__file__).with_name("chaos_drive.py")), str(bench.recipe), root, point, str(n), *more]
    died = subprocess.run(drive, cwd=ROOT, capture_output=True, text=True, check=False)
    row.flight = died.stdout.strip() or "nothing"
    if died.returncode != -signal.SIGKILL:
        row.fault = f"the point was not passed: {died.stderr[-300:]}"
        row.lost += 1
        return row
    bench.finish(root, row)
    bench.judge(root, row)
    row.seconds = time.monotonic() - began
    return row


def at_random(bench: Bench, seed: int, took: float, kind: str) -> Row:
    """Something dies at a random moment of a run; kinds: driver, worker, outage; on Ray also node."""
    executor, _, victim = kind.partition(" ")
    chance = random.Random(seed)
    root, began = new_root(), time.monotonic()
    bench.faults(rate=0.08, seed=seed, kinds=FAULTS)
    process = bench.start(bench.command(root, executor))
    moment = chance.uniform(0.1, 0.9) * took
    row = Row(f"{victim}, {executor}", f"random, {moment:.1f} s")
    deadline = time.monotonic() + moment
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    row.flight = in_flight(root)
    struck = strike(bench, process, victim, chance)
    process.communicate()
    if not struck:  # it was faster than the moment chosen, or had no worker at that moment: that is no kill
        return at_random(bench, seed + 100, took * 0.7, kind)
    bench.finish(root, row, executor)
    bench.judge(root, row, executor)
    row.seconds = time.monotonic() - began
    return row


def strike(bench: Bench, process: subprocess.Popen[str], victim: str, chance: random.Random) -> bool:
    """Kill it, if the run is still going on and has one; whether that was so."""
    if process.poll() is not None:
        return False
    if victim == "driver":
        process.kill()
        return process.wait() == -signal.SIGKILL  # it may have ended by itself a moment before
    if victim == "worker":
        found = workers_of(process.pid) if not bench.address or "ray" not in " ".join(process.args) else ray_workers()
        if not found:
            return False
        os.kill(chance.choice(found), signal.SIGKILL)
    elif victim == "node":
        CLUSTER.lose_one()
    else:
        bench.faults(rate=0.08, seed=1, kinds=FAULTS, down=chance.uniform(1, 6))
    return True


def in_flight(root: str) -> str:
    """What lies in the store already, and what the run has told of it so far (every two seconds)."""
    from manifests.place import place_of
    from manifests.store import Store
    from pipelines.events import read_events

    store = Store(root)
    runs = store.runs()
    events = read_events(store, runs[-1]) if runs else []
    keys = list(place_of(root).sizes("objects"))
    parts, answers = (sum(f"/{kind}/" in key for key in keys) for kind in ("parts", "manifests"))
    return f"{parts} parts, {answers} answers; {sum(e['event'] == 'task' for e in events)} tasks told"


def workers_of(pid: int) -> list[int]:
    import psutil

    try:
        below = psutil.Process(pid).children(recursive=True)
        makers = {p.pid for p in below if "forkserver" in p.cmdline()[-1]}  # workers are forked from it, and look like it
    except (psutil.Error, IndexError):  # the run is at its end just now: there is nobody to strike
        return []
    return [p.pid for p in below if p.ppid() in makers]


def ray_workers() -> list[int]:
    import psutil

    return [p.pid for p in psutil.process_iter() if p.name().startswith("ray::Mill")]


class Nodes:
    """A cluster of three nodes on this machine; a lost one is replaced."""

    def __init__(self) -> None:
        self.cluster = None
        self.nodes = []

    def open(self) -> str:
        """Start it; its address."""
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": 100 << 20}
        )
        self.nodes = [self.cluster.add_node(num_cpus=1, object_store_memory=100 << 20) for _ in range(2)]
        return self.cluster.address

    def lose_one(self) -> None:
        """A node goes without a word, another comes."""
        self.cluster.remove_node(self.nodes.pop(), allow_graceful=False)
        self.nodes.append(self.cluster.add_node(num_cpus=1, object_store_memory=100 << 20))

    def close(self) -> None:
        """End it."""
        if self.cluster is not None:
            self.cluster.shutdown()


CLUSTER = Nodes()


def new_root() -> str:
    return f"s3://mill/{uuid4().hex[:8]}"


def moto_python() -> Path:
    """The environment of the server, made where it is missing."""
    python = ROOT / ".venv-moto" / "bin" / "python"
    if not python.exists():
        subprocess.run(["make", ".venv-moto/.installed"], cwd=ROOT, check=True)
    return python


def serve() -> tuple[subprocess.Popen[str], str]:
    script = ROOT / "tests" / "far" / "bucket_server.py"
    process = subprocess.Popen([str(moto_python()), str(script), "0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    endpoint = f"http://127.0.0.1:{int(process.stdout.readline())}"
    sign = {"Authorization": "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request"}
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/mill", method="PUT", headers=sign), timeout=30).close()
    return process, endpoint


def reach(endpoint: str) -> None:
    """The environment in which a user reaches the server; short terms, because nobody sleeps here."""
    os.environ.update(
        AWS_ENDPOINT_URL=endpoint, AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b", AWS_REGION="us-east-1", PYTHONPATH=str(ROOT),
        GRISTMILL_LEASE_SECONDS="6", GRISTMILL_STORE_TIMEOUT="4",
    )  # fmt: skip


def undisturbed(bench: Bench) -> float:
    """Digests that every run has to come to; how long a run takes."""
    root, row = new_root(), Row("nothing", "")
    bench.faults()
    began = time.monotonic()
    bench.finish(root, row)
    assert not row.fault, row.fault
    bench.expected = digests(root)
    return time.monotonic() - began


def table(rows: list[Row]) -> str:
    lines = ["| run | killed | where | in flight | runs until done | lost | doubled | fault |", "|" + "---|" * 8]
    lines += [
        f"| {i} | {r.what} | {r.where} | {r.flight} | {r.lives} | {r.lost} | {r.doubled} | {r.fault} |"
        for i, r in enumerate(rows, 1)
    ]
    return "\n".join(lines)


def plan_of(quick: bool) -> list[str]:
    """Kinds of the random runs."""
    if quick:
        return ["local driver", "local worker", "local outage"]
    local = ["local driver", "local worker", "local outage"] * 3
    return [*local, "ray driver", "ray worker", "ray node", "ray node", "ray outage", "ray driver"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="8 runs, none on Ray, nothing written")
    parser.add_argument("--no-ray", action="store_true", help="random runs on local workers only")
    chosen = parser.parse_args()
    process, endpoint = serve()
    reach(endpoint)
    try:
        with tempfile.TemporaryDirectory() as folder:
            rows, mutant = campaign(Bench(Path(folder), endpoint), chosen.quick, chosen.no_ray or chosen.quick)
    finally:
        CLUSTER.close()
        process.kill()
        process.wait()
    report(rows, mutant, chosen.quick)


def campaign(bench: Bench, quick: bool, no_ray: bool) -> tuple[list[Row], Row]:
    bench.lay()
    took = undisturbed(bench)
    mutant = at_point(bench, "after_journal", 5, "reversed")
    print(f"mutant: {mutant}", file=sys.stderr, flush=True)
    rows: list[Row] = []

    def add(row: Row) -> None:
        rows.append(row)
        print(f"{len(rows)}: {row}", file=sys.stderr, flush=True)

    for point, n in POINTS[::3] if quick else POINTS:
        add(at_point(bench, point, n))
    kinds = [k.replace("ray node", "local worker").replace("ray", "local") if no_ray else k for k in plan_of(quick)]
    for seed, kind in enumerate(kinds):
        if kind.startswith("ray") and not bench.address:
            bench.address = CLUSTER.open()
        add(at_random(bench, seed, took * (2 if kind.startswith("ray") else 1), kind))
    return rows, mutant


def report(rows: list[Row], mutant: Row, quick: bool) -> None:
    from benchmarks.results import machine, write_section

    bad = [r for r in rows if r.fault]
    caught = bool(mutant.lost or mutant.fault)
    found = {
        "chaos_runs": len(rows), "chaos_lost": sum(r.lost for r in rows), "chaos_doubled": sum(r.doubled for r in rows),
        "chaos_faults": len(bad), "mutant_caught": caught,
    }  # fmt: skip
    if not quick:
        text = f"""## Chaos

`python benchmarks/chaos.py` on {machine()}.
The store is an S3 server on loopback that spoils 5 to 8 % of the requests (503, 429, a line dropped in an upload, an answer
lost, no answer in time). "in flight": the task and the file at a commit point; at a random moment what lay in the store and what
the run had told, which it does every two seconds. "runs until done" counts the first. Lost: parts whose bytes differ from those
of the undisturbed run, and members whose rows do not balance; doubled: parts that it does not have, or that a manifest names twice.

{table(rows)}

A mutant that makes receipts durable before their files is {"found" if caught else "NOT found"}: killed at `after_journal 5`, it
lost {mutant.lost} parts ({mutant.fault or "no error"}).
"""
        write_section("chaos", text)
    print(json.dumps(found))
    raise SystemExit(bool(bad or found["chaos_lost"] or found["chaos_doubled"] or not caught))


if __name__ == "__main__":
    main()
