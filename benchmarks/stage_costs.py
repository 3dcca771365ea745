"""CPU time per document of every stage that can run on the packaged sample with its default parameters.

    python benchmarks/stage_costs.py [--quick]

Writes pipelines/stage_costs.json, which `gristmill stages show` and the guide print, and its section of RESULTS.md. The time
of columns that are made on the fly for a stage (words, lines) counts for it. One core, best of five (--quick: two).
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import pyarrow as pa  # noqa: E402
import pyarrow.compute as pc  # noqa: E402

from benchmarks.results import machine, write_section  # noqa: E402
from pipelines.chain import Opened, checked, make_ids, open_call, stage_input  # noqa: E402
from pipelines.manual import COSTS  # noqa: E402
from pipelines.program import Call  # noqa: E402
from pipelines.resolve import catalogue, resolve  # noqa: E402
from stages.contract import Map  # noqa: E402

COPIES = 1
SAMPLE = ROOT / "pipelines" / "recipes" / "sample" / "sample.warc.gz"


def sample() -> pa.Table:
    """The documents of the packaged crawl, with page, text and language."""
    source = resolve("stages.ingest.warc.pages", "benchmark")
    params = source.params(paths=[str(SAMPLE)])
    rows = pa.concat_tables(chunk.rows for unit in source.units(params) for chunk in source.read(unit, params))
    rows = rows.append_column("id", make_ids(rows["origin"])) if "id" not in rows.column_names else rows
    for name in ("stages.extract.resiliparse.main_text", "classifiers.language.identify"):
        opened = opened_stage(name)
        made = run(opened, rows)
        for column in made.column_names:
            if column != "drop_reason" and column not in rows.column_names:
                rows = rows.append_column(column, made[column])
            elif column != "drop_reason":
                rows = rows.set_column(rows.column_names.index(column), column, made[column])
    rows = rows.filter(pc.is_valid(rows["text"]))
    return pa.concat_tables([rows] * COPIES).combine_chunks()


def opened_stage(name: str) -> Opened:
    """A stage with its default parameters."""
    stage = resolve(name, "benchmark")
    params = stage.params()
    return open_call(Call(name, name, params.model_dump(mode="json"), stage.reads_of(params), stage.writes_of(params)))


def run(opened: Opened, rows: pa.Table) -> pa.Table:
    """One batch, with the columns that are made for it."""
    for column, provider in opened.providers.items():
        rows = rows.append_column(column, checked(provider, provider.call.writes, stage_input(rows, provider))[column])
    return opened.stage.run(stage_input(rows, opened), opened.params, **opened.extras)


def busy() -> float:
    """CPU seconds so far, those of ended children as well: lynx is a program of its own."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def measured(name: str, rows: pa.Table, times: int) -> float | None:
    """Microseconds per document; None for a stage that needs more than the sample."""
    stage = resolve(name, "benchmark")
    if not isinstance(stage, Map) or any(f.is_required() for f in stage.params.model_fields.values()) or stage.given or stage.union:
        return None
    try:
        opened = opened_stage(name)
        if opened.needs - set(rows.column_names) - set(stage.optional):
            return None
        run(opened, rows)
        best = float("inf")
        for _ in range(times):
            started = busy()
            run(opened, rows)
            best = min(best, busy() - started)
    except Exception as error:
        print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
        return None
    return round(best / rows.num_rows * 1e6, 2)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="best of two")
    times = 2 if parser.parse_args().quick else 5
    pa.set_cpu_count(1)
    rows = sample()
    mean = pc.mean(pc.utf8_length(rows["text"])).as_py()
    found = {name: micros for name in catalogue() if (micros := measured(name, rows, times)) is not None}
    about = f"the packaged sample, {mean:,.0f} characters a document on average"
    costs = {"about": about, "stages": {name: {"us_per_document": micros} for name, micros in sorted(found.items())}}
    COSTS.write_text(json.dumps(costs, indent=1) + "\n", encoding="utf-8")
    lines = [f"| `{name}` | {micros:,.1f} |" for name, micros in sorted(found.items(), key=lambda pair: -pair[1])]
    head = (
        f"`python benchmarks/stage_costs.py`. {machine()}. {rows.num_rows:,} rows: {about}. Default parameters, one core, CPU time."
    )
    text = ["## CPU time per document, by stage", "", head, "", "| stage | µs per document |", "|---|--:|", *lines]
    write_section("stage_costs", "\n".join(text))
    print(json.dumps({"stages_measured": len(found)}))


if __name__ == "__main__":
    main()
