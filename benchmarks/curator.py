"""NeMo Curator beside us: its overhead per task, measured in an environment of its own that `make_environment` makes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CURATOR = "nemo-curator==1.4.0"
PYTHON = ROOT / ".venv-curator" / "bin" / "python"
EXECUTORS = {"xenna": "NeMo Curator, Xenna", "ray_data": "NeMo Curator, Ray Data", "ray_actor_pool": "NeMo Curator, Ray actors"}


def make_environment() -> Path:
    """Its Python, installed where that is missing: some 5 GB, for its torch comes with CUDA."""
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", str(PYTHON.parents[1])], check=True)
        subprocess.run([str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--quiet", CURATOR], check=True)
    return PYTHON


def curator(folder: Path, tasks: int, seconds: float = 240) -> dict[str, float]:
    """Milliseconds a task of its executors, each in a process of its own; one that is not done in time is left out, and said."""
    script, found = Path(__file__).with_name("curator_tasks.py"), {}
    for executor, name in EXECUTORS.items():
        place = folder / executor
        place.mkdir(parents=True)
        command = [str(make_environment()), str(script), executor, str(place), str(tasks)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            print(f"{name}: {type(error).__name__}; {str(error.stderr or '')[-300:]}", file=sys.stderr, flush=True)
            continue
        found[name] = float(done.stdout.split()[-1])
        print(name, found[name], file=sys.stderr, flush=True)
    return found
