"""The verbs that look after a store and a machine: status, verify, gc, doctor, models."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import orjson

from manifests.shard import file_digest
from manifests.store import Object, Store

Say = Callable[[str], None]


def status_record(store: Store) -> dict[str, Any]:
    """Recipes with their steps, and runs; read from manifests and journals, so that it works beside a run."""
    recipes = {}
    for name, record in store.records("recipes").items():
        recipes[name] = {step: _step_status(store, record["steps"][step]) for step in record["order"]}
    return {"store": str(store.root), "recipes": recipes, "runs": list(_runs(store)), "refs": store.records("refs")}


def _step_status(store: Store, facts: dict[str, Any]) -> dict[str, Any]:
    target = store.object(facts["object"])
    if target.answered(facts["units"]):
        head = target.head(facts["units"])
        return {"state": "done", "rows": head["rows"], "parts": head["parts"]}
    parts = len(target.receipts()) if target.path.exists() else 0
    return {"state": "partly" if parts else "open", "parts": parts}


def _runs(store: Store) -> Iterator[dict[str, Any]]:
    folder = store.root / "runs"
    for path in sorted(folder.iterdir()) if folder.exists() else []:
        result = path / "result.json"
        if result.exists():
            facts = orjson.loads(result.read_bytes())
            yield {"run": path.name, "code": facts["code"], "tasks": facts["tasks"], "seconds": facts["seconds"]}
        else:
            alive = _alive(path.name)
            parts = (path / "events.jsonl").read_bytes().count(b'"event":"part"') if (path / "events.jsonl").exists() else 0
            yield {"run": path.name, "code": None, "state": "running" if alive else "killed", "tasks": parts}


def _alive(run: str) -> bool:
    """Whether the process that a run's id names is there; on another machine it looks killed."""
    return Path(f"/proc/{run.rsplit('-', 1)[-1]}").exists()


def status_lines(found: dict[str, Any]) -> list[str]:
    """The record as text."""
    lines = [f"store {found['store']}"]
    for name, steps in found["recipes"].items():
        lines.append(f"recipe {name}")
        width = max(map(len, steps), default=0)
        for step, state in steps.items():
            rows = f"{state['rows']:,} rows, " if "rows" in state else ""
            lines.append(f"  {step.ljust(width)}  {state['state']:6}  {rows}{state['parts']:,} parts")
    for run in found["runs"][-5:]:
        end = f"exit {run['code']} after {run['seconds']:.1f} s" if run["code"] is not None else run["state"]
        lines.append(f"run {run['run']}: {end}, {run['tasks']:,} tasks")
    lines += [f"ref {name}: {facts['object']}" for name, facts in found["refs"].items()]
    return lines


def verify_store(store: Store, say: Say) -> int:
    """Read every part of every manifest; 0 when each has its digest, 1 with a line for each that has not."""
    parts = size = 0
    faults: list[str] = []
    for target in store.objects():
        for units in _answers(target):
            manifest = target.manifest(units)
            assert manifest is not None
            for part in manifest.parts:
                for suffix, (length, digest) in part.files.items():
                    parts, size = parts + 1, size + length
                    fault = _fault(target.part(part.unit, suffix), length, digest)
                    faults += [fault] if fault else []
    for fault in faults:
        say(fault)
    say(f"{parts:,} files, {size / 1e6:,.1f} MB, {len(faults)} faults")
    if faults:
        say("delete the object folders named above and run their recipes again to make them anew")
    return 1 if faults else 0


def _answers(target: Object) -> list[str]:
    folder = target.path / "manifests"
    return sorted(p.stem for p in folder.glob("*.json")) if folder.exists() else []


def _fault(path: Path, length: int, digest: str) -> str | None:
    if not path.exists():
        return f"{path}: gone"
    found = file_digest(path)
    if found != (length, digest):
        what = f"{found[0]} bytes instead of {length}" if found[0] != length else "other content than was written"
        return f"{path}: {what}"
    return None


def collect(store: Store, say: Say, *, really: bool) -> int:
    """Objects and spills that nothing names: said, or removed."""
    needed = {facts["object"] for record in store.records("recipes").values() for facts in record["steps"].values()}
    needed |= {record["object"] for record in store.records("refs").values()}
    needed |= {address for record in store.records("refs").values() for address in record["objects"]}
    freed = 0
    for target in [o for o in store.objects() if o.address not in needed]:
        if _busy(target):
            say(f"busy   {target.address}: a run is writing here")
            continue
        size = sum(p.stat().st_size for p in target.path.rglob("*") if p.is_file())
        freed += size
        say(f"{'remove' if really else 'would remove'} {target.address}: {size / 1e6:,.1f} MB")
        if really:
            shutil.rmtree(target.path)
    say(f"{freed / 1e6:,.1f} MB" + ("" if really else "; add --yes to remove"))
    return 0


def _busy(target: Object) -> bool:
    path = target.path / "lock"
    if not path.exists():
        return False
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


LIBRARIES = ("pyarrow", "numpy", "numba", "duckdb", "fastwarc", "resiliparse", "fasttext-community", "tokenizers", "mistral-common")
EXTRAS = {"datasets": "datasets", "s3fs": "s3", "datatrove": "datatrove", "brotli": "brotli", "pylint": "code", "ray": "ray"}


def examine(store: Path, say: Say) -> int:
    """A line for each thing that a run needs; 1 when something necessary is missing."""
    missing = 0
    say(f"python {sys.version.split()[0]}")
    for name in LIBRARIES:
        version = _version(name)
        missing += version is None
        say(f"{name} {version or 'MISSING; install gristmill again'}")
    for name, extra in EXTRAS.items():
        say(f"{name} {_version(name) or f'absent (optional; install gristmill[{extra}])'}")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    say(f"{len(os.sched_getaffinity(0))} cores, {memory / 2**30:.0f} GiB of memory")
    place = store if store.exists() else store.absolute().parent
    if place.exists():
        say(f"store {store}: {shutil.disk_usage(place).free / 2**30:.1f} GiB free")
    for line in model_lines():
        say(line)
    return 1 if missing else 0


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def model_lines() -> list[str]:
    """Models that are there without a download, with size, origin and licence."""
    import importlib.util

    lines = []
    lid = Path(__file__).parent.parent / "classifiers" / "models" / "lid.176.ftz"
    lines.append(f"lid.176.ftz: {_size(lid)}; fastText language identification, 176 languages (Facebook, CC BY-SA 3.0), packaged")
    spec = importlib.util.find_spec("mistral_common")
    if spec is not None and spec.origin:
        folder = Path(spec.origin).parent / "data"
        origin = "Tekken tokenizer (Mistral AI, Apache-2.0), from the package mistral-common"
        lines += [f"{path.name}: {_size(path)}; {origin}" for path in sorted(folder.glob("tekken*.json"))]
    return lines


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB" if path.exists() else "MISSING"
