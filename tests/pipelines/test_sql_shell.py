"""The SQL shell's completion, and the shell itself in a real terminal."""

from __future__ import annotations

import pytest

from pipelines.sql_shell import Shell, completions

RECIPE = """
name: pages
steps:
  lines: {uses: stages.ingest.jsonl.rows, with: {paths: "${here}/rows.jsonl", columns: {id: id, text: text, url: url}}}
  kept:  {uses: stages.compact.keep, from: lines}
"""


@pytest.fixture
def store(engine):
    engine.rows("rows.jsonl", [{"id": f"r{i}", "text": f"text {i}", "url": f"https://a.example/{i}"} for i in range(7)])
    assert engine.run(RECIPE).code == 0
    return engine.store


def offered(store, before):
    talk = Shell(store, lambda _text: None)
    return [before[: len(before) + c.start_position] + c.text for c in completions(talk, before)]


def test_views_columns_words_and_commands_are_completed(store):
    assert "select id from pages.kept" in offered(store, "select id from pages.k")
    assert "select id from pages.kept_all" in offered(store, "select id from pages.k")
    assert "from quarantine" in offered(store, "from quar")
    assert offered(store, "from domai") == ["from domains('"]
    assert "from pages.kept where url" in offered(store, "from pages.kept where ur")
    assert offered(store, "sele") == ["select"]
    assert offered(store, ".tim") == [".timer on", ".timer off"]
    assert ".schema pages.lines" in offered(store, ".schema pages.l")
    assert not [w for w in offered(store, "from pages.kept where ur") if not w.endswith(("url",))]


def test_the_timer_is_switched(store):
    told: list[str] = []
    lines = iter([".timer off", "select 1 as one;", ".timer on", "select 2 as two;", ".quit"])
    Shell(store, told.append).talk(lambda _prompt: next(lines))
    assert told[1:3] == ["timer off", "one\n---\n  1"]
    assert told[3] == "timer on"
    assert told[-1].endswith(" s")


def test_the_shell_in_a_terminal_completes_and_goes_over_lines(store, tmux):
    terminal = tmux(f"sql --store {store.root}")
    terminal.until("grist>")
    terminal.type("select count(*) as n")
    terminal.press("Enter")
    terminal.type("from pages.ke")
    terminal.until("...>")
    terminal.press("Tab")
    terminal.until("pages.kept_all")
    terminal.press("C-c")
    terminal.until("grist>")
    terminal.type("select count(*) as many from pages.lines;")
    terminal.press("Enter")
    shown = terminal.until(" s\n").splitlines()
    assert shown[shown.index("many") + 2].strip() == "7"
    terminal.type("selec nothing;")
    terminal.press("Enter")
    terminal.until("LINE 1")
    terminal.press("Up", "Up")
    assert terminal.screen().count("as many from pages.lines;") == 2
    terminal.press("C-c")
    terminal.type(".quit")
    terminal.press("Enter")
    terminal.until("ended with 0")
