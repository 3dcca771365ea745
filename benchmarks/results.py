"""benchmarks/RESULTS.md: one section per benchmark, between markers; and what machine it was."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
HEADER = "# Results\n\nEach section is written by the benchmark of its name; run that to make it anew.\n"


def machine() -> str:
    """CPU model, cores, memory and date; machines are shared, so ratios within one run are what counts."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    cpu = " ".join(found.group(1).split()) if found else "unknown CPU"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = os.getloadavg()[0]
    cores = len(os.sched_getaffinity(0))
    return f"{cpu}, {cores} cores, {memory:.0f} GiB, shared (load {load:.1f} at the end), {time.strftime('%Y-%m-%d')}"


def write_section(name: str, text: str) -> None:
    """Replace the section of this name, or add it at the end."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else HEADER
    section = f"{begin}\n{text.strip()}\n{end}"
    if begin in before:
        after = re.sub(re.escape(begin) + r".*?" + re.escape(end), lambda _: section, before, flags=re.DOTALL)
    else:
        after = before.rstrip() + f"\n\n{section}\n"
    RESULTS.write_text(after, encoding="utf-8")
