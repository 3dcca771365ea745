"""The pager without a terminal, and once in a real one."""

from __future__ import annotations

import orjson
import pytest

from manifests.catalog import Catalog
from pipelines.look import Documents
from pipelines.pager import HELP, Pager

RECIPE = """
name: pages
steps:
  lines: {uses: stages.ingest.jsonl.rows, with: {paths: "${here}/rows.jsonl", columns: {id: id, text: text, url: url}}}
  clean: {uses: stages.clean.unicode.repair, from: lines}
  long:  {uses: stages.filters.gopher.quality, from: clean, with: {min_words: 5, stop_words: {}}}
  kept:  {uses: stages.compact.keep, from: long}
"""
ROWS = [
    {
        "id": f"r{i}",
        "text": "too short"
        if i == 3
        else f"Document {i} talks of many other things\n" + "\n".join(f"another line number {n} of words" for n in range(40)),
        "url": f"https://a.example/{i}",
    }
    for i in range(8)
]


@pytest.fixture(scope="module")
def made(tmp_path_factory, engine_in):
    engine = engine_in(tmp_path_factory.mktemp("pager"))
    engine.rows("rows.jsonl", ROWS)
    assert engine.run(RECIPE).code == 0
    return engine.store


@pytest.fixture
def pager(made, tmp_path):
    """Opens a step; marks go to a file of this test."""

    def opened(step="kept", **more):
        documents = Documents(Catalog(made, recipes=["pages"]), step, **more)
        return Pager(documents, tmp_path / "marks.jsonl")

    return opened


def shown(opened, width=80, height=20):
    lines = opened.lines(width, height)
    assert len(lines) == height
    return "\n".join(text for _, text in lines)


def test_paging_scrolling_and_resizing(pager):
    opened = pager()
    assert shown(opened).startswith("pages.kept  1 of 7 standing")
    assert "Document 0 talks" in shown(opened)
    for key in ("n", "n", "down", "down"):
        opened.press(key)
    text = shown(opened)
    assert "3 of 7" in text
    assert "Document 2 talks" not in text
    assert "another line number 1 of words" in text
    opened.press("end")
    opened.press("n")
    assert "this is the last" in shown(opened)
    opened.press("home")
    opened.press("p")
    assert "this is the first" in shown(opened)
    opened.press("pagedown")
    assert "of 41" in shown(opened, 120, 12)
    assert shown(opened, 40, 60)


def test_search_goes_round_and_marks_the_hits(pager):
    opened = pager()
    for expected in ("6 of 7", "6 of 7"):
        opened.press("/")
        assert opened.asking == "/"
        opened.answer("document 6")
        assert expected in shown(opened)
    styles = {style for style, text in opened.lines(80, 20) if "Document 6" in text}
    assert styles == {"bg:ansiyellow fg:ansiblack"}
    opened.press("/")
    opened.answer("nowhere at all")
    assert "no document contains 'nowhere at all'" in shown(opened)


def test_a_filter_narrows_and_a_wrong_one_says_why(pager):
    opened = pager()
    opened.press("f")
    opened.answer("id in ('r1', 'r5')")
    assert "1 of 2 standing  filter: id in ('r1', 'r5')" in shown(opened)
    opened.press("n")
    assert "Document 5" in shown(opened)
    opened.press("f")
    opened.answer("ix = 3")
    assert 'column "ix" not found' in shown(opened, 120)
    opened.press("f")
    opened.answer("id = 'r99'")
    assert "nothing meets" in shown(opened)
    opened.press("f")
    opened.answer("")
    assert "1 of 7" in shown(opened)
    opened.press(":")
    opened.answer("4")
    assert "4 of 7" in shown(opened)


def test_marks_are_a_labelled_data_set_and_are_there_again(pager, tmp_path):
    opened = pager()
    opened.press("g")
    opened.press("x")
    assert "1 good, 1 bad" in shown(opened)
    opened.press("p")
    assert "[bad]" in shown(opened)
    rows = [orjson.loads(line) for line in (tmp_path / "marks.jsonl").read_bytes().splitlines()]
    assert [(r["id"], r["label"], r["step"]) for r in rows] == [("r0", 1, "kept"), ("r1", 0, "kept")]
    assert rows[0]["text"] == ROWS[0]["text"]
    again = pager()
    assert "[good]" in shown(again)
    again.press("u")
    assert "[good]" not in shown(again)
    assert len((tmp_path / "marks.jsonl").read_bytes().splitlines()) == 1


def test_dropped_documents_show_their_reason_and_their_text_from_the_source(pager):
    opened = pager("long", dropped=True)
    text = shown(opened)
    assert "1 of 1 dropped here" in text
    assert "dropped: too_few_words" in text
    assert "too short" in text
    opened.press("b")
    assert "the text is the same before and after" in shown(opened)
    assert HELP[:20] in shown(opened)


def test_the_pager_in_a_terminal(made, tmux, tmp_path):
    terminal = tmux(f"peek pages kept --pager --store {made.root} --marks {tmp_path / 'mine.jsonl'}")
    terminal.until("1 of 7 standing")
    terminal.press("n")
    terminal.until("2 of 7 standing")
    terminal.resize(60, 18)
    terminal.press("g")
    terminal.until("1 good, 0 bad")
    terminal.press("/")
    terminal.until("search:")
    terminal.type("document 7")
    terminal.press("Enter")
    terminal.until("Document 7 talks")
    terminal.press("q")
    terminal.until("ended with 0")
    assert orjson.loads((tmp_path / "mine.jsonl").read_bytes())["id"] == "r1"
