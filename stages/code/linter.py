"""pylint in a warm process of its own: fast, restarted when a source crashes it, takes too long or has let it grow.

Measured with pylint 4.1: one process a file spends most of a second on starting and on reading the standard library again;
see `stages.code.lint_server` for what is kept and what is forgotten between two sources.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tokenize
import warnings
import weakref
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from stages.contract import Params

SWALLOW_CODE = ("E0401", "C0114", "C0301", "C0103", "C0116", "C0411", "R0903", "W0511", "C0412")
"""Messages that SwallowCode leaves out (Fujii et al. 2025, arXiv 2505.02881, appendix)."""
SERVER = Path(__file__).with_name("lint_server.py")
START_SECONDS = 120.0
"""A start takes about a second; a busy machine may need much longer, and that is no file's fault."""

PATIENCE = 8
"""Seconds on the clock for each CPU second of the limit: for a linter that waits, and for what no signal ends."""

Status = Literal["ok", "fatal", "timeout", "crash"]


class Pylint(Params):
    """How pylint is run."""

    disabled: tuple[str, ...] = Field(SWALLOW_CODE, description="Message ids that do not count; SwallowCode's.")
    seconds: float = Field(20.0, gt=0, description="CPU seconds for one file; then it is a timeout, however busy the machine is.")
    memory_mb: int = Field(2_000, ge=256, description="Address space of the linter; a file that needs more is a crash.")
    recycle_mb: int = Field(600, ge=32, description="The linter is started anew when it has grown beyond this.")


class Linted(NamedTuple):
    """What pylint says of one source."""

    status: Status
    messages: dict[str, int]
    statements: int

    @property
    def score(self) -> float | None:
        """Pylint's own note, 0 to 10: errors weigh five. None for a source without statements, or that pylint did not survive."""
        if self.status != "ok":
            return 0.0 if self.status == "fatal" else None
        if not self.statements:
            return None
        return max(0.0, 10.0 - 10.0 * (5 * self.count("E") + sum(map(self.count, "WRC"))) / self.statements)

    def count(self, category: str) -> int:
        """Messages of a category: F, E, W, R or C."""
        return sum(n for name, n in self.messages.items() if name[0] == category)


def comment_share(text: str) -> float:
    """Comment tokens among all tokens of Python's tokenizer; 0 where it fails, as in SwallowCode's code."""
    comments = total = 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for token in tokenize.generate_tokens(io.StringIO(text).readline):
                total += 1
                comments += token.type == tokenize.COMMENT
    except (tokenize.TokenError, SyntaxError, IndentationError):
        return 0.0
    return comments / total if total else 0.0


def penalised(linted: Linted, text: str) -> float | None:
    """SwallowCode's score: pylint's note times the share of tokens that are no comments."""
    return None if linted.score is None else linted.score * (1 - comment_share(text))


class Linter:
    """One warm pylint. Not for several threads at once."""

    def __init__(self, params: Pylint) -> None:
        self._params = params
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.mkdtemp(prefix="gristmill-lint-")
        self.starts = 0
        self._finalizer = weakref.finalize(self, _end, [], self._folder)

    def lint(self, text: str) -> Linted:
        """Messages of one Python source, whatever was linted before."""
        process = self._running()
        source = text.encode("utf-8", "replace")
        line = self._exchange(process, len(source).to_bytes(4, "big") + source)
        if line is None:
            status: Status = "timeout" if process.poll() in (None, -signal.SIGPROF) else "crash"
            self.close()
            return Linted(status, {}, 0)
        answer = json.loads(line)
        if answer["rss_mb"] > self._params.recycle_mb:
            self.close()
        return Linted("fatal" if answer["fatal"] else "ok", answer["messages"], answer["statements"])

    def close(self) -> None:
        """End the process; the next source starts another one."""
        if self._process is not None:
            _end([self._process], None)
            self._process = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            words = [
                sys.executable,
                "-P",
                "-s",
                str(SERVER),
                self._folder,
                str(self._params.memory_mb),
                str(self._params.seconds),
                ",".join(self._params.disabled),
            ]
            environment = {
                "PATH": os.environ.get("PATH", os.defpath),
                "PYTHONHASHSEED": "0",
                "PYLINTHOME": self._folder,
                "LC_ALL": "C.UTF-8",
            }
            self._process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
            )
            self.starts += 1
            self._finalizer.detach()
            self._finalizer = weakref.finalize(self, _end, [self._process], self._folder)
            if _line(self._process, time.monotonic() + START_SECONDS) is None:
                self.close()
                raise RuntimeError(f"pylint did not start: try {' '.join(words[:4])} (is the extra `code` installed?)")
        return self._process

    def _exchange(self, process: subprocess.Popen[bytes], request: bytes) -> bytes | None:
        """The line that answers a request; None when it does not come in time or the process dies."""
        assert process.stdin is not None
        try:
            process.stdin.write(request)
            process.stdin.flush()
        except BrokenPipeError:
            process.wait(5)
            return None
        return _line(process, time.monotonic() + PATIENCE * self._params.seconds)


def _line(process: subprocess.Popen[bytes], deadline: float) -> bytes | None:
    assert process.stdout is not None
    parts: list[bytes] = []
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([process.stdout], [], [], left)[0]:
            return None
        part = os.read(process.stdout.fileno(), 1 << 16)
        if not part:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            return None
        parts.append(part)
        if part.endswith(b"\n"):
            return b"".join(parts)
    return None


def _end(processes: list[Any], folder: str | None) -> None:
    for process in processes:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
