"""Funnels of the packaged recipes on a real crawl: what each step keeps, and why it drops.

    python benchmarks/recipes.py [--quick] [--data DIR]

DIR holds `crawl/*.warc.gz`, `crawl/malformed/*` and `warc_real/*` (default: ../shared/data/dev). --quick runs `web` alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from results import machine, write_section

ROOT = Path(__file__).parents[1]
RECIPES = ("web", "fineweb", "nemotron-cc")
EXPLAINED = {
    "repaired": "repairs text, drops nothing",
    "allowed": "no URL list is given by default: it drops nothing",
    "web": "keeps the standing rows, drops nothing",
    "distinct": "keeps the standing rows, drops nothing",
    "signatures": "adds a column, drops nothing",
    "clusters": "adds columns, drops nothing",
    "lines": "rewrites text; pages left empty fall to `page`",
    "private": "rewrites text, drops nothing",
    "shuffled": "moves rows, drops nothing",
    "shards": "writes rows, drops nothing",
    "files": "writes rows, drops nothing",
}


def run(recipe: str, paths: str, store: Path) -> dict:
    """Run a recipe through the command, as a user would; its summary."""
    words = [sys.executable, "-m", "pipelines.cli", "run", recipe, "--json", "--store", str(store), "--set", f"paths={paths}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        raise SystemExit(f"{recipe} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def table(summary: dict) -> list[str]:
    """Markdown rows of a funnel; a step that drops nothing or everything says why."""
    lines = ["| step | in | out | kept | why not |", "|---|---|---|---|---|"]
    for step in summary["steps"]:
        came, left = step["in"], step["out"]
        reasons = ", ".join(f"{name} {count:,}" for name, count in sorted(step["reasons"].items(), key=lambda pair: -pair[1]))
        if left >= came or left == 0:
            reasons = reasons or EXPLAINED.get(step["step"], "(unexplained)")
        if step["step"] == "pairs":
            reasons = f"in: {came:,} band keys; out: edges between documents that share one"
        lines.append(f"| {step['step']} | {came:,} | {left:,} | {left / came if came else 0:.1%} | {reasons} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", type=Path, default=ROOT / ".." / "shared" / "data" / "dev")
    options = parser.parse_args()
    data = options.data.resolve()
    if not (data / "crawl").exists():
        raise SystemExit(f"{data}: no crawl/ here; name a folder of WARC files with --data")
    everything = ",".join(str(data / p) for p in ("crawl/*.warc.gz", "crawl/malformed/*", "warc_real/*"))
    crawl = str(data / "crawl" / "*.warc.gz")
    text = ["## Funnels of the recipes on real pages", "", machine(), ""]
    headline = {}
    for recipe in RECIPES[:1] if options.quick else RECIPES:
        with tempfile.TemporaryDirectory() as folder:
            summary = run(recipe, everything if recipe == "web" else crawl, Path(folder) / "store")
        what = "crawl, broken files and other tools' test files" if recipe == "web" else "crawl"
        text += [f"### `{recipe}` ({what}; {summary['seconds']:.0f} s with start-up and compilation)", "", *table(summary), ""]
        headline[recipe] = {"in": summary["steps"][0]["in"], "out": summary["steps"][-1]["out"], "code": summary["code"]}
    write_section("recipes", "\n".join(text))
    print(json.dumps(headline))


if __name__ == "__main__":
    main()
