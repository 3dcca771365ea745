"""What the engine costs: CPU against a bare loop, planning of 100,000 units, a run with nothing to do, peak memory.

    .venv/bin/python benchmarks/engine.py [--quick] [--only overhead,plan,noop,memory] [--input GLOB]

CPU is user and system time of the driver, its workers and everything else they start: this process becomes their
reaper (Linux), so that none is left out. The bare loop calls the same stage functions on the same batches in one
process. Inputs: the main files of ../shared/data/dev/crawl, or any WARC files named with --input. The report goes
between its markers in benchmarks/RESULTS.md (not with --only); the last line printed is one JSON object.
"""

import argparse
import ctypes
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from engine_report import machine, report
from inputs import MIB, lay_small, lay_sparse, lay_units, members

ROOT = Path(__file__).resolve().parent.parent
CRAWL = ROOT / ".." / "shared" / "data" / "dev" / "crawl" / "CC-SIM-dev-2*.warc.gz"
COMMAND = [sys.executable, "-m", "pipelines.cli"]
PR_SET_CHILD_SUBREAPER = 36

FUSED = """
  crawl:    {uses: stages.ingest.warc.pages, with: {paths: "${paths}"}}
  text:     {uses: stages.extract.resiliparse.main_text, from: crawl}
  language: {uses: classifiers.language.identify, from: text}
  quality:  {uses: stages.filters.gopher.quality, from: language}
"""
WHOLE = (
    FUSED
    + """
  web:      {uses: stages.compact.keep, from: quality}
  shuffled: {uses: stages.shuffle.by_hash, from: web, with: {shards: "${shards}", seed: 7}}
  shards:   {uses: stages.export.megatron.shards, from: shuffled}
"""
)


class Sizes:
    """How much is measured."""

    def __init__(self, quick):
        self.unit_mib, self.units, self.repeats = (8, 2, 2) if quick else (64, 3, 3)
        self.planned, self.layouts = 100_000, ("small",) if quick else ("small", "sparse")
        self.noop = 300 if quick else 10_000
        self.memory_files, self.memory_units = (2, ()) if quick else (6, (4, 40))


def reap_everything():
    """Orphans of our children (the fork server of a driver that has ended) become our children: none goes uncounted."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        sys.exit("this benchmark counts the CPU time of process trees and needs Linux")


def run(command, cwd, watch=None):
    """Wall and CPU seconds of a command and all that it started, and its output; an exit code other than 0 ends us."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryFile("w+") as out:
        child = subprocess.Popen([str(c) for c in command], cwd=cwd, env=environment, stdout=out, stderr=subprocess.STDOUT)
        while watch and child.poll() is None:
            watch(child.pid)
        child.wait()
        wall = time.perf_counter() - started
        while True:
            try:
                os.wait()
            except ChildProcessError:
                break
        out.seek(0)
        text = out.read()
    if child.returncode:
        sys.exit(f"{command} ended with {child.returncode}:\n{text[-4000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, text


def gristmill(folder, *words, watch=None):
    """The command in a folder with the store `store`."""
    return run([*COMMAND, *words, "--store", "store"], folder, watch)


def recipe(folder, name, steps, paths, **params):
    params = {"paths": str(paths), **params}
    head = "".join(f"  {k}: {json.dumps(v)}\n" for k, v in params.items())
    (folder / name).write_text(f"name: bench\nparams:\n{head}steps:{steps}run: {{max_error_rate: 0.05}}\n")


def fresh(folder):
    shutil.rmtree(folder / "store", ignore_errors=True)


# --- CPU against a bare loop


def bare(paths, out):
    """The loop somebody would write who needs no accounts: read, extract, identify, judge, write what is left."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from classifiers.language import identify
    from stages.analysis import column_of, spacy_like_words, words
    from stages.extract.resiliparse import main_text
    from stages.filters.gopher import quality
    from stages.ingest.warc import pages

    pa.set_cpu_count(1)
    extract, label, judge = main_text.params(), identify.params(), quality.params()
    model, source = identify.model(label), pages.params(paths=paths)
    column, cut = column_of(judge.words), words if judge.words == "plain" else spacy_like_words
    read = kept = 0
    for unit in pages.units(source):
        with Path(out, f"{unit.key}.parquet").open("wb") as file:
            held, writer = [], None
            for chunk in pages.read(unit, source):
                rows = with_columns(chunk.rows, main_text.run(chunk.rows, extract)).drop_columns(["html"])
                rows = with_columns(rows, identify.run(rows, label, model=model))
                rows = rows.append_column(column, cut.run(rows, cut.params())[column])
                rows = with_columns(rows, quality.run(rows, judge)).drop_columns([column])
                read, kept = read + chunk.rows.num_rows, kept + rows.num_rows
                held.append(rows)
                writer = writer or pq.ParquetWriter(file, rows.schema, compression="zstd", compression_level=1)
                if sum(t.num_rows for t in held) >= 8192:
                    writer.write_table(pa.concat_tables(held))
                    held = []
            if held:
                writer.write_table(pa.concat_tables(held))
            if writer:
                writer.close()
            file.flush()
            os.fsync(file.fileno())
    print(json.dumps({"read": read, "kept": kept}))


def with_columns(rows, made):
    """Rows with what a stage has made, those with a drop reason left out."""
    for name in made.column_names:
        if name in rows.column_names:
            rows = rows.drop_columns([name])
        if name != "drop_reason":
            rows = rows.append_column(name, made[name])
    return rows.filter(made["drop_reason"].is_null()) if made["drop_reason"].null_count < made.num_rows else rows


def standing_rows(store):
    """Rows that stand at the end of the fused chain, and all rows."""
    import pyarrow.parquet as pq

    parts = [pq.read_table(p, columns=["drop_step"])["drop_step"] for p in store.glob("objects/quality-*/parts/*.parquet")]
    return sum(p.null_count for p in parts), sum(len(p) for p in parts)


def overhead(folder, sizes, inputs):
    """CPU of the engine and of the bare loop over the same units, each less its own start-up."""
    (folder / "tiny").mkdir()
    some = [piece for piece, _ in zip(members(inputs[0]), range(40), strict=False)]
    (folder / "tiny" / "unit.warc.gz").write_bytes(b"".join(some))
    (folder / "full").mkdir()
    lay_units(folder / "full", inputs, sizes.unit_mib, sizes.units)
    size = sum(p.stat().st_size for p in (folder / "full").iterdir())
    cpu = {(who, what): [] for who in ("engine", "bare") for what in ("tiny", "full")}
    walls = []
    for turn in range(sizes.repeats + 1):  # the first turn compiles kernels and fills the page cache
        for what in ("tiny", "full") if turn else ("tiny",):
            recipe(folder, f"{what}.yaml", FUSED, folder / what / "*.warc.gz")
            fresh(folder)
            wall, spent, _ = gristmill(folder, "run", f"{what}.yaml", "--workers", "1")
            out = Path(tempfile.mkdtemp(dir=folder))
            loop = [sys.executable, __file__, "--bare", folder / what / "*.warc.gz", out]
            _, alone, text = run(loop, folder)
            shutil.rmtree(out)
            if turn:
                cpu["engine", what].append(spent)
                cpu["bare", what].append(alone)
                walls.append(wall)
    counted = json.loads(text.splitlines()[-1])
    if standing_rows(folder / "store") != (counted["kept"], counted["read"]):
        sys.exit(f"the engine kept {standing_rows(folder / 'store')} rows, the bare loop {counted}")
    starts = {who: statistics.median(cpu[who, "tiny"]) for who in ("engine", "bare")}
    work = {who: [full - starts[who] for full in cpu[who, "full"]] for who in ("engine", "bare")}
    shares = [e / b - 1 for e, b in zip(work["engine"], work["bare"], strict=True)]
    extra = statistics.median(e - b for e, b in zip(work["engine"], work["bare"], strict=True))
    return {
        "engine_overhead": round(statistics.median(shares), 4),
        "overhead_spread": [round(min(shares), 4), round(max(shares), 4)],
        "engine_cpu_s": round(statistics.median(work["engine"]), 2),
        "bare_cpu_s": round(statistics.median(work["bare"]), 2),
        "us_per_row": round(extra / counted["read"] * 1e6, 1),
        "ms_per_unit": round(extra / sizes.units * 1e3, 1),
        "startup_engine_s": round(starts["engine"], 2),
        "startup_bare_s": round(starts["bare"], 2),
        "units": sizes.units,
        "unit_mib": round(size / sizes.units / MIB, 1),
        "rows": counted["read"],
        "repeats": sizes.repeats,
    }


# --- planning


def listing(paths):
    """Seconds to list the units of a source with an empty and with a full cache of witnesses, and their number."""
    from stages.ingest import files
    from stages.ingest.warc import pages

    cache, seconds, count = {}, [], 0
    for _ in range(2):
        started = time.perf_counter()
        with files.remembered(cache):
            count = sum(1 for _ in pages.units(pages.params(paths=paths)))
        seconds.append(round(time.perf_counter() - started, 2))
    print(json.dumps({"cold_s": seconds[0], "warm_s": seconds[1], "units": count}))


def planning(folder, sizes):
    """Wall time of `gristmill plan` for the packaged recipe `web`, and what listing the units takes of it."""
    lay = {"small": lay_small, "sparse": lay_sparse}
    found = {}
    for kind in sizes.layouts:
        lay[kind](folder / kind, sizes.planned)
        paths = folder / kind / "*.warc.gz"
        fresh(folder)
        first, cpu, _ = gristmill(folder, "plan", "web", "--set", f"paths={paths}")
        second, _, _ = gristmill(folder, "plan", "web", "--set", f"paths={paths}")
        _, _, listed = run([sys.executable, __file__, "--listing", paths], folder)
        found[kind] = {"plan_s": round(first, 2), "again_s": round(second, 2), "plan_cpu_s": round(cpu, 2), **json.loads(listed)}
        shutil.rmtree(folder / kind)
    return {"plan_100k_s": found["small"]["plan_s"], "plan": found}


# --- a run with nothing to do


def noop(folder, sizes):
    """The packaged recipe `web` over one-page files: the first run, and wall time of the second."""
    lay_small(folder / "pages", sizes.noop)
    words = ("run", "web", "--set", f"paths={folder / 'pages' / '*.warc.gz'}")
    wall, cpu, _ = gristmill(folder, *words)
    again = [gristmill(folder, *words) for _ in range(3)]
    if "nothing to do" not in again[-1][2]:
        sys.exit(f"the second run did something:\n{again[-1][2]}")
    verbs = {verb: round(statistics.median(run([*COMMAND, verb], folder)[0] for _ in range(5)), 3) for verb in ("--help",)}
    return {
        "noop_s": round(statistics.median(a[0] for a in again), 2),
        "noop_shards": sizes.noop,
        "first_run_s": round(wall, 1),
        "first_run_cpu_ms_per_shard": round(cpu / sizes.noop * 1e3, 2),
        "help_s": verbs["--help"],
    }


# --- memory


class Peak:
    """The largest sum of resident memory over a tree of processes, looked at every 50 ms."""

    def __init__(self):
        self.bytes, self.largest = 0, 0

    def __call__(self, pid):
        """Look once."""
        import psutil

        sizes = []
        try:
            top = psutil.Process(pid)
            for process in [top, *top.children(recursive=True)]:
                try:
                    sizes.append(process.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue
        except psutil.NoSuchProcess:
            pass
        self.bytes, self.largest = max(self.bytes, sum(sizes)), max([self.largest, *sizes])
        time.sleep(0.05)


def memory(folder, sizes, inputs):
    """Peak of the process tree over some files and over ten times as many, and with one unit ten times as large."""
    found = {}
    cases = {"small": (sizes.memory_files, 4, 2), "large": (sizes.memory_files * 10, 4, 20)}
    cases |= {f"unit_{mib}": (1, mib, 1) for mib in sizes.memory_units}
    for name, (count, size, shards) in cases.items():
        (folder / name).mkdir()
        lay_units(folder / name, inputs, size, count)
        recipe(folder, f"{name}.yaml", WHOLE, folder / name / "*.warc.gz", shards=shards)
        fresh(folder)
        peak = Peak()
        gristmill(folder, "run", f"{name}.yaml", "--workers", "2", watch=peak)
        mib = sum(p.stat().st_size for p in (folder / name).iterdir()) / MIB
        found[name] = {
            "input_mib": round(mib),
            "shards": shards,
            "peak_mb": round(peak.bytes / 1e6),
            "largest_mb": round(peak.largest / 1e6),
        }
        shutil.rmtree(folder / name)
    return {"peak_mb_small": found["small"]["peak_mb"], "peak_mb_large": found["large"]["peak_mb"], "memory": found}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two minutes; fewer repetitions and smaller units")
    parser.add_argument("--only", default="overhead,plan,noop,memory")
    parser.add_argument("--input", default=str(CRAWL))
    parser.add_argument("--bare", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--listing", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.bare:
        return bare(*args.bare)
    if args.listing:
        return listing(args.listing)
    import glob

    inputs = [Path(p) for p in sorted(glob.glob(args.input))]  # noqa: PTH207 (the pattern may be absolute)
    if not inputs:
        sys.exit(f"no WARC file matches {args.input}; name some with --input")
    reap_everything()
    sizes, where, found = Sizes(args.quick), machine(), {}
    parts = {"overhead": (overhead, inputs), "plan": (planning,), "noop": (noop,), "memory": (memory, inputs)}
    for name in args.only.split(","):
        work, *more = parts[name]
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="gristmill-bench-") as folder:
            found |= work(Path(folder), sizes, *more)
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
    if set(args.only.split(",")) == set(parts):
        report(found, where, args.quick)
    print(json.dumps({"quick": args.quick, "machine": where, **found}))
    return None


if __name__ == "__main__":
    main()
