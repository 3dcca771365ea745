"""A warm pylint that lints one source after the other. Started as a program by `stages.code.linter`, never imported.

It says `ready` when it is. In: a length (four bytes, big endian) and so many bytes of UTF-8 source, again and again until the
input ends. Out: for each one a line of JSON: `messages` (symbol to count by message id), `statements`, `fatal`, `rss_mb`.

What makes it fast: pylint is loaded once, and astroid keeps the syntax trees of the standard library that sources import. What
keeps it honest: all that belongs to the last source is forgotten before the next (its module, inference results, statistics).
Only the standard library can be imported by what is linted, so that a score never depends on what happens to be installed.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import sys
import sysconfig
from collections import Counter
from pathlib import Path
from typing import Any

NAME = "snippet.py"
"""Every source is linted under this name, in a folder of its own."""


def standard_library_only() -> None:
    """Load what pylint loads late and take everything but the standard library off the path."""
    import isort
    import isort.api
    import isort.place  # noqa: F401 - pylint imports it at the first module with imports

    library = sysconfig.get_path("stdlib")
    sys.path[:] = [path for path in sys.path if path.endswith(".zip") or (path.startswith(library) and "-packages" not in path)]


def opened(disabled: list[str]) -> Any:
    """A linter with pylint's default checkers but for some messages; no configuration file is read."""
    from pylint.lint import PyLinter
    from pylint.reporters import CollectingReporter

    linter = PyLinter(reporter=CollectingReporter())
    linter.load_default_plugins()
    for message in disabled:
        linter.disable(message)
    return linter


def lint(linter: Any, source: bytes) -> dict[str, Any]:
    """Messages of one source, without a trace of the one before."""
    from astroid.context import _invalidate_cache
    from astroid.manager import AstroidManager
    from pylint.utils import LinterStats

    Path(NAME).write_bytes(source)
    linter.stats = LinterStats()
    linter.reporter.messages = []
    linter.open()
    linter.check([NAME])
    if any(message.msg.startswith("Parsing failed: ''") for message in linter.reporter.messages):
        # A MemoryError, which has no words: pylint calls it a syntax error of the source, but it is the limit of this process.
        os._exit(1)
    counts = Counter(message.msg_id for message in linter.reporter.messages)
    AstroidManager().astroid_cache.pop(Path(NAME).stem, None)
    _invalidate_cache()
    return {"messages": dict(sorted(counts.items())), "statements": linter.stats.statement, "fatal": linter.stats.fatal > 0}


def rss_mb() -> int:
    """Memory of this process in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20


def serve(folder: str, memory_mb: int, seconds: float, disabled: list[str]) -> None:
    """Answer until the input ends, or until a source has taken its CPU seconds: the kernel then ends this process by SIGPROF."""
    # What pylint prints of its own crashes must not stand among the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    os.chdir(folder)
    linter = opened(disabled)
    standard_library_only()
    lint(linter, b'"""Warm."""\nimport collections\nimport os\nimport re\nimport sys\nimport typing\n\nprint(os, re, sys)\n')
    # Trees of the standard library stay: the collector need not look at them again and again (a third of the time).
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    answers.write("ready\n")
    answers.flush()
    while len(head := sys.stdin.buffer.read(4)) == 4:
        source = sys.stdin.buffer.read(int.from_bytes(head, "big"))
        signal.setitimer(signal.ITIMER_PROF, seconds)
        answer = lint(linter, source)
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(json.dumps(answer | {"rss_mb": rss_mb()}) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4].split(",") if sys.argv[4] else [])
