"""Curating code: pylint warm against one process a file, files a second of the filters, the verifier on prepared rewrites,
formulas kept by the extraction of mathematics pages, the funnel of the recipe `code`.

    python benchmarks/code_curation.py [--quick] [--data DIR]

DIR holds `code.jsonl.zst` and `math/` (default: ../shared/data/dev). Speeds are CPU seconds, children included, so that a busy
machine changes them little. --quick takes every sixth file.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

import orjson
import pyarrow as pa
import yaml
import zstandard
from results import machine, write_section

from stages.code import heuristics, provenance, sandbox, secrets, structure, verify
from stages.code.linter import SWALLOW_CODE, Linter, Pylint, penalised
from stages.contract import TEXT

ROOT = Path(__file__).parents[1]
ONE_PROCESS = """
import sys, sysconfig
sys.argv = ["pylint"]
import isort, isort.api, isort.place
from pylint.lint import PyLinter, Run
load, library = PyLinter.load_default_plugins, sysconfig.get_path("stdlib")
def load_and_leave(self):
    load(self)
    sys.path[:] = [p for p in sys.path if p.endswith(".zip") or (p.startswith(library) and "-packages" not in p)]
PyLinter.load_default_plugins = load_and_leave
Run(["--rcfile=/dev/null", "--output-format=json2", "--disable=" + DISABLED, "snippet.py"])
"""
"""pylint's own command, with the same messages off and the same libraries in reach."""


def spent() -> float:
    """CPU seconds of this process and of children that have ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def one_process(text: str, folder: Path) -> dict[str, int]:
    (folder / "snippet.py").write_text(text)
    words = [sys.executable, "-P", "-c", f"DISABLED = {','.join(SWALLOW_CODE)!r}\n{ONE_PROCESS}"]
    environment = {"PATH": os.environ["PATH"], "PYLINTHOME": str(folder / "home")}
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    return dict(Counter(message["messageId"] for message in json.loads(done.stdout)["messages"]))


def pylint(texts: list[str], quick: bool) -> tuple[list[str], dict, list[float]]:
    """Warm linter over all files, one process for a sample of them; messages compared where both ran."""
    step = max(1, len(texts) // (6 if quick else 24))
    sample = list(range(step // 2, len(texts), step))
    start = spent()
    model = Linter(Pylint())
    found = [model.lint(text) for text in texts]
    starts = model.starts
    model.close()
    warm = len(texts) / (spent() - start)
    start = spent()
    with tempfile.TemporaryDirectory() as folder:
        alone = {n: one_process(texts[n], Path(folder)) for n in sample}
    cold = len(sample) / (spent() - start)
    same = sum(found[n].messages == alone[n] for n in sample)
    scores = [score for score in (penalised(one, text) for one, text in zip(found, texts, strict=True)) if score is not None]
    status = Counter(one.status for one in found)
    lines = [
        "| pylint 4.1 | files/s and core | |", "|---|---|---|",
        f"| one process a file ({len(sample)} files) | {cold:.2f} | |",
        f"| warm process ({len(texts):,} files, {starts} starts) | {warm:.2f} | {warm / cold:.1f} times |",
        f"| same messages | | {same} of {len(sample)} files |",
        f"| outcome | | {', '.join(f'{name} {count}' for name, count in sorted(status.items()))} |",
    ]  # fmt: skip
    return lines, {"pylint_vs_process_per_file": round(warm / cold, 1), "pylint_same_messages": f"{same}/{len(sample)}"}, scores


def distribution(scores: list[float]) -> list[str]:
    edges = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10.01)
    cells = [sum(low <= score < high for score in scores) for low, high in pairwise(edges)]
    head = " | ".join(f"{low}-{min(10, int(high + 0.5))}" for low, high in pairwise(edges))
    return [f"| score | {head} |", "|---" * 11 + "|", "| files | " + " | ".join(f"{n:,}" for n in cells) + " |"]


def filters(files: list[dict]) -> tuple[list[str], dict]:
    """Each filter alone over all files, and their sum."""
    rows = pa.table(
        {
            "text": pa.array([f["content"] for f in files], TEXT),
            "path": [f["path"] for f in files],
            "license": [f["license"] for f in files],
        }
    )
    lines, total = ["| filter | files/s and core | dropped |", "|---|---|---|"], 0.0
    chain = (
        ("identify", provenance.identify, provenance.Languages()), ("permitted", provenance.permitted, provenance.Permitted()),
        ("by_hand", provenance.by_hand, provenance.Written()), ("general", heuristics.general, heuristics.General()),
        ("by_syntax", structure.by_syntax, structure.Syntax()), ("secrets", secrets.redact, secrets.Redact()),
    )  # fmt: skip
    for name, stage, params in chain:
        stage(rows.slice(0, 40), params)
        start = spent()
        out = stage(rows, params)
        took = spent() - start
        total += took
        if name == "identify":
            rows = rows.append_column("code_language", out["code_language"])
        dropped = rows.num_rows - out["drop_reason"].null_count if "drop_reason" in out.column_names else 0
        lines.append(f"| {name} | {rows.num_rows / took:,.0f} | {dropped:,} |")
    speed = rows.num_rows / total
    return [*lines, f"| **all, each on every file** | **{speed:,.0f}** | |"], {"filters_files_per_s": round(speed)}


def verifier() -> tuple[list[str], dict]:
    cases = yaml.safe_load((ROOT / "tests/stages/code/rewrites.yaml").read_text(encoding="utf-8"))["cases"]
    linter, right, wrong = Linter(Pylint()), 0, []
    limits = sandbox.Limits(seconds=6, cpu_seconds=6)
    for case in cases:
        language = case.get("language", "Python")
        runs = "needs" in case
        params = verify.Verify(
            language=language, execute="when_possible" if runs else "never", limits=limits, not_below_source=not runs
        )
        found = verify.judge(case["text"], case["source"], params, linter)
        right += found.reason == case["expected"]
        if found.reason != case["expected"]:
            wrong.append(f"{case['name']}: {found.reason} instead of {case['expected']} {found.absent}")
    linter.close()
    reasons = Counter(str(case["expected"] or "accepted") for case in cases)
    said = ", ".join(f"{name} {count}" for name, count in reasons.most_common())
    return [f"{right} of {len(cases)} prepared rewrites judged right ({said}).", *(f"Wrong: {one}" for one in wrong)], {
        "verifier_right": right
    }


def squeezed(text: str) -> str:
    return re.sub(r"[\s{}]+|\\displaystyle|\\,|\\!|\\;", "", text)


def formulas(data: Path, quick: bool) -> tuple[list[str], dict]:
    """TeX of a page's formulas found again in its text: our extraction, lynx, lynx on pages with formulas written out."""
    from stages.extract import lynx, main

    with gzip.open(data / "math" / "pages.jsonl.gz", "rt", encoding="utf-8") as lines:
        pages = [page for page in map(json.loads, lines) if page["n_formulas"]][:: 8 if quick else 1]
    program, model = lynx.main_text.model(lynx.Lynx()), main.weights()
    kept, total = Counter(), 0
    for page in pages:
        html = gzip.decompress((data / "math" / page["html_path"]).read_bytes())
        ours = main.extract(html, None, main.Main(), model).text
        table = pa.table({"html": pa.array([html], pa.large_binary()), "charset": pa.array([None], pa.string())})
        dumped = lynx.main_text(table, lynx.Lynx(), model=program)["text"][0].as_py() or ""
        total += len(page["formulas"])
        for name, text in (("our extraction", squeezed(ours)), ("lynx", squeezed(dumped))):
            kept[name] += sum(squeezed(formula["tex"]) in text for formula in page["formulas"])
    table = ["| extraction | formulas kept | share |", "|---|---|---|"]
    table += [f"| {name} | {count:,} of {total:,} | {count / total:.2%} |" for name, count in kept.items()]
    return [*table, "", f"{len(pages)} pages; a formula counts when its TeX stands in the text, white space and braces aside."], {
        "formulas_kept": round(kept["our extraction"] / total, 4)
    }


def curate(files: list[dict], folder: Path) -> Path:
    """Run the recipe `code` on these files through the command; the file with its summary."""
    import pyarrow.parquet as pq

    said = ("content", "path", "repo", "commit", "license", "language")
    pq.write_table(pa.table({name: [f[name] for f in files] for name in said}), folder / "code.parquet")
    words = [sys.executable, "-m", "pipelines.cli", "run", "code", "--json", "--store", str(folder / "store")]
    words += ["--set", "source=stages.ingest.code.parquet", "--set", f"paths={folder / 'code.parquet'}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the recipe ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    (folder / "code.json").write_text(done.stdout)
    return folder / "code.json"


def funnel(path: Path) -> list[str]:
    """The table of a run's summary, as `gristmill run --json` prints it."""
    summary = json.loads(path.read_text().splitlines()[-1])
    lines = ["| step | in | out | why not |", "|---|---|---|---|"]
    for step in summary["steps"]:
        reasons = ", ".join(f"{name} {count:,}" for name, count in sorted(step["reasons"].items(), key=lambda pair: -pair[1]))
        lines.append(f"| {step['step']} | {step['in']:,} | {step['out']:,} | {reasons} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", type=Path, default=ROOT / ".." / "shared" / "data" / "dev")
    options = parser.parse_args()
    data = options.data.resolve()
    with zstandard.open(data / "code.jsonl.zst", "rb") as file:
        files = [orjson.loads(line) for line in file.read().splitlines()]
    python = [f["content"] for f in files if f["language"] == "Python"][:: 12 if options.quick else 3]
    speed, headline, scores = pylint(python, options.quick)
    chain, more = filters(files[:: 6 if options.quick else 1])
    judged, right = verifier()
    kept, share = formulas(data, options.quick)
    headline |= more | right | share
    text = ["## Code curation", "", machine(), "", "CPU seconds of all processes, start-up included.", "", *speed, "", *chain, ""]
    text += [
        "Comment-penalised pylint scores of the Python files above:",
        "",
        *distribution(scores),
        "",
        "### Verifier",
        "",
        *judged,
        "",
    ]
    text += ["### Formulas of mathematics pages", "", *kept, ""]
    with tempfile.TemporaryDirectory() as folder:
        repositories = len({f["repo"] for f in files})
        summary = curate(files[:: 6 if options.quick else 1], Path(folder))
        text += [f"### Funnel of `code` on files of {repositories} real repositories", "", *funnel(summary), ""]
    write_section("code_curation", "\n".join(text))
    print(json.dumps(headline))


if __name__ == "__main__":
    main()
