"""Rows that wait for a language model, through the whole engine, against a real server on loopback."""

from __future__ import annotations

import threading
from collections import Counter
from typing import ClassVar

import pytest

pytest.importorskip("aiohttp")

STAGE = '''
import pyarrow as pa
from stages.contract import TEXT, AskParams, Params, ask_stage, map_stage
from stages.prompt import Message, Prompt, Refused, Request, Sampling

PROMPT = Prompt("own/say", 3, "test", ("text",), (Message("user", "Say: {{text}}"),), Sampling(max_tokens=20), {})

class Say(AskParams):
    rounds: int = 1

def parse(row, replies, params):
    if row["text"] == "poison":
        raise RuntimeError("no such row")
    if "refuse" in row["text"]:
        return Refused("refusal", "it would not")
    if "split" in row["text"]:
        return [{"text": "a"}, Refused("unfinished", "b"), {"text": "c"}]
    return [{"text": replies[-1].reply.text}] if replies else []

@ask_stage(version=1, reads={"text": TEXT}, writes={"text": TEXT}, parse=parse, prompts=lambda p: [PROMPT])
def say(row, so_far, params: Say):
    """Say it."""
    if len(so_far) >= params.rounds or row["text"] == "nothing":
        return None
    return [PROMPT.request({"text": row["text"] + "!" * len(so_far)})]

class None_(Params):
    longest: int = 1000

@map_stage(version=1, reads={"text": TEXT}, writes={"drop_reason": pa.string()})
def short(batch, params: None_):
    """Drop long answers."""
    return pa.table({"drop_reason": pa.array(["long" if len(t) > params.longest else None for t in batch["text"].to_pylist()], pa.string())})
'''
RECIPE = """
name: talk
steps:
  docs: {{uses: stages.ingest.jsonl.rows, with: {{paths: {docs}, keep: {{n: int64}}}}}}
  said: {{uses: talk_stage.say, from: docs, where: "n < 100", with: {{model: test-model{more}}}}}
  kept: {{uses: talk_stage.short, from: said, with: {{longest: {longest}}}}}
publish: {{talk: kept}}
run: {{models: {{test-model: {{engine: openai, endpoints: ["{url}"], in_flight: 4}}}}, max_error_rate: 0.5}}
"""


class Server:
    """How the model of a test is: it answers with the last message in capitals."""

    seen: ClassVar[Counter[str]] = Counter()
    broken = False
    gate = threading.Event()
    """Answers are held back until it is set."""


def capitals(text):
    Server.gate.wait(300)
    if Server.broken:
        raise PermissionError
    return text.upper()


@pytest.fixture
def server(play):
    Server.broken = False
    Server.gate.set()
    with play(capitals, usage=(7, 3)) as model:
        Server.seen = model.asked
        yield model.url
        Server.gate.set()


TEXTS = ["one", "please refuse", "split this", "poison", "nothing", "one", "left out"]


@pytest.fixture
def talk(engine, server, monkeypatch):
    monkeypatch.syspath_prepend(str(engine.folder))
    monkeypatch.chdir(engine.folder)
    import sys

    sys.modules.pop("talk_stage", None)
    engine.write("talk_stage.py", STAGE)
    engine.rows("docs.jsonl", [{"text": t, "n": 200 if t == "left out" else i} for i, t in enumerate(TEXTS)])

    def run(longest=1000, more=""):
        return engine.run(RECIPE.format(url=server, docs="docs.jsonl", longest=longest, more=more))

    return engine, run


def test_every_parent_is_accounted_for_and_refusals_are_rows_with_reasons(talk):
    engine, run = talk
    assert run().code == 0
    rows = engine.table("said")
    assert [(r["text"], r["drop_reason"]) for r in rows] == [
        ("SAY: ONE", None), (None, "refusal"), ("a", None), (None, "unfinished"), ("c", None), (None, "no_rows"), ("SAY: ONE", None),
    ]  # fmt: skip
    assert [r["id"].split("#")[1] for r in rows] == ["0", "0", "0", "1", "2", "0", "0"]
    assert all(r["parent_id"] == r["id"].split("#")[0] for r in rows)
    assert rows[0]["generator"] == {"model": "test-model", "prompt": "own/say", "version": 3}
    assert [r["prompt_tokens"] for r in rows] == [7, 7, 7, 0, 0, 0, 7]
    assert rows[1]["refusal"] == "it would not"
    counts = engine.head("said")["counts"]
    assert counts == {"in": 7, "standing": 3, "passed": 1, "quarantined": 1, "made": 4, "dropped": {"refusal": 1, "no_rows": 1}}
    assert Server.seen["Say: one"] == 1, "identical requests are sent once"


def test_another_threshold_behind_it_asks_nobody_again(talk):
    engine, run = talk
    assert run().code == 0
    asked = sum(Server.seen.values())
    assert run(longest=3).code == 0
    assert sum(Server.seen.values()) == asked
    assert engine.head("kept")["counts"]["dropped"] == {"long": 2}


def test_a_changed_prompt_asks_anew_and_what_was_asked_before_comes_from_the_ledger(talk):
    _, run = talk
    assert run().code == 0
    asked = sum(Server.seen.values())
    assert run(more=", rounds: 2").code == 0
    first_rounds = [n for text, n in Server.seen.items() if not text.endswith("!")]
    assert set(first_rounds) == {1}, "the first round was answered by the ledger"
    assert sum(Server.seen.values()) > asked


def test_a_store_made_from_the_ledger_alone_has_the_same_bytes(talk, engines, server, monkeypatch):
    engine, run = talk
    assert run().code == 0
    other = engines("replay")
    other.write("talk_stage.py", STAGE)
    other.write("docs.jsonl", (engine.folder / "docs.jsonl").read_bytes())
    monkeypatch.chdir(other.folder)
    asked = sum(Server.seen.values())
    recipe = RECIPE.format(url=server, docs="docs.jsonl", longest=1000, more="").replace(
        f'engine: openai, endpoints: ["{server}"], in_flight: 4', f"engine: replay, store: {engine.store.root}"
    )
    assert other.run(recipe).code == 0
    assert other.digests() == engine.digests()
    assert sum(Server.seen.values()) == asked


def test_a_wrong_key_commits_nothing_and_says_so_and_the_next_run_goes_on(talk):
    engine, run = talk
    Server.broken = True
    result = run()
    assert result.code == 1
    assert "401" in result.errors[0]
    assert "said" in result.errors[0]
    Server.broken = False
    assert run().code == 0
    assert len(engine.table("said")) == 7


def test_a_model_that_is_served_nowhere_is_refused_before_anything_runs(talk, server):
    from pipelines.recipe import RecipeError

    engine, _ = talk
    recipe = RECIPE.format(url=server, docs="docs.jsonl", longest=1, more="").replace(
        "with: {model: test-model", "with: {model: test-modl"
    )
    with pytest.raises(RecipeError, match=r"step 'said'.*test-modl.*test-model"):
        engine.plan(recipe)


def test_a_verdict_and_a_filter_behind_it_on_the_rows_of_an_ask(talk, server):
    engine, _ = talk
    recipe = """
    name: talk
    steps:
      docs: {{uses: stages.ingest.jsonl.rows, with: {{paths: docs.jsonl, keep: {{n: int64}}}}}}
      said: {{uses: talk_stage.say, from: docs, where: "n < 100", with: {{model: test-model}}}}
      kept: {{uses: talk_stage.short, from: said}}
      signatures: {{uses: stages.dedup.minhash.signatures, from: kept}}
      pairs: {{uses: stages.dedup.minhash.pairs, from: signatures, with: {{partitions: 2}}}}
      clusters: {{uses: stages.dedup.minhash.clusters, from: pairs}}
      twins: {{uses: stages.dedup.minhash.twins, from: [signatures, clusters], with: {{partitions: 2}}}}
      distinct: {{uses: stages.compact.keep, from: [kept, twins]}}
    run: {{models: {{test-model: {{engine: openai, endpoints: ["{url}"]}}}}, max_error_rate: 0.5}}
    """
    result = engine.run(recipe.format(url=server))
    assert result.code == 0, result.errors
    assert engine.head("twins")["counts"]["dropped"] == {"near_duplicate": 1}


def test_display_and_status_tell_how_requests_stand(talk, server, monkeypatch):
    from pipelines.display import Board
    from pipelines.session import Wish, carry_out, planned
    from pipelines.upkeep import status_lines, status_record

    engine, _ = talk
    monkeypatch.setattr("pipelines.watch.EVERY", 0.1)
    recipe = RECIPE.format(url=server, docs="docs.jsonl", longest=1000, more="")
    plan = planned(Wish(str(engine.write("recipe.yaml", recipe)), str(engine.store.root), workers=1))
    board, seen = Board(plan), {}

    def hear(event, executor):
        board.executor = executor
        if event["event"] == "asking" and event["models"] and event["models"][0]["in_flight"] == 4:
            board.watch()
            seen["board"] = [p.line() for p in board.asked]
            seen["status"] = status_lines(status_record(engine.store))
            Server.gate.set()

    Server.gate.clear()
    assert carry_out(plan, hear).code == 0
    line = "test-model: 4 in flight of 4, 0 waiting"
    assert seen["board"] == [line]
    assert f"  {line}" in seen["status"]
    assert not any("in flight" in text for text in status_lines(status_record(engine.store))), "the run is over"


def test_a_server_that_asks_for_patience_is_seen_to():
    from synthetic.pulse import Pulse, together

    one, two = Pulse("m", 3, 4, 8, 2, 1, 2.5), Pulse("m", 1, 8, 8, 0, 0, 4.0)
    assert together([two, Pulse("a", 0, 1, 1, 0, 0, 0.0), one]) == [
        Pulse("a", 0, 1, 1, 0, 0, 0.0), Pulse("m", 4, 12, 16, 2, 1, 2.5),
    ]  # fmt: skip
    assert one.line() == "m: 3 in flight of 4 (cut from 8), 2 waiting, slowed down 1 times, closed for 2 s"


def test_an_object_store_has_no_ledger_and_the_plan_says_so(engine, monkeypatch):
    """The rest of a store on S3 is held by the tests of `make test-far`; here its place only says that it is none of ours."""
    from manifests.place import Folder
    from manifests.store import Store
    from pipelines.plan import make_plan
    from pipelines.recipe import RecipeError

    engine.write("talk_stage.py", STAGE)
    docs = engine.rows("docs.jsonl", [{"text": "one", "n": 1}])
    recipe = RECIPE.format(docs=docs, more="", longest=9, url="http://127.0.0.1:9/v1")
    plan = engine.plan(recipe)
    monkeypatch.setattr(Folder, "local", False)
    monkeypatch.setattr(Store, "root", engine.folder)
    with pytest.raises(RecipeError, match=r"step 'said' asks a model.*--store FOLDER"):
        make_plan(plan.layout)
