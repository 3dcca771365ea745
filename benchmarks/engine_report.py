"""The engine's section of benchmarks/RESULTS.md."""

import os
import platform
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
BEGIN, END = "<!-- engine:begin -->", "<!-- engine:end -->"


def machine():
    model = next(
        (line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "?"
    )
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{model}, {len(os.sched_getaffinity(0))} cores, {ram:.0f} GiB, Python {platform.python_version()}; "
        f"load average {os.getloadavg()[0]:.1f} at the start"
    )


def table(found):
    """The measurements as rows of a table: what, how much, remarks."""
    plan, kept = found["plan"], found["memory"]
    low, high = found["overhead_spread"]
    rows = [
        (
            "CPU over a bare loop",
            f"**{found['engine_overhead']:.1%}**",
            f"median of {found['repeats']}, from {low:.1%} to {high:.1%}",
        ),
        (
            "the same",
            f"{found['us_per_row']} µs a row",
            f"{found['ms_per_unit']} ms a unit of {found['unit_mib']} MiB, {found['rows']:,} rows",
        ),
        ("CPU of driver and one worker", f"{found['engine_cpu_s']} s", f"{found['startup_engine_s']} s for the start are left out"),
        ("CPU of the bare loop", f"{found['bare_cpu_s']} s", f"{found['startup_bare_s']} s for the start are left out"),
    ]
    named = {"small": "small files", "sparse": "ranges of big files"}
    for kind, p in plan.items():
        listed = f"the second time {p['again_s']} s; listing takes {p['cold_s']} s, {p['warm_s']} s with known witnesses"
        rows.append((f"plan {p['units']:,} {named[kind]}", f"{p['plan_s']} s", listed))
    rows += [
        (f"run with nothing to do, {found['noop_shards']:,} shards", f"{found['noop_s']} s", "the whole command"),
        (
            "making these shards of one page",
            f"{found['first_run_s']} s",
            f"{found['first_run_cpu_ms_per_shard']} ms CPU a shard, all passes",
        ),
        ("`--help`", f"{found['help_s']} s", "the whole command"),
    ]
    for name, k in kept.items():
        size = f"{k['input_mib']} MiB{' in one unit' if 'unit' in name else ''}"
        rows.append(
            (
                f"peak memory, {size}",
                f"{k['peak_mb']} MB",
                f"the largest process {k['largest_mb']} MB; output shards: {k['shards']}",
            )
        )
    return [f"| {' | '.join(row)} |" for row in rows]


NOTES = """
Bare loop: WARC, resiliparse, language, Gopher quality, Parquet zstd-1 with fsync, survivors only. The engine besides
makes ids, keeps dropped rows with reason and origin, hashes what it writes and keeps a journal. Plans and the run with
nothing to do are of the packaged recipe `web`. Memory is the sum of resident sizes of all processes with two workers,
pages that they share counted in each."""


def report(found, where, quick):
    """Put the section between its markers."""
    head = f"## The engine\n\n`python benchmarks/engine.py{' --quick' if quick else ''}` on {where}.\n{NOTES}\n"
    section = "\n".join([BEGIN, head, "| what | measured | remarks |", "|---|---|---|", *table(found), END])
    text = RESULTS.read_text() if RESULTS.exists() else "# Measured; each section names its command and its machine\n"
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2].strip()
    RESULTS.write_text(before.rstrip() + "\n\n" + section + "\n" + (f"\n{after}\n" if after else ""))
