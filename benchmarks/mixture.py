"""A mixture of 15 sources and its global shuffle, as one `gristmill run`: rows a second, peak memory, exactness of the shares.

    .venv/bin/python benchmarks/mixture.py [--quick] [--rows 1000000,10000000]

The rows are made up (a short text, an id, a token count with a heavy tail), so that only the mixing is measured. Rates are
rows of all sources by wall time of the whole run with two workers, and by CPU seconds of all its processes; memory is the
peak of what the driver and its workers share and own (summed PSS), looked at twice a second. `--quick` does a twentieth. The
report goes between its markers in benchmarks/RESULTS.md; the last line printed is JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent))

from results import machine, write_section

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache" / "bench"
SHARES = {
    "crawl_medium": 6.8, "crawl_medium_high": 5.7, "syn_crawl_medium_high": 11.7, "crawl_high": 6.5, "syn_crawl_high": 20.4,
    "math": 6.4, "wiki": 0.6, "code": 14.0, "academic": 4.1, "crawl_plus": 2.9, "multilingual": 5.0, "general_sft": 0.2,
    "stem_sft": 11.1, "code_sft": 3.3, "nemotron_cc_code": 1.3,
}  # fmt: skip
"""Phase 1 of Nemotron 3 Nano."""
FILE_ROWS = 250_000
TEXT = " ".join(["grist"] * 40)


def corpus(rows: int) -> Path:
    """Files of 15 sources; wiki is half as large as its share asks for, so that it is repeated."""
    folder = CACHE / f"mixture-{rows}"
    if (folder / "ready").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for name, share in SHARES.items():
        count = round(rows * share / 100 * (0.5 if name == "wiki" else 1))
        for start in range(0, count, FILE_ROWS):
            number = np.arange(start, min(start + FILE_ROWS, count))
            tokens = np.clip(rng.lognormal(6.5, 1.0, len(number)), 20, 200_000).astype(np.int32)
            table = {"id": [f"{name}{n:026d}" for n in number], "text": pa.repeat(TEXT, len(number)), "tokens": tokens}
            pq.write_table(pa.table(table), folder / f"{name}-{start:09d}.parquet", row_group_size=20_000)
    (folder / "ready").touch()
    return folder


def recipe(folder: Path, tokens: int, shards: int) -> str:
    lines = ["name: mixing", "steps:"]
    for name in SHARES:
        options = f'{{paths: "{folder}/{name}-*.parquet", columns: {{id: id}}, keep: {{tokens: int32}}}}'
        lines.append(f"  {name}: {{uses: stages.ingest.parquet.rows, with: {options}}}")
    shares = ", ".join(f"{name}: {share}" for name, share in SHARES.items())
    carried = "{tokens: int32, step: string, phase: string, copies: int32}"
    lines += [
        f"  sources: {{uses: stages.compact.keep, from: [{', '.join(SHARES)}]}}",
        f"  sizes: {{uses: stages.blend.sizes, from: sources, with: {{partitions: {shards}}}}}",
        "  budget:",
        "    uses: stages.blend.budget",
        "    from: sources",
        "    given: {sizes: sizes}",
        f"    with: {{tokens: {tokens}, shares: {{{shares}}}}}",
        "  mix: {uses: stages.blend.take, from: sources, given: {budget: budget}, with: {repeat: written}}",
        f"  shuffled: {{uses: stages.shuffle.by_hash, from: mix, with: {{shards: {shards}, columns: {carried}}}}}",
    ]
    return "\n".join(lines) + "\n"


def available(folder: Path) -> int:
    return sum(int(np.sum(pq.read_table(p, columns=["tokens"])["tokens"].to_numpy())) for p in folder.glob("*.parquet"))


class Watch:
    """Peak PSS (shared pages count once) and CPU seconds of a process and its descendants, looked at twice a second."""

    def __init__(self, pid: int) -> None:
        self._process, self._over = psutil.Process(pid), threading.Event()
        self._seconds: dict[int, float] = {}
        self.peak = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(0.5):
            total = 0
            with suppress(psutil.Error):
                for one in [self._process, *self._process.children(recursive=True)]:
                    with suppress(psutil.Error):
                        total += one.memory_full_info().pss
                        self._seconds[one.pid] = sum(one.cpu_times()[:2])
            self.peak = max(self.peak, total)

    def end(self) -> float:
        """CPU seconds seen: what a process did in its last half second is missing."""
        self._over.set()
        self._thread.join()
        return sum(self._seconds.values())


def measured(rows: int) -> dict[str, float]:
    folder, store = corpus(rows), CACHE / "mixture-store"
    shutil.rmtree(store, ignore_errors=True)
    wanted = int(available(folder) * 0.9)
    path = CACHE / "mixture.yaml"
    path.write_text(recipe(folder, wanted, max(rows // 100_000, 4)))
    begin = time.monotonic()
    command = [sys.executable, "-m", "pipelines.cli", "run", str(path), "--store", str(store), "--workers", "2"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as run:
        watch = Watch(run.pid)
        _, errors = run.communicate()
        seconds, cpu = time.monotonic() - begin, watch.end()
    if run.returncode:
        raise RuntimeError(errors.decode()[-2000:])
    print({name: round(seconds, 1) for name, seconds in step_seconds(store).items() if name not in SHARES}, flush=True)
    found = {"rows": rows, "seconds": seconds, "cpu": cpu, "peak": watch.peak, **shares(store, wanted)}
    shutil.rmtree(store)
    return found


def step_seconds(store: Path) -> dict[str, float]:
    """Seconds of the tasks of each object, as the store wrote them down."""
    heads = {p.parents[1].name.rsplit("-", 1)[0]: json.loads(p.read_text()) for p in store.glob("objects/*/manifests/*.json")}
    return {name: float(head.get("seconds", 0)) for name, head in heads.items()}


def shares(store: Path, wanted: int) -> dict[str, float]:
    """Rows of the mixture, and the largest error of a share of the shuffled rows against the recipe."""
    sys.path.insert(0, str(ROOT))
    from manifests.catalog import Catalog
    from manifests.store import Store

    query = "select step, sum(tokens), count(*) from mixing.shuffled group by all"
    counts = {step: (int(tokens), rows) for step, tokens, rows in Catalog(Store(store)).run(query).fetchall()}
    total = sum(SHARES.values())
    errors = [abs(counts[name][0] / wanted - share / total) for name, share in SHARES.items()]
    shards = [pq.read_table(p, columns=["tokens"])["tokens"].to_numpy() for p in store.glob("objects/shuffled-*/parts/*.parquet")]
    spread = {}
    for name, sizes in (("rows", [len(s) for s in shards]), ("tokens", [int(s.sum()) for s in shards])):
        mean = sum(sizes) / len(sizes)
        spread[f"off_{name}"] = max(abs(size / mean - 1) for size in sizes)
    return {"mixed": sum(rows for _, rows in counts.values()), "error": max(errors), "shards": len(shards), **spread}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", default="1000000,10000000")
    options = parser.parse_args()
    sizes = [50_000, 500_000] if options.quick else [int(n) for n in options.rows.split(",")]
    found = []
    for rows in sizes:
        found.append(measured(rows))
        print({k: round(v, 6) for k, v in found[-1].items()}, flush=True)
    lines = [
        "## Mixture (`benchmarks/mixture.py`)", "",
        f"{machine()}. 15 sources, one phase, 90 % of their tokens, wiki repeated; copies written, then a global shuffle.",
        "The last columns: how far the shard that differs most is from the mean, in rows and in tokens.", "",
        "| rows | mixed rows | rows/s, 2 workers | rows by CPU s | peak GB | largest share error | shards | in rows | in tokens |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for f in found:
        rates = f"{f['rows'] / f['seconds']:,.0f} | {f['rows'] / f['cpu']:,.0f}"
        rest = f"{f['peak'] / 1e9:.2f} | {f['error']:.2e} | {f['shards']} | {f['off_rows']:.2%} | {f['off_tokens']:.2%}"
        lines.append(f"| {f['rows']:,} | {f['mixed']:,} | {rates} | {rest} |")
    write_section("mixture", "\n".join(lines))
    last = found[-1]
    print(json.dumps({"rows_per_s": round(last["rows"] / last["seconds"]), "peak_gb": round(last["peak"] / 1e9, 3),
                      "largest_share_error": float(f"{last['error']:.3g}")}))  # fmt: skip


if __name__ == "__main__":
    main()
