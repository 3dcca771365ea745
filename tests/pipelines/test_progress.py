"""The live display: what it says at any size, and that it survives a resize in a real terminal."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from pipelines.display import Board, clock
from pipelines.program import Mark
from pipelines.progress import Progress
from synthetic.pulse import Pulse

RECIPE = """
name: pages
steps:
  lines: {uses: stages.ingest.jsonl.rows, with: {paths: "${here}/rows*.jsonl", columns: {id: id, text: text}}}
  clean: {uses: stages.clean.unicode.repair, from: lines}
  twins: {uses: stages.dedup.exact.documents, from: clean, with: {partitions: 2}}
  kept:  {uses: stages.compact.keep, from: [clean, twins]}
"""
SLOW = """
import os, time
import pyarrow as pa
from stages.contract import TEXT, Params, map_stage

class Gate(Params):
    gate: str = ""

@map_stage(version=1, reads={"text": TEXT}, writes={"slow": pa.bool_()})
def slowly(batch, params: Gate):
    time.sleep(0.1)
    while batch["text"][0].as_py().startswith("part 8 ") and not os.path.exists(params.gate):
        time.sleep(0.1)
    return pa.table({"slow": pa.array([True] * batch.num_rows)})
"""


@pytest.fixture
def plan(engine):
    for part in range(6):
        engine.rows(f"rows{part}.jsonl", [{"id": f"r{part}-{i}", "text": f"text {i}"} for i in range(3)])
    return engine.plan(RECIPE)


def drawn(board, width, height):
    from rich.console import Console

    out = io.StringIO()
    console = Console(file=out, width=width, height=height, force_terminal=False)
    console.print(board, height=height)
    lines = out.getvalue().rstrip("\n").split("\n")
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    return "\n".join(lines)


def test_the_board_counts_tasks_rows_drops_and_tokens(plan):
    board = Board(plan)
    assert "pages  0/" in drawn(board, 100, 20)
    assert "ETA -" in drawn(board, 100, 20)
    first = plan.actions[0].name
    for _ in range(2):
        board.hear({"event": "task", "action": first, "rows": 1500, "dropped": 70, "tokens": 9000})
    board.hear({"event": "failed", "action": first, "error": "x"})
    text = drawn(board, 100, 20)
    assert f"2/{plan.tasks} shards  3,000 rows" in text
    assert "18,000 tokens" in text
    assert "2/6 (1 failed)" in text
    assert "140" in text
    board.hear({"event": "done", "action": first})
    assert "done" in drawn(board, 100, 20)


def test_slow_shards_are_named_and_every_size_is_kept_to(plan):
    board = Board(plan)
    mark = Mark("clean", 0, 0, 60.0, Pulse("qwen", 5, 8, 16, 3, 2, 0.0))
    board.executor = SimpleNamespace(at_work=lambda: [("rows0.jsonl", mark, 65.0), ("rows1.jsonl", None, 2.0)])
    board.messages.append("failed: a very long message " * 10)
    for width, height in ((100, 20), (40, 10), (24, 8), (200, 60)):
        text = drawn(board, width, height)
        assert "slow: rows0.jsonl" in text
        assert "2 at work" in text or width < 60
        assert "qwen: 5 in flight of" in text
    assert "in clean for 1:05" in drawn(board, 100, 20)


def test_without_a_terminal_there_are_plain_lines(plan):
    out = io.StringIO()
    progress = Progress(plan, out)
    progress.begin()
    for action in plan.actions:
        for _ in action.tasks:
            progress({"event": "task", "action": action.name, "rows": 10}, None)
    progress({"event": "failed", "action": plan.actions[0].name, "error": "rows0.jsonl: gone"}, None)
    progress.end()
    lines = out.getvalue().splitlines()
    assert lines[0].startswith(f"1/{plan.tasks} tasks, 10 rows")
    assert lines[-1] == "failed: rows0.jsonl: gone"
    assert "\x1b" not in out.getvalue()
    assert (clock(59.9), clock(61), clock(3723)) == ("0:59", "1:01", "1:02:03")


@pytest.mark.terminal
def test_a_running_display_survives_a_resize_and_status_sees_the_run(engine, tmux):
    engine.write("slowshop.py", SLOW)
    for part in range(12):
        engine.rows(f"rows{part:02}.jsonl", [{"id": f"r{part}-{i}", "text": f"part {part} text {i}"} for i in range(3)])
    recipe = RECIPE.replace("from: clean, with", "from: slow, with").replace("[clean, twins]", "[slow, twins]")
    slow = f"  slow:  {{uses: slowshop.slowly, from: clean, with: {{gate: '{engine.folder}/gate'}}}}\n  twins:"
    path = engine.write("recipe.yaml", recipe.replace("  twins:", slow))
    terminal = tmux(f"run {path} --store {engine.store.root} --workers 1")
    terminal.until("so far, ETA")
    terminal.until("at work; Ctrl-C")
    terminal.match(r"\b8/12")  # the ninth waits for the gate: what follows is looked at while the run lives
    terminal.resize(60, 14)
    shown = terminal.match(r"(?s)so far, ETA[^\n]*…\n.*\b8/12")  # shortened: it was drawn for 60 columns
    assert shown.count("so far, ETA") == 1
    from pipelines.upkeep import status_lines, status_record

    assert any("running" in line for line in status_lines(status_record(engine.store)))
    terminal.resize(110, 30)
    terminal.match(r"(?s)so far, ETA[^\n]* at work\n.*\b8/12")
    (engine.folder / "gate").touch()
    shown = terminal.until("ended with 0", 120)
    assert "so far, ETA" not in shown
    assert "done in" in shown
