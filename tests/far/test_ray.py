"""The same recipes on a cluster of several nodes: same digests, whatever is lost on the way."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from test_store import digests, inputs, run

from pipelines.executors.cluster import PACKAGES
from pipelines.executors.local import Local
from pipelines.executors.ray import Ray
from pipelines.recipe import RecipeError

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]
ROOT = Path(__file__).parents[2]
STAGES = """
import os, time
import pyarrow as pa, pyarrow.compute as pc
from pydantic import Field
from stages.contract import TEXT, Params, map_stage

class Fate(Params):
    word: str = Field("", description="text that breaks a worker")
    folder: str = Field("", description="where tries leave a mark")

def _seen(batch, params):
    return any(params.word in t for t in batch["text"].to_pylist())

@map_stage(version=1, reads={"text": TEXT}, writes={"seen": pa.bool_()})
def kills(batch, params: Fate):
    if _seen(batch, params):
        os._exit(9)
    return pa.table({"seen": pa.array([True] * batch.num_rows)})

@map_stage(version=1, reads={"text": TEXT}, writes={"seen": pa.bool_()})
def slow_once(batch, params: Fate):
    mark = os.path.join(params.folder, "slept")
    if _seen(batch, params) and not os.path.exists(mark):
        open(mark, "w").close()
        time.sleep(3600)
    return pa.table({"seen": pa.array([True] * batch.num_rows)})

@map_stage(version=1, reads={"text": TEXT}, writes={"seen": pa.bool_()})
def sleepy(batch, params: Fate):
    time.sleep(0.7)
    return pa.table({"seen": pa.array([True] * batch.num_rows)})
"""


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    os.environ["PYTHONPATH"] = str(ROOT)
    made = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": 100 << 20}
    )
    for _ in range(2):
        made.add_node(num_cpus=1, object_store_memory=100 << 20)
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def mill(cluster):
    made = []

    def make(root, **options) -> Ray:
        made.append(Ray(str(root), **options))
        return made[-1]

    yield make
    for executor in made:
        executor.close()


def sick(engine, recipe, stage, executor):
    engine.write("mine.py", STAGES)
    for unit in range(4):
        engine.rows(
            f"rows{unit}.jsonl", [{"id": f"u{unit}r{i}", "text": "bad" if (unit, i) == (2, 3) else f"text {i}"} for i in range(6)]
        )
    text = f"""
        name: small
        steps:
          lines: {{uses: stages.ingest.jsonl.rows, with: {{paths: "${{here}}/rows*.jsonl", columns: {{id: id, text: text}}}}}}
          judged: {{uses: mine.{stage}, from: lines, with: {{word: bad, folder: "{engine.folder}"}}}}
        run: {{max_error_rate: 0.5}}
        """
    return engine.run(text, executor=executor)


def test_one_suite_gives_the_same_digests_everywhere(mill, tmp_path):
    recipe = inputs(tmp_path)
    found = {}
    for name in ("local1", "local2", "ray"):
        root = str(tmp_path / name)
        executor = mill(root) if name == "ray" else Local(int(name[-1]))
        assert run(recipe, root, executor)[1].code == 0
        executor.close()
        found[name] = digests(root)
    assert found["ray"] == found["local1"] == found["local2"] != {}


def test_a_row_that_kills_its_worker_is_quarantined_alone(mill, engine):
    result = sick(engine, "kills", "kills", mill(engine.folder / "store"))
    assert result.code == 0, result.errors
    counts = engine.head("judged")["counts"]
    assert (counts["in"], counts["standing"], counts["quarantined"]) == (24, 23, 1)
    assert any("crashed" in line for line in result.limited)


def test_a_straggler_is_named_and_raced(mill, engine, monkeypatch):
    monkeypatch.setattr("pipelines.executors.ray.RACE_AFTER", 2.0)
    executor = mill(engine.folder / "store")
    result = sick(engine, "slow_once", "slow_once", executor)
    assert result.code == 0, result.errors
    assert (engine.folder / "slept").exists(), "the first runner sleeps for an hour: the second has won the race"
    raced = [why for why in result.setbacks if "a second worker was set to it" in why]
    assert any(why.split(": ")[0].endswith("rows2.jsonl") for why in raced), "others may be raced where the machine is busy"


def test_a_node_that_goes_away_costs_no_row(mill, cluster, engine, engines):
    calm = engines("calm")
    assert sick(calm, "sleepy", "sleepy", Local(2)).code == 0
    node = cluster.add_node(num_cpus=2, object_store_memory=100 << 20)
    executor = mill(engine.folder / "store")

    over = threading.Event()

    def pull_the_plug():
        while not over.is_set() and not any(h.trial for h in executor._hands):
            time.sleep(0.05)
        time.sleep(1.0)
        cluster.remove_node(node, allow_graceful=False)

    thread = threading.Thread(target=pull_the_plug)
    thread.start()
    result = sick(engine, "sleepy", "sleepy", executor)
    over.set()
    thread.join()
    assert result.code == 0, result.errors
    assert engine.head("judged")["rows"] == 24
    assert sorted(engine.digests().values()) == sorted(calm.digests().values())


def test_a_worker_that_is_killed_is_replaced(mill, engine):
    executor = mill(engine.folder / "store")
    over, killed = threading.Event(), []

    def kill_one():
        import ray

        while not over.is_set() and not executor._hands:
            time.sleep(0.05)
        _, pid, _ = ray.get(executor._hands[0].actor.hello.remote())
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)

    thread = threading.Thread(target=kill_one)
    thread.start()
    result = sick(engine, "sleepy", "sleepy", executor)
    over.set()
    thread.join()
    assert killed
    assert result.code == 0, result.errors
    assert engine.head("judged")["rows"] == 24


def test_a_worker_is_let_go_when_it_has_waited_and_not_after_a_long_task(mill, engine, monkeypatch):
    executor = mill(engine.folder / "store")
    assert sick(engine, "sleepy", "sleepy", executor).code == 0
    hands = list(executor._hands)
    assert hands
    assert all(hand.free - hand.began > 0.6 for hand in hands), "the wait begins when the task ends"
    gone = []
    monkeypatch.setattr("ray.kill", gone.append)
    hands[0].began, hands[0].free = time.monotonic() - 1000, time.monotonic()
    executor._dismiss(given=True)
    assert hands[0] in executor._hands
    hands[0].free -= 1000
    executor._dismiss(given=True)
    assert hands[0] not in executor._hands
    assert gone == [hands[0].actor]


def test_a_step_gets_the_resources_that_the_recipe_declares(mill, engine, cluster):
    cluster.add_node(num_cpus=1, resources={"special": 1}, object_store_memory=100 << 20)
    executor = mill(engine.folder / "store", resources={"judged": {"special": 1, "memory": 1 << 26}})
    assert sick(engine, "sleepy", "sleepy", executor).code == 0
    shapes = {h.shape for h in executor._hands}
    assert shapes == {(("CPU", 1.0), ("memory", float(1 << 26)), ("special", 1.0))}
    import ray

    assert len({ray.get(h.actor.hello.remote())[0] for h in executor._hands if h.trial is None}) <= 1, "all on the special node"


WHERE = """
import os
import pyarrow as pa
import mine, stages
from stages.contract import TEXT, Params, map_stage

class Place(Params):
    pass

@map_stage(version=1, reads={"text": TEXT}, writes={"package": pa.string(), "beside": pa.string(), "gpus": pa.string()})
def tell(batch, params: Place):
    found = (stages.__file__, mine.__file__, os.environ.get("CUDA_VISIBLE_DEVICES"))
    return pa.table({name: pa.array([value] * batch.num_rows, pa.string())
                     for name, value in zip(("package", "beside", "gpus"), found)})
"""
TELLS = """
name: small
steps:
  lines: {uses: stages.ingest.jsonl.rows, with: {paths: "%s/rows*.jsonl", columns: {id: id, text: text}}}
  told: {uses: mine.tell, from: lines}
run: {executor: ray, address: "%s", resources: {told: {%s}}}
"""


def told(engine, address, resources):
    """What the workers of a run said that came from the command, in a process without this one's paths."""
    engine.write("recipe/mine.py", WHERE)
    for unit in range(3):
        engine.rows(f"rows{unit}.jsonl", [{"id": f"u{unit}r{i}", "text": f"text {unit} {i}"} for i in range(4)])
    recipe = engine.write("recipe/recipe.yaml", TELLS % (engine.folder, address, resources))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-m", "pipelines.cli", "run", str(recipe), "--json", "--store", str(engine.store.root)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = sorted((engine.store.root / "objects").glob("told-*/parts/*.parquet"))
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


def test_a_step_that_asks_for_a_gpu_runs_where_one_is(cluster, engine):
    node = cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=100 << 20)
    rows = told(engine, cluster.address, "GPU: 1")
    cluster.remove_node(node)
    assert [row["gpus"] for row in rows] == ["0"] * 12, "Ray gives a worker the numbers of its GPUs, here one that is declared"


def test_an_idle_worker_gives_a_scarce_resource_to_one_of_another_shape(mill, engine, cluster, monkeypatch):
    monkeypatch.setattr("pipelines.executors.ray.IDLE", 3.0)
    node = cluster.add_node(num_cpus=1, resources={"board": 1}, object_store_memory=100 << 20)
    engine.write("mine.py", STAGES)
    for name in ("first", "second"):
        for unit in range(3):
            engine.rows(f"{name}{unit}.jsonl", [{"id": f"{name}{unit}", "text": "text"}])
    steps = "".join(
        f"""
          {name}: {{uses: stages.ingest.jsonl.rows, with: {{paths: "${{here}}/{name}*.jsonl", columns: {{id: id, text: text}}}}}}
          {name}_judged: {{uses: mine.sleepy, from: {name}}}"""
        for name in ("first", "second")
    )
    shapes = {"first_judged": {"board": 1}, "second_judged": {"board": 1, "memory": 50_000_000}}
    result = engine.run(f"""
        name: small
        steps:{steps}
        """, executor=mill(engine.folder / "store", resources=shapes))  # fmt: skip
    cluster.remove_node(node)
    assert (result.code, result.tasks) == (0, 6), result.errors


def test_what_no_node_has_is_refused_and_not_waited_for(mill, engine):
    executor = mill(engine.folder / "store", resources={"judged": {"GPU": 8}})
    with pytest.raises(
        RecipeError, match=r"asks for CPU 1, GPU 8 for one worker, and none of the \d+ nodes has that; ask for less"
    ):
        sick(engine, "sleepy", "sleepy", executor)


@pytest.fixture
def bare_node(engine):
    """A cluster of one node that sees neither our packages nor the recipe's folder: a mount namespace hides them from it."""
    (engine.folder / "recipe").mkdir()
    hidden = [*(ROOT / name for name in PACKAGES), engine.folder / "recipe"]
    script = " && ".join(f"mount -t tmpfs none {shlex.quote(str(path))}" for path in hidden)
    if not shutil.which("unshare") or subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True).returncode:
        pytest.skip("this user cannot hide folders from a process (unshare --mount)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start = f"{sys.executable} -m ray.scripts.scripts start --head --block --port {port} --num-cpus 2"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"RAY_AUTH_MODE": "disabled"}
    node = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", f"{script} && cd / && exec {start} --include-dashboard=false --object-store-memory 100000000"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    assert node.stdout is not None
    said = ""
    for line in node.stdout:
        said += line
        if "Ray runtime started" in line:
            break
    assert "Ray runtime started" in said, said
    yield f"{re.search(r'Local node IP: ([0-9.]+)', said)[1]}:{port}"
    node.terminate()
    node.communicate(timeout=60)


def test_packages_and_stages_beside_the_recipe_reach_workers_that_have_neither(bare_node, engine):
    rows = told(engine, bare_node, "")
    assert len(rows) == 12
    shipped = [Path(row[name]) for row in rows for name in ("package", "beside")]
    assert all("py_modules_files" in path.parts for path in shipped), shipped
