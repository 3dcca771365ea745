"""Milliseconds a task of NeMo Curator: run by scale.py with the Python of an environment that has nemo-curator.

Usage: curator_tasks.py EXECUTOR FOLDER TASKS     EXECUTOR is xenna, ray_data or ray_actor_pool

Each task writes one small Parquet file, flushed to the disk and renamed, as scale.py's bare pool does. The pipeline is run
three times on one cluster: once to warm it, with two tasks, and with TASKS more. The difference of the last two is what the
tasks cost, without the start of a pipeline and of its workers. The last line printed is that in milliseconds, times two workers.
"""

import os
import sys
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from nemo_curator.pipeline import Pipeline
from nemo_curator.stages.base import ProcessingStage
from nemo_curator.stages.resources import Resources
from nemo_curator.tasks import Task
from ray.cluster_utils import Cluster

NAMES = {"xenna": "XennaExecutor", "ray_data": "RayDataExecutor", "ray_actor_pool": "RayActorPoolExecutor"}


@dataclass
class Number(Task[int]):
    """One number."""

    @property
    def num_items(self) -> int:
        """One."""
        return 1

    def validate(self) -> bool:
        """Always."""
        return True


class Write(ProcessingStage[Number, Number]):
    """Write a small file."""

    name = "write"
    resources = Resources(cpus=1.0)
    batch_size = 1

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def inputs(self) -> tuple[list[str], list[str]]:
        """Nothing by name."""
        return [], []

    def outputs(self) -> tuple[list[str], list[str]]:
        """Nothing by name."""
        return [], []

    def process(self, task: Number) -> Number:
        """The task itself, when its file stands."""
        path = Path(self.folder) / f"{task.data}.parquet"
        draft = path.with_suffix(".draft")
        pq.write_table(pa.table({"id": ["a"], "total": [0]}), draft, compression="zstd")
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(path)
        return task


def seconds(executor: str, folder: Path, tasks: int) -> float:
    """Wall time of a pipeline with so many tasks."""
    folder.mkdir()
    made = getattr(import_module(f"nemo_curator.backends.{executor}"), NAMES[executor])()
    pipeline = Pipeline(name="write", stages=[Write(str(folder))])
    began = time.perf_counter()
    done = pipeline.run(made, initial_tasks=[Number("numbers", n) for n in range(tasks)])
    took = time.perf_counter() - began
    assert len(done) == len(list(folder.glob("*.parquet"))) == tasks
    return took


def main() -> None:
    """Warm it, then twice, and the difference."""
    executor, folder, tasks = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    head = {"num_cpus": 2, "include_dashboard": True, "object_store_memory": 200 << 20}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    os.environ["RAY_ADDRESS"] = cluster.address  # executors connect to it and leave it
    try:
        seconds(executor, folder / "warm", 2)
        few, all_of_them = seconds(executor, folder / "few", 2), seconds(executor, folder / "all", tasks + 2)
    finally:
        cluster.shutdown()
    print(2000 * (all_of_them - few) / tasks)


if __name__ == "__main__":
    main()
