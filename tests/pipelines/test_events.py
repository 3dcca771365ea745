"""What a run tells of itself: its log in the store, status from elsewhere, and Prometheus."""

from __future__ import annotations

import threading
import urllib.request
from itertools import pairwise

import orjson
import pytest

from pipelines.events import read_events
from pipelines.metrics import Metrics
from pipelines.run import Run
from pipelines.session import Wish, carry_out, planned
from pipelines.upkeep import status_lines, status_record
from synthetic.pulse import Pulse

RECIPE = """
name: small
steps:
  lines: {uses: stages.ingest.jsonl.rows, with: {paths: "${here}/rows*.jsonl", columns: {id: id, text: text}}}
  short: {uses: stages.filters.length.by_words, from: lines, with: {min_words: 3}}
"""


@pytest.fixture
def wish(engine):
    for unit in range(3):
        engine.rows(f"rows{unit}.jsonl", [{"id": f"u{unit}r{i}", "text": "word " * i} for i in range(6)])
    return Wish(str(engine.write("recipe.yaml", RECIPE)), str(engine.store.root), workers=1)


def test_every_run_leaves_its_events_and_its_end(engine, wish):
    result = carry_out(planned(wish), lambda *_: None)
    assert result.code == 0
    (run,) = engine.store.runs()
    events = read_events(engine.store, run)
    assert events[0]["event"] == "start"
    assert {"host", "process", "recipe", "time"} <= set(events[0])
    assert [e["event"] for e in events].count("task") == 3
    assert sum(e["rows"] for e in events if e["event"] == "part") == 18
    assert events[-1] == {"time": events[-1]["time"], "event": "end", "code": 0}
    assert all(a["time"] <= b["time"] for a, b in pairwise(events))


def test_a_line_that_a_kill_tore_is_no_event(engine, wish):
    carry_out(planned(wish), lambda *_: None)
    (run,) = engine.store.runs()
    path = engine.store.root / "runs" / run / "events.jsonl"
    whole = read_events(engine.store, run)
    path.write_bytes(path.read_bytes() + b'{"event": "ta')
    assert read_events(engine.store, run) == whole


def test_status_tells_a_living_run_from_a_killed_one(engine, wish):
    seen = []

    def look(event, _):
        if event["event"] == "task" and not seen:
            seen.extend(status_record(engine.store)["runs"])

    carry_out(planned(wish), look)
    assert seen[0]["state"] == "running"
    assert seen[0]["by"].startswith("process ")
    assert seen[0]["tasks"] == 1
    (run,) = engine.store.runs()
    (engine.store.root / "runs" / run / "result.json").unlink()
    assert status_record(engine.store)["runs"][0]["state"] == "killed"
    assert any("killed, 3 tasks" in line for line in status_lines(status_record(engine.store)))


def scraped(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}


def test_prometheus_scrapes_a_run_while_it_lives(engine, wish, inline):
    before = threading.active_count()
    plan = planned(wish)
    halfway = []
    with Metrics(plan, 0) as metrics:

        def hear(event):
            metrics(event, executor)
            if event["event"] == "task" and not halfway:
                halfway.append(scraped(metrics.port))

        executor = inline()
        assert Run(plan, executor, hear, 0.0).go().code == 0
        metrics({"event": "asking", "models": [Pulse("qwen", 5, 8, 16, 3, 2, 0.0).as_event()]}, executor)
        end = scraped(metrics.port)
    (action,) = {a.name for a in plan.actions}
    done = f'gristmill_tasks_total{{action="{action}"}}'
    assert halfway[0][done] == 1
    assert end[done] == end['gristmill_tasks_planned{recipe="small"}'] == 3
    assert end['gristmill_rows_total{step="short"}'] == 18
    assert end[f'gristmill_task_seconds_count{{action="{action}"}}'] == 3
    asked = {name: end[f'gristmill_llm_{name}{{model="qwen"}}'] for name in ("in_flight", "limit", "queued", "slowed")}
    assert asked == {"in_flight": 5, "limit": 8, "queued": 3, "slowed": 2}
    assert threading.active_count() <= before, "the server ends with the run"


def test_events_are_json_lines(engine, wish):
    carry_out(planned(wish), lambda *_: None)
    (run,) = engine.store.runs()
    raw = engine.store.place.read_log(f"runs/{run}/events")
    assert all(isinstance(orjson.loads(line), dict) for line in raw.splitlines())
