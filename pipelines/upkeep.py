"""The verbs that look after a store and a machine: status, verify, gc, doctor, models."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from manifests.place import is_url
from manifests.shard import file_digest
from manifests.store import Object, Store
from pipelines.events import read_events

Say = Callable[[str], None]


def status_record(store: Store) -> dict[str, Any]:
    """Recipes with their steps, and runs; read from manifests and journals, so that it works beside a run."""
    recipes = {}
    for name, record in store.records("recipes").items():
        recipes[name] = {step: _step_status(store, record["steps"][step]) for step in record["order"]}
    return {"store": store.url, "recipes": recipes, "runs": list(_runs(store)), "refs": store.records("refs")}


def _step_status(store: Store, facts: dict[str, Any]) -> dict[str, Any]:
    target = store.object(facts["object"])
    if target.answered(facts["units"]):
        head = target.head(facts["units"])
        return {"state": "done", "rows": head["rows"], "parts": head["parts"]}
    parts = len(target.receipts())
    return {"state": "partly" if parts else "open", "parts": parts}


def _runs(store: Store) -> Iterator[dict[str, Any]]:
    for run in store.runs():
        facts = store.result(run)
        if facts is not None:
            yield {"run": run, "code": facts["code"], "tasks": facts["tasks"], "seconds": facts["seconds"],
                   "errors": facts["errors"], "setbacks": facts["setbacks"]}  # fmt: skip
        else:
            holder = store.place.holder(f"runs/{run}/lock")
            events = read_events(store, run)
            tasks = sum(e["event"] == "task" for e in events)
            state = "running" if holder else "killed"
            asking: list[dict[str, Any]] = next((e["models"] for e in reversed(events) if e["event"] == "asking"), [])
            yield {"run": run, "code": None, "state": state, "by": holder, "tasks": tasks, "asking": asking if holder else []}


def status_lines(found: dict[str, Any]) -> list[str]:
    """The record as text."""
    from synthetic.pulse import Pulse

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
        lines += [f"  {Pulse(**pulse).line()}" for pulse in run.get("asking", [])]
        lines += [f"  failed: {error}" for error in run.get("errors", [])[:3]]
        lines += [f"  tried again: {setback}" for setback in run.get("setbacks", [])[:3]]
    lines += [f"ref {name}: {facts['object']}" for name, facts in found["refs"].items()]
    return lines


def verify_store(store: Store, say: Say) -> int:
    """Read every part of every manifest; 0 when each has its digest, 1 with a line for each that has not."""
    parts = size = 0
    faults: list[str] = []
    for target in store.objects():
        for units in target.answers():
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


def _fault(path: str, length: int, digest: str) -> str | None:
    try:
        found = file_digest(path)
    except FileNotFoundError:
        return f"{path}: gone"
    if found != (length, digest):
        what = f"{found[0]} bytes instead of {length}" if found[0] != length else "other content than was written"
        return f"{path}: {what}"
    return None


def collect(store: Store, say: Say, *, really: bool) -> int:
    """Objects that nothing names, and spills whose object nothing names or that is answered: said, or removed.

    A run drops the spills that it has settled. One comes back where a store ends an upload of a worker that had died before.
    """
    needed = {facts["object"] for record in store.records("recipes").values() for facts in record["steps"].values()}
    needed |= {record["object"] for record in store.records("refs").values()}
    needed |= {address for record in store.records("refs").values() for address in record["objects"]}

    def spent(spill: Object) -> bool:
        address = spill.address.rpartition("-")[0]
        return address not in needed or bool(store.object(address).answers())

    freed = 0
    for target in [*(o for o in store.objects() if o.address not in needed), *filter(spent, store.spills())]:
        if target.place.holder(f"{target.folder}/lock"):
            say(f"busy   {target.address}: a run is writing here")
            continue
        size = sum(target.place.sizes(target.folder).values())
        freed += size
        say(f"{'remove' if really else 'would remove'} {target.address}: {size / 1e6:,.1f} MB")
        if really:
            target.place.remove(target.folder)
    say(f"{freed / 1e6:,.1f} MB" + ("" if really else "; add --yes to remove"))
    return 0


LIBRARIES = ("pyarrow", "numpy", "numba", "duckdb", "fastwarc", "resiliparse", "fasttext-community", "tokenizers", "mistral-common")
EXTRAS = {
    "datasets": "datasets", "obstore": "s3", "datatrove": "datatrove", "brotli": "brotli", "pylint": "code", "ray": "ray",
    "scikit-learn": "train", "torch": "encoder", "transformers": "encoder", "onnxruntime": "onnx", "kenlm": "perplexity",
}  # fmt: skip
PUBLISHED = {
    "nvidia/nemocurator-fineweb-mixtral-edu-classifier": "edu_a of the recipe nemotron-cc-quality",
    "nvidia/nemocurator-fineweb-nemotron-4-edu-classifier": "edu_b of the recipe nemotron-cc-quality",
    "HuggingFaceFW/fineweb-edu-classifier": "educational value, 0 to 5",
}
"""Classifiers that recipes name and nobody may ship or fetch unasked."""


def examine(store: str, say: Say) -> int:
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
    say(_room(store))
    for line in [*model_lines(), *published_lines()]:
        say(line)
    return 1 if missing else 0


def _room(store: str) -> str:
    """One line on the store: what is free on its disk, or whether its object store answers."""
    if is_url(store):
        return f"store {store}: {'a store' if Store(store).place.exists('format.json') else 'reached, no store there yet'}"
    place = Path(store) if Path(store).exists() else Path(store).absolute().parent
    return f"store {store}: {f'{shutil.disk_usage(place).free / 2**30:.1f} GiB free' if place.exists() else 'no such folder'}"


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


def published_lines() -> list[str]:
    """Published classifiers: where they lie in the local hub cache, or how to get them. Nothing is fetched."""
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")
    found = {name: sorted(cache.glob(f"models--{name.replace('/', '--')}/snapshots/*")) for name in PUBLISHED}
    said = {n: f"in {places[-1]}" if places else f"absent (optional; hf download {n})" for n, places in found.items()}
    return [f"{name}: {said[name]}; {what}" for name, what in PUBLISHED.items()]


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB" if path.exists() else "MISSING"
