"""From WARC to filtered Parquet against datatrove doing the same steps on the same crawl: CPU seconds of all processes.

    .venv/bin/python benchmarks/web.py [--quick] [--data DIR]

DIR holds `crawl/CC-SIM-dev-2*.warc.gz` (default: ../shared/data/dev). The peer (datatrove 0.10.1 with trafilatura and spaCy)
gets an environment of its own under .cache/bench, made on the first run, and runs this same file there. Both sides read the
same files, copied under other names until start-up hardly counts; what one page costs besides is reported alone. The report
goes between its markers in benchmarks/RESULTS.md; the last line printed is JSON.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import functools
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from results import machine, write_section

ROOT = Path(__file__).resolve().parents[1]
PEER = ROOT / ".cache" / "bench" / "peer-datatrove-0.10.1"
MODEL = ROOT / "classifiers" / "models" / "lid.176.ftz"
FILTER_PINS = ("datatrove[io]==0.10.1", "spacy==3.8.18", "nltk==3.10.4", "xxhash<4")
"""What benchmarks/filters.py puts into the same environment."""
WEB_PINS = (
    "trafilatura==2.3.1", "lxml==6.1.3", "lxml-html-clean==0.4.6", "warcio==1.8.1", "fasttext-numpy2-wheel==0.9.2",
    "fasteners==0.20", "tldextract==5.4.0",
)  # fmt: skip
RECIPE = """\
name: {name}
params: {{paths: ""}}
steps:
  crawl:      {{uses: stages.ingest.warc.pages, with: {{paths: "${{paths}}"}}}}
  text:       {{uses: {extractor}, from: crawl{options}}}
  language:   {{uses: classifiers.language.identify, from: text, with: {{keep: [en], min_score: 0.65{whole}}}}}
  repetition: {{uses: stages.filters.gopher.repetition, from: language, with: {{words: {words}{skip}}}}}
  quality:    {{uses: stages.filters.gopher.quality, from: repetition, with: {{words: {words}{skip}{stop}}}}}
  lines:      {{uses: stages.filters.c4.lines, from: quality, with: {{end_marks: ""{script}}}}}
  page:       {{uses: stages.filters.c4.page, from: lines, with: {{words: {words}}}}}
  fineweb:    {{uses: stages.filters.fineweb.quality, from: page, with: {{words: {words}{skip}}}}}
  files:      {{uses: stages.export.parquet.files, from: fineweb}}
"""
SIDES = {
    "default": {
        "extractor": "stages.extract.main.main_text", "options": ", with: {format: plain}", "whole": "", "words": "plain",
        "skip": "", "stop": "", "script": "",
    },
    "parity": {
        "extractor": "stages.extract.trafilatura.main_text", "options": ", with: {favor: precision, fast: false}",
        "whole": ", max_chars: 0", "words": "spacy_like", "skip": ", skip: {}",
        "stop": ', stop_words: {"*": [the, be, to, of, and, that, have, with]}', "script": ", any_script: false",
    },
}  # fmt: skip
"""Ours as it comes, and ours told to do what datatrove does: its extractor, its words, no rule excused for a language."""
LABELS = {
    "datatrove": "datatrove", "default": "ours: own extractor, plain words",
    "parity": "ours: trafilatura as datatrove calls it, spacy_like words",
}  # fmt: skip
PR_SET_CHILD_SUBREAPER = 36


@dataclasses.dataclass
class Spent:
    """What one command cost (seconds, with every process it started), and what it did (pages)."""

    cpu: float
    wall: float
    read: int = 0
    kept: int = 0
    steps: dict = dataclasses.field(default_factory=dict)
    urls: list = dataclasses.field(default_factory=list)


def spend(words: list, log: Path, **environment: object) -> Spent:
    """Run a command; orphans of its own (a fork server and its workers) are waited for here, so that they count."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with log.open("w") as out:
        done = subprocess.run(
            [str(w) for w in words], cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, check=False,
            env=os.environ | {name: str(value) for name, value in environment.items()},
        )  # fmt: skip
    wall = time.monotonic() - begin
    with suppress(ChildProcessError):
        while True:
            os.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 3):
        raise SystemExit(f"{words[0]} ... failed ({done.returncode}):\n{log.read_text()[-4000:]}")
    return Spent(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, wall)


def ours(side: str, source: Path, workers: int, work: Path) -> Spent:
    """A recipe through the command, into a store of its own."""
    recipe, store, log = work / f"{side}.yaml", work / "store", work / "ours.log"
    shutil.rmtree(store, ignore_errors=True)
    recipe.write_text(RECIPE.format(name=side, **SIDES[side]))
    words = [sys.executable, "-m", "pipelines.cli", "run", recipe, "--json", "--store", store, "--workers", workers]
    spent = spend([*words, "--set", f"paths={source}/*.warc.gz"], log)
    steps = json.loads(next(line for line in log.read_text().splitlines() if line.startswith("{")))["steps"]
    spent.read, spent.kept = steps[0]["out"], steps[-1]["out"]
    spent.urls = written(store / "objects", "files-*/parts/*.parquet")
    return spent


def theirs(source: Path, workers: int, work: Path) -> Spent:
    """Run datatrove in its own environment; seconds of each block are wall time, as it reports them."""
    out = work / "peer"
    shutil.rmtree(out, ignore_errors=True)
    spent = spend(
        [PEER / "bin" / "python", __file__, "--peer", source, out, workers], work / "peer.log", HF_ASSETS_CACHE=work / "assets"
    )
    blocks = json.loads((out / "logs" / "stats.json").read_text())
    spent.steps = {block["name"]: block["time_stats"]["total"] for block in blocks}
    spent.read = next(block["stats"]["documents"]["total"] for block in blocks if "Warc" in block["name"])
    spent.urls = written(out, "*.parquet")
    spent.kept = len(spent.urls)
    return spent


def written(folder: Path, pattern: str) -> list[str]:
    """Addresses of all pages in Parquet files, ours or datatrove's."""
    import pyarrow.parquet as pq

    found: list[str] = []
    for path in sorted(folder.glob(pattern)):
        file = pq.ParquetFile(path)
        if "url" in file.schema_arrow.names:
            found += file.read(columns=["url"])["url"].to_pylist()
        elif "metadata" in file.schema_arrow.names:
            found += [row["url"] for row in file.read(columns=["metadata"])["metadata"].to_pylist()]
    return found


def peer_main(source: str, out: str, workers: int) -> None:
    """In the peer's environment: FineWeb's blocks with their defaults, and three departures that keep the sides equal.

    The language model is ours, by path; trafilatura does not remember earlier pages; and a page may take 60 seconds
    instead of one, because on a busy machine the limit would drop pages at random.
    """
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.extractors import Trafilatura
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
        LanguageFilter,
    )  # fmt: skip
    from datatrove.pipeline.readers import WarcReader
    from datatrove.pipeline.writers import ParquetWriter

    language = LanguageFilter("en", language_threshold=0.65)
    language.model.MODEL_URL = str(MODEL)
    steps = [
        WarcReader(source, glob_pattern="*.warc.gz"),
        Trafilatura(favour_precision=True, deduplicate=False, timeout=60),
        language,
        GopherRepetitionFilter(),
        GopherQualityFilter(),
        C4QualityFilter(filter_no_terminal_punct=False),
        FineWebQualityFilter(),
        ParquetWriter(out),
    ]
    tasks = 1 if workers == 1 else len(list(Path(source).iterdir()))
    LocalPipelineExecutor(steps, tasks=tasks, workers=workers, logging_dir=f"{out}/logs").run()


def peer_ready() -> None:
    """Make or complete the peer's environment."""
    python = PEER / "bin" / "python"
    for name, pins in (("ready", FILTER_PINS), ("ready-web", WEB_PINS)):
        if (PEER / name).exists():
            continue
        print("making the peer's environment ...", flush=True)
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", PEER], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *pins], check=True, stderr=subprocess.DEVNULL)
        (PEER / name).touch()


def copies(inputs: list[Path], count: int, folder: Path) -> Path:
    """Every input `count` times under names of its own."""
    folder.mkdir(parents=True)
    for number in range(count):
        for path in inputs:
            (folder / f"{number:03d}-{path.name}").symlink_to(path)
    return folder


def steps_of(side: str, source: Path, work: Path) -> dict[str, float]:
    """CPU seconds of each of our steps in one process that has run them before. It has no time limit and so fills caches."""
    words = [sys.executable, __file__, "--steps", side, source, work]
    done = subprocess.run([str(w) for w in words], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def steps_main(side: str, source: str, folder: str) -> None:
    """Run a recipe twice in this process, the first time for the kernels; print CPU seconds by stage."""
    sys.path.insert(0, str(ROOT))
    recipe, spent = Path(folder) / "steps.yaml", Counter()
    recipe.write_text(RECIPE.format(name="steps", **SIDES[side]))
    time_stages(side, spent)
    with tempfile.TemporaryDirectory() as stores:
        in_process(recipe, source, Path(stores) / "cold")
        spent.clear()
        begin = time.process_time()
        in_process(recipe, source, Path(stores) / "warm")
    spent["everything else"] = time.process_time() - begin - sum(spent.values())
    print(json.dumps(spent))


def time_stages(side: str, spent: Counter) -> None:
    """Wrap a recipe's stages, and the words that they read, so that each adds its CPU seconds to `spent`."""
    import importlib

    recipe = RECIPE.format(name="", **SIDES[side])
    names = [line.split("uses: ")[1].split(",")[0] for line in recipe.splitlines() if "uses" in line]
    for name in (*names, "stages.analysis.words", "stages.analysis.spacy_like_words"):
        module, _, attribute = name.rpartition(".")
        place = importlib.import_module(module)
        stage = getattr(place, attribute)
        field = next(f for f in ("run", "read", "encode") if hasattr(stage, f))
        setattr(place, attribute, dataclasses.replace(stage, **{field: timed(getattr(stage, field), name, spent, field == "read")}))


def timed(function, name, spent, generates):
    @functools.wraps(function)
    def one(*values, **more):
        begin = time.process_time()
        try:
            return function(*values, **more)
        finally:
            spent[name] += time.process_time() - begin

    @functools.wraps(function)
    def many(*values, **more):
        found = iter(function(*values, **more))
        while True:
            begin = time.process_time()
            chunk = next(found, None)
            spent[name] += time.process_time() - begin
            if chunk is None:
                return
            yield chunk

    return many if generates else one


class Here:
    """An executor in this very process."""

    def map(self, work, tasks):
        """Perform each task where it is called for."""
        from pipelines.executors.contract import Outcome
        from pipelines.perform import perform

        for task in tasks:
            yield Outcome(task, perform(work[task.program], task, lambda _mark: None))

    def drain(self):
        """Nothing waits."""

    def close(self):
        """Nothing is open."""


def in_process(recipe: Path, source: str, store: Path) -> None:
    from pipelines.run import Run
    from pipelines.session import Wish, planned

    plan = planned(Wish(str(recipe), store, settings={"paths": f"{source}/*.warc.gz"}))
    result = Run(plan, Here(), lambda _event: None, 1.0).go()
    if result.errors:
        raise SystemExit(str(result.errors))


def median(runs: list[Spent]) -> Spent:
    """The run whose CPU seconds are the median."""
    middle = statistics.median_low([run.cpu for run in runs])
    return next(run for run in runs if run.cpu == middle)


@dataclasses.dataclass
class Sizes:
    """How much each side reads, and how often: copies of every input file by side, and runs by workers and side."""

    inputs: int
    copies: dict[str, int]
    runs: dict[int, dict[str, int]]


FULL = Sizes(
    5, {"datatrove": 1, "default": 4, "parity": 1},
    {1: {"default": 3, "datatrove": 2, "parity": 1}, 2: {"default": 1, "datatrove": 1}},
)  # fmt: skip
QUICK = Sizes(1, {"datatrove": 1, "default": 12, "parity": 1}, {1: {"default": 2, "datatrove": 1, "parity": 1}})


def first_page(path: Path) -> bytes:
    """The beginning of a WARC file up to its third response, which is a few gzip members."""
    import zlib

    data, kept, responses = path.read_bytes(), b"", 0
    while data and responses < 3:
        inflate = zlib.decompressobj(31)
        responses += b"WARC-Type: response" in inflate.decompress(data)[:4000]
        kept, data = kept + data[: len(data) - len(inflate.unused_data)], inflate.unused_data
    return kept


def measure(inputs: list[Path], sizes: Sizes, work: Path) -> dict[tuple[str, int], Spent]:
    """All runs, the sides by turns (A B A B), so that a busy machine slows them alike; workers 0 is start-up: three pages."""
    tiny = work / "tiny"
    tiny.mkdir()
    (tiny / "tiny.warc.gz").write_bytes(first_page(inputs[0]))
    run = {side: functools.partial(ours, side) if side in SIDES else theirs for side in sizes.copies}
    source = {side: copies(inputs[: sizes.inputs], count, work / side) for side, count in sizes.copies.items()}
    for side in SIDES:
        steps_of(side, tiny, work)  # compiles what is not compiled yet
    found = {(side, 0): run[side](tiny, 1, work) for side in run}
    for workers, wanted in sizes.runs.items():
        done: dict[str, list[Spent]] = {side: [] for side in wanted}
        for side in (side for turn in range(max(wanted.values())) for side in wanted if turn < wanted[side]):
            spent = run[side](source[side], workers, work)
            done[side].append(spent)
            print(f"{side}, {workers} workers: {spent.read} pages, {spent.kept} kept, {spent.cpu:.1f} s CPU", flush=True)
        found |= {(side, workers): median(runs) for side, runs in done.items()}
    return found


def per_pass(found: dict, sizes: Sizes, side: str, workers: int) -> float:
    """CPU seconds of one pass over the inputs, start-up left out."""
    return (found[side, workers].cpu - found[side, 0].cpu) / sizes.copies[side]


def speed_rows(found: dict, sizes: Sizes) -> list[str]:
    rows = []
    for (side, workers), spent in found.items():
        if not workers:
            continue
        cpu, copies_ = per_pass(found, sizes, side, workers), sizes.copies[side]
        ratio = per_pass(found, sizes, "datatrove", workers) / cpu
        cells = (
            LABELS[side], workers, f"{copies_} x {sizes.inputs}", f"{spent.read:,}", f"{spent.kept:,}", f"{spent.cpu:.1f}",
            f"{spent.wall:.0f}", f"{found[side, 0].cpu:.1f}", f"{spent.read / copies_ / cpu:,.0f}", f"{ratio:.1f}",
        )  # fmt: skip
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return rows


def agreement(found: dict, one: str, other: str) -> float:
    """Pages kept by both over pages kept by either, by address."""
    a, b = set(found[one, 1].urls), set(found[other, 1].urls)
    return len(a & b) / len(a | b) if a | b else 1.0


def step_rows(found: dict, sizes: Sizes, spent: dict[str, float]) -> list[str]:
    """Seconds of one pass by step, each side by its own clock."""
    peer = {name.rpartition(": ")[2]: seconds / sizes.copies["datatrove"] for name, seconds in found["datatrove", 1].steps.items()}
    rows = ["| datatrove's block | wall s | our stage (own extractor) | CPU s |", "|---|---|---|---|"]
    left, right = list(peer.items()), [(name.removeprefix("stages."), seconds) for name, seconds in spent.items()]
    for number in range(max(len(left), len(right))):
        (a, x), (b, y) = (side[number] if number < len(side) else ("", None) for side in (left, right))
        rows.append(f"| {a} | {'' if x is None else f'{x:.2f}'} | {b} | {'' if y is None else f'{y:.3f}'} |")
    return rows


def report(found: dict, sizes: Sizes, steps: dict[str, float], options: argparse.Namespace) -> tuple[str, dict]:
    base = per_pass(found, sizes, "datatrove", 1)
    summary = {
        "cpu_vs_datatrove": round(base / per_pass(found, sizes, "default", 1), 1),
        "cpu_vs_datatrove_our_startup_counted": round(base * sizes.copies["default"] / found["default", 1].cpu, 1),
        "cpu_vs_datatrove_same_extractor": round(base / per_pass(found, sizes, "parity", 1), 1),
        "kept_agreement_same_extractor": round(agreement(found, "datatrove", "parity"), 4),
        "kept_agreement": round(agreement(found, "datatrove", "default"), 4),
    }
    lines = [
        "## From WARC to filtered Parquet against datatrove 0.10.1", "",
        f"`.venv/bin/python benchmarks/web.py{' --quick' if options.quick else ''}`, {machine()}.", "",
        "WARC, main text, English at 0.65 (the same lid.176.ftz), Gopher repetition and quality, C4 without its punctuation rule,",
        "FineWeb quality, Parquet. CPU seconds are user and system time of every process of the command. `files` is copies x",
        "files of a real crawl; `start-up` is the CPU time of a run on three pages; `pages/CPU s` and `ratio` (datatrove's CPU",
        "seconds by ours, for one pass over the files) leave it out. Runs with one worker, by turns (the median is shown):",
        f"{', '.join(f'{LABELS[side]} {count}' for side, count in sizes.runs[1].items())}. datatrove remembers no earlier page",
        "(`deduplicate=False`), may take 60 s for one, and reads pages with a status other than 200 as well.", "",
        "| | workers | files | pages in | kept | CPU s | wall s | start-up | pages/CPU s | ratio |", "|---" * 10 + "|",
        *speed_rows(found, sizes), "",
        f"With our start-up counted and datatrove's left out the ratio is {summary['cpu_vs_datatrove_our_startup_counted']}.",
        "Addresses kept by both of those kept by either:",
        f"{summary['kept_agreement_same_extractor']:.1%} with its extractor, {summary['kept_agreement']:.1%} with our own.", "",
        "Where it goes, for one pass over the files:", "", *step_rows(found, sizes, steps),
    ]  # fmt: skip
    return "\n".join(lines), summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one file, one worker, one run of each: about two minutes")
    parser.add_argument("--data", type=Path, default=ROOT / ".." / "shared" / "data" / "dev")
    options = parser.parse_args()
    inputs = sorted(options.data.resolve().glob("crawl/CC-SIM-dev-2*.warc.gz"))
    if not inputs:
        raise SystemExit(f"{options.data}: no crawl/CC-SIM-dev-2*.warc.gz here; name a folder that has them with --data")
    peer_ready()
    sizes = QUICK if options.quick else FULL
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        found = measure(inputs, sizes, work)
        steps = steps_of("default", copies(inputs[: sizes.inputs], 1, work / "once"), work)
    text, summary = report(found, sizes, steps, options)
    write_section("web", text)
    print(text)
    print(json.dumps(summary))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peer"]:
        peer_main(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    elif sys.argv[1:2] == ["--steps"]:
        steps_main(*sys.argv[2:])
    else:
        main()
