"""What many tests need: an engine that runs a recipe text, in this process or in workers."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import settings

from manifests.store import Store
from pipelines.executors.contract import Outcome, Wait
from pipelines.graph import build
from pipelines.perform import perform
from pipelines.plan import Plan, make_plan
from pipelines.program import Mark, Task, Work
from pipelines.recipe import load
from pipelines.run import Result, Run
from pipelines.targets import lay_out

# deterministic, and a busy machine is no failure
settings.register_profile("gristmill", deadline=None, derandomize=True)
settings.load_profile("gristmill")

ROOT = Path(__file__).parents[1]
SHARED = Path(__file__).parents[1] / ".." / "shared" / "data" / "dev"


class Inline:
    """An executor in this very process; `before` sees each task and may raise."""

    def __init__(self, before: Callable[[Task], None] | None = None) -> None:
        self.before = before
        self.tasks = 0

    def map(self, work: Mapping[str, Work], tasks: Iterator[Task | Wait]) -> Iterator[Outcome]:
        for task in tasks:
            if isinstance(task, Wait):
                pytest.fail("an inline executor never waits")
            if self.before is not None:
                self.before(task)
            self.tasks += 1
            marks: list[Mark] = []
            try:
                receipts = perform(work[task.program], task, marks.append)
            except Exception as error:
                yield Outcome(task, {}, error=f"{task.unit.name}: {type(error).__name__}: {error}")
            else:
                yield Outcome(task, receipts)

    def drain(self) -> None: ...

    def close(self) -> None: ...


class Engine:
    """Recipes as text, beside their inputs and stages, in one folder with one store."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, Store(folder / "store")
        self.last: Plan | None = None

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else textwrap.dedent(content).encode())
        return path

    def rows(self, name: str, rows: list[dict[str, Any]]) -> Path:
        return self.write(name, b"".join(orjson.dumps(row) + b"\n" for row in rows))

    def plan(self, recipe: str, settings: Mapping[str, str] | None = None, **options: Any) -> Plan:
        path = self.write("recipe.yaml", recipe) if "\n" in recipe else Path(recipe)
        loaded = load(path, settings)
        layout = lay_out(loaded, build(loaded), Store.open(self.store.root), **options)
        self.last = make_plan(layout)
        return self.last

    def run(self, recipe: str, settings: Mapping[str, str] | None = None, executor: Any = None, **options: Any) -> Result:
        plan = self.plan(recipe, settings, **options)
        events: list[dict[str, Any]] = []
        return Run(plan, executor or Inline(), events.append, plan.layout.recipe.run.max_error_rate).go()

    def head(self, step: str) -> dict[str, Any]:
        assert self.last is not None
        target, member = self.last.layout.holder[step]
        head = self.last.layout.object(target).head(self.last.layout.units[target.frame])
        return head | {"counts": head["members"][member]}

    def table(self, step: str) -> list[dict[str, Any]]:
        """All stored rows of the object that holds a step."""
        import pyarrow.parquet as pq

        assert self.last is not None
        target, _ = self.last.layout.holder[step]
        parts = [self.last.layout.object(target).part(u.key) for u in self.last.layout.frames[target.frame]]
        return [row for part in parts for row in pq.read_table(part).to_pylist()]

    def digests(self) -> dict[str, str]:
        """Every part in the store by its path: equal means byte-identical results."""
        found = {}
        for path in sorted((self.store.root / "objects").glob("*/parts/*")):
            found[str(path.relative_to(self.store.root))] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found


@pytest.fixture(autouse=True)
def _nothing_stays_imported() -> Iterator[None]:
    """Stages that a test wrote beside its recipe are not those of the next test, whatever their module is called."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    for name, module in list(sys.modules.items()):
        if "pytest-of-" in str(getattr(module, "__dict__", {}).get("__file__")):
            del sys.modules[name]


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(tmp_path)


@pytest.fixture(scope="session")
def engine_in() -> type[Engine]:
    """For fixtures that live longer than one test."""
    return Engine


@pytest.fixture
def engines(tmp_path: Path) -> Callable[[str], Engine]:
    def make(name: str) -> Engine:
        folder = tmp_path / name
        folder.mkdir()
        return Engine(folder)

    return make


@pytest.fixture
def shared() -> Path:
    if not SHARED.exists():
        pytest.skip("../shared is absent")
    return SHARED


@pytest.fixture
def inline() -> type[Inline]:
    return Inline


class Model(http.server.ThreadingHTTPServer):
    """Answers a chat with what its rule says to the last message; PermissionError in the rule is a 401.

    `usage` are the tokens (prompt, completion) that every answer tells of; None: as many as there are words.
    """

    def __init__(self, rule: Callable[[str], str], usage: tuple[int, int] | None) -> None:
        super().__init__(("127.0.0.1", 0), _Playing)
        self.rule, self.usage = rule, usage
        self.asked: Counter[str] = Counter()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """For `endpoints`."""
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Playing(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][-1]["content"]
        model = self.server
        assert isinstance(model, Model)
        with model.lock:
            model.asked[asked] += 1
        try:
            text = model.rule(asked)
        except PermissionError:
            self._send(401, b"")
            return
        prompt, completion = model.usage or (len(asked.split()), len(text.split()))
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop", "index": 0}
        usage = {"prompt_tokens": prompt, "completion_tokens": completion}
        self._send(200, json.dumps({"choices": [choice], "usage": usage}).encode())

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Silence."""


@contextmanager
def _played(rule: Callable[[str], str] = str, usage: tuple[int, int] | None = None) -> Iterator[Model]:
    """A server that is there inside the block; its rule can be set at any time."""
    model = Model(rule, usage)
    thread = threading.Thread(target=model.serve_forever, daemon=True)
    thread.start()
    try:
        yield model
    finally:
        model.shutdown()
        thread.join()
        model.server_close()


@pytest.fixture(scope="session")
def play() -> Callable[..., AbstractContextManager[Model]]:
    """`with play(rule) as model:` is a language model on loopback; `model.url` is its endpoint."""
    return _played


class Tmux:
    """A terminal of 100 columns that a test types into."""

    def __init__(self, words: str, folder: Path) -> None:
        self.words = ["tmux", "-L", f"gristmill-{os.getpid()}-{folder.name}", "-f", "/dev/null"]
        env = {**os.environ, "TERM": "xterm-256color", "XDG_STATE_HOME": str(folder), "PYTHONPATH": str(ROOT)}
        env |= {"COLUMNS": "80", "LINES": "24"}  # as some shells export them: the window's own size must win
        env.pop("NO_COLOR", None)
        command = f"{sys.executable} -m pipelines.cli {words}; echo ended with $?; sleep 60"
        subprocess.run([*self.words, "new-session", "-d", "-x", "100", "-y", "30", command], check=True, env=env, cwd=folder)

    def type(self, text: str) -> None:
        typed = text.removesuffix(";") + "\\;" if text.endswith(";") else text
        subprocess.run([*self.words, "send-keys", "-l", typed], check=True)

    def press(self, *keys: str) -> None:
        for key in keys:
            subprocess.run([*self.words, "send-keys", key], check=True)
            time.sleep(0.2)

    def resize(self, columns: int, rows: int) -> None:
        subprocess.run([*self.words, "resize-window", "-x", str(columns), "-y", str(rows)], check=True)

    def screen(self) -> str:
        return subprocess.run([*self.words, "capture-pane", "-p"], capture_output=True, text=True, check=False).stdout

    def until(self, text: str, seconds: float = 60) -> str:
        return self.match(re.escape(text), seconds)

    def match(self, pattern: str, seconds: float = 60) -> str:
        end = time.monotonic() + seconds
        while not re.search(pattern, shown := self.screen()):
            if time.monotonic() > end:
                pytest.fail(f"{pattern!r} did not come; the screen:\n{shown}")
            time.sleep(0.3)
        return shown

    def close(self) -> None:
        subprocess.run([*self.words, "kill-server"], check=False, capture_output=True)


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Callable[[str], Tmux]]:
    """A `gristmill` command in a real terminal."""
    if shutil.which("tmux") is None:
        pytest.skip("tmux is absent")
    opened: list[Tmux] = []

    def start(words: str) -> Tmux:
        opened.append(Tmux(words, tmp_path))
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.close()
