"""From rows to outcomes: order, joining, the ledger, and every way in which a server can fail."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from aiohttp import web

from stages.contract import AskParams, ask_stage
from stages.prompt import Message, Request, Sampling
from synthetic import desk
from synthetic.asking import Deferred
from synthetic.engines.protocol import retry_after
from synthetic.ledger import Ledger

FAST = {"engine": "openai", "try_s": 30.0, "patience_s": 20.0}


def texts(n: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"id": str(i), "text": f"row {i}"} for i in range(start, start + n)]


def answers_of(outcomes: Any) -> list[str]:
    return [o.rows[0]["text"] for o in outcomes]


def ledger_keys(store: Path) -> Counter[str]:
    lines = [line for path in store.glob("ledger/*/answers/*.jsonl") for line in path.read_bytes().splitlines()]
    return Counter(orjson.loads(line)["key"] for line in lines)


def test_order_joining_and_a_second_run_for_nothing(serve, open_room, stage, tmp_path):
    ask, params = stage
    server = serve(delay=0.01)
    room = open_room(params(), endpoints=[server.url], in_flight=8, **FAST)
    rows = texts(40) + texts(40)
    told: list[tuple[int, Any]] = []
    outcomes = list(room.ask(ask, params(), iter(rows), lambda *what: told.append(what)))
    assert [o.at for o in outcomes] == list(range(80))
    assert answers_of(outcomes) == [f"answer to {row['text']}" for row in rows]
    assert len(server.answered) == 40
    assert set(server.answered.values()) == {1}
    assert server.peak <= 8
    assert told[-1][0] == 80
    assert {(pulse.model, pulse.limit, pulse.ceiling) for _, pulse in told} == {("test-model", 8, 8)}
    assert all(pulse.in_flight <= 8 for _, pulse in told)
    counts = room.counts()
    assert counts["sent"] == 40
    assert counts.get("joined", 0) + counts.get("from_ledger", 0) == 40
    assert all(o.prompt_tokens > 0 and o.completion_tokens == 4 for o in outcomes)
    room.close()
    again = open_room(params(), endpoints=["http://127.0.0.1:9/v1"], in_flight=8, **FAST)
    assert list(again.ask(ask, params(), iter(rows))) == outcomes
    assert again.counts() == {"from_ledger": 80}
    assert set(ledger_keys(tmp_path / "store").values()) == {1}


def test_a_server_that_is_overloaded_cuts_the_limit_and_is_told_of(serve, open_room, stage):
    ask, params = stage
    left = [web.json_response({"error": {"message": "too many"}}, status=429, headers={"Retry-After": "0.02"}) for _ in range(3)]
    server = serve(respond=lambda form: left.pop() if left else None)
    room = open_room(params(), endpoints=[server.url], in_flight=8, **FAST)
    assert len(list(room.ask(ask, params(), iter(texts(4))))) == 4
    pulse = room.pulse()
    assert (pulse.slowed, pulse.ceiling) == (3, 8)
    assert pulse.limit < 8


def test_every_fault_in_random_order_loses_and_doubles_nothing(serve, open_room, stage, tmp_path):
    ask, params = stage
    shares = {"429": 0.08, "503": 0.04, "500": 0.06, "html": 0.04, "cut_json": 0.04, "no_choices": 0.04, "half": 0.04,
              "closed": 0.04, "silence": 0.01}  # fmt: skip
    server = serve(faults=shares, seed=11)
    room = open_room(params(), endpoints=[server.url], in_flight=32, tries=12, engine="openai", try_s=3.0, patience_s=60.0)
    rows = texts(400)
    outcomes = list(room.ask(ask, params(), iter(rows)))
    assert [o.at for o in outcomes] == list(range(400))
    assert answers_of(outcomes) == [f"answer to {row['text']}" for row in rows]
    assert set(server.failed) == set(shares)
    assert set(ledger_keys(tmp_path / "store").values()) == {1}
    assert ledger_keys(tmp_path / "store").total() == len(server.answered) == 400
    counts = room.counts()
    assert counts["sent"] == 400 + counts["retried"]
    assert counts["retried"] == sum(n for name, n in counts.items() if name.startswith("failed_"))
    # On a machine that stands still for three seconds an answer comes too late and is asked for again: nothing else doubles.
    late = counts["failed_timeout"] - server.failed["silence"]
    assert 0 <= server.answered.total() - 400 <= late
    assert abs(counts["failed_busy"] - server.failed["429"] - server.failed["503"]) <= late
    assert abs(counts["failed_server"] - server.failed["500"]) <= late
    assert abs(counts["failed_garbled"] - sum(server.failed[f] for f in ("html", "cut_json", "no_choices"))) <= late


def test_refusals_and_faults_of_the_author_are_outcomes(serve, open_room, stage):
    ask, params = stage
    server = serve()
    room = open_room(params(), endpoints=[server.url], **FAST)
    rows = [{"id": str(i), "text": t} for i, t in enumerate(["good", "refuse me", "fail here", "mute", "\ud800", "last"])]
    found = list(room.ask(ask, params(), iter(rows)))
    assert [o.at for o in found] == list(range(6))
    assert found[0].rows[0]["text"] == "answer to good"
    assert found[1].refused.reason == "told_to"
    assert found[1].completion_tokens == 4
    assert found[2].error == ("ValueError", "fail here")
    assert found[3].error == ("KeyError", "'mute'")
    assert found[4].error[0] in ("TypeError", "UnicodeEncodeError", "JSONEncodeError")
    assert found[5].rows[0]["text"] == "answer to last"


def test_a_conversation_goes_on_until_the_prompt_says_no(serve, open_room, stage):
    ask, params = stage
    server = serve()
    room = open_room(params(), endpoints=[server.url], **FAST)
    (three,) = room.ask(ask, params(rounds=3), iter(texts(1)))
    assert three.rows[0]["text"] == "answer to answer to answer to row 0"
    assert three.completion_tokens == 4 + 6 + 8
    (endless,) = room.ask(ask, params(rounds=99), iter(texts(1)))
    assert endless.refused.reason == "too_many_rounds"
    assert room.counts()["sent"] == 5


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (401, {"error": {"message": "bad key"}}, ["401", "bad key", "run.models.test-model.key"]),
        (404, {"error": {"message": "no such model"}}, ["does not have the model 'test-model'", "did you mean 'test-mode1'", "served_as"]),
        (429, {"error": {"message": "pay", "code": "insufficient_quota"}}, ["account has nothing left"]),
    ],
)  # fmt: skip
def test_what_no_repetition_helps_ends_the_task_with_one_message(serve, open_room, stage, status, body, says):
    ask, params = stage
    server = serve(respond=lambda form: web.json_response(body, status=status), models=["test-mode1", "other"])
    room = open_room(params(), endpoints=[server.url], **FAST)
    with pytest.raises(Deferred) as caught:
        list(room.ask(ask, params(), iter(texts(50))))
    assert all(part in str(caught.value) for part in says), caught.value
    assert room.counts()["sent"] <= 64


def test_a_server_that_is_gone_defers_and_the_next_run_goes_on(serve, open_room, stage, tmp_path):
    ask, params = stage
    server = serve()
    room = open_room(params(), endpoints=[server.url], in_flight=4, engine="openai", patience_s=0.5)
    stream = room.ask(ask, params(), iter(texts(200)))
    first = [next(stream) for _ in range(10)]
    server.close()
    with pytest.raises(Deferred, match="see that the server runs"):
        list(stream)
    server.__post_init__()
    had = ledger_keys(tmp_path / "store").total()
    assert 10 <= had < 200
    other = open_room(params(), endpoints=[server.url], in_flight=4, **FAST)
    everything = list(other.ask(ask, params(), iter(texts(200))))
    assert everything[:10] == first
    assert other.counts()["sent"] == 200 - had
    assert set(server.answered.values()) == {1}


def test_a_rejected_request_costs_its_own_row_only(serve, open_room, stage, tmp_path):
    ask, params = stage

    def respond(form: Any) -> web.Response | None:
        if "row 3" in form["messages"][-1]["content"]:
            return web.json_response({"error": {"message": "maximum context length is 8 tokens"}}, status=400)
        return None

    server = serve(respond=respond)
    room = open_room(params(), endpoints=[server.url], **FAST)
    found = list(room.ask(ask, params(), iter(texts(6))))
    assert [o.error is None for o in found] == [True, True, True, False, True, True]
    kind, message = found[3].error
    assert kind == "Rejected"
    assert "maximum context length is 8 tokens" in message
    assert "cut smaller" in message
    room.close()
    replay = open_room(params(), engine="replay")
    assert list(replay.ask(ask, params(), iter(texts(6)))) == found
    with pytest.raises(Deferred, match=r"has no answer to request \w{12} \(test-model: 'row 6'\)"):
        list(replay.ask(ask, params(), iter(texts(1, 6))))
    copy = open_room(params(), root=tmp_path / "second", engine="replay", store=str(tmp_path / "store"))
    assert list(copy.ask(ask, params(), iter(texts(6)))) == found
    assert ledger_keys(tmp_path / "second") == ledger_keys(tmp_path / "store")


def test_a_request_that_breaks_a_healthy_server_costs_its_own_row_only(serve, open_room, stage, monkeypatch):
    monkeypatch.setattr(desk, "HEALTHY", 3)
    ask, params = stage
    server = serve(
        respond=lambda form: web.Response(status=500, text="boom") if form["messages"][-1]["content"] == "row 0" else None,
        delay=0.01,
    )
    room = open_room(params(), endpoints=[server.url], in_flight=4, tries=4, engine="openai")
    found = list(room.ask(ask, params(), iter(texts(100))))
    assert found[0].error is not None
    assert "4 tries, while other requests were answered" in found[0].error[1]
    assert sum(o.error is None for o in found) == 99


def test_a_server_that_breaks_on_everything_defers(serve, open_room, stage):
    ask, params = stage
    server = serve(faults={"500": 1.0})
    room = open_room(params(), endpoints=[server.url], in_flight=4, tries=3, engine="openai")
    with pytest.raises(Deferred, match=r"HTTP 500.*3 tries"):
        list(room.ask(ask, params(), iter(texts(10))))


def test_the_budget_is_kept_and_lasts(serve, open_room, stage, tmp_path):
    ask, params = stage
    server = serve(delay=0.002)
    room = open_room(params(), endpoints=[server.url], budget_tokens=3000, **FAST)
    with pytest.raises(Deferred, match=r"budget of run\.models\.test-model is spent: .* of 3,000 tokens") as caught:
        list(room.ask(ask, params(), iter(texts(1000))))
    assert "raise it and run again" in str(caught.value)
    assert 2500 < server.tokens <= 3000
    spent = server.tokens
    assert sum(Ledger.open(tmp_path / "store", "test-model").spent) == spent
    room.close()
    more = open_room(params(), endpoints=[server.url], budget_cost=0.01, price_prompt=2.0, price_completion=8.0, **FAST)
    with pytest.raises(Deferred, match=r"of 0\.0100 in cost"):
        list(more.ask(ask, params(), iter(texts(1000))))
    prompt, completion = Ledger.open(tmp_path / "store", "test-model").spent
    assert sum((prompt, completion)) == server.tokens > spent
    assert 0.008 < (prompt * 2 + completion * 8) / 1e6 <= 0.01


def test_weights_share_requests_between_endpoints(serve, open_room, stage):
    ask, params = stage
    small, large = serve(delay=0.02), serve(delay=0.02)
    places = [{"url": small.url, "weight": 1}, {"url": large.url, "weight": 3}]
    room = open_room(params(), endpoints=places, in_flight=16, **FAST)
    assert len(list(room.ask(ask, params(), iter(texts(320))))) == 320
    assert small.peak <= 4
    assert large.peak <= 12
    assert 2 < large.answered.total() / small.answered.total() < 4


def test_workers_share_the_limit_and_never_ask_twice(serve, open_room, stage):
    ask, params = stage
    server = serve(delay=0.02)
    rooms = [open_room(params(), share=2, endpoints=[server.url], in_flight=16, **FAST) for _ in range(2)]
    rows, found = texts(100), [[], []]

    def work(i: int) -> None:
        found[i] = list(rooms[i].ask(ask, params(), iter(rows)))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1]
    assert len(found[0]) == 100
    assert server.peak <= 16
    assert set(server.answered.values()) == {1}
    assert sum(room.counts()["sent"] for room in rooms) == 100


def test_look_ahead_is_bounded_and_a_slow_row_holds_nobody_up(serve, open_room, stage):
    ask, params = stage
    taken = 0

    def rows() -> Any:
        nonlocal taken
        for row in texts(10_000):
            taken += 1
            yield row

    server = serve()
    room = open_room(params(), endpoints=[server.url], in_flight=4, **FAST)
    stream = room.ask(ask, params(), rows())
    next(stream)
    assert taken <= 4 * 16 + 2
    stream.close()
    assert server.answered.total() < 200


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("3", 3.0), ("0.5", 0.5), ("-2", 0.0), ("Sun, 06 Nov 1994 08:49:37 GMT", 37.0), ("soon", None), (None, None), ("", None)],
)
def test_retry_after_is_seconds_or_a_date(value, seconds):
    assert retry_after(value, 784111740.0) == seconds


def test_forms_carry_schema_stop_and_seed(serve, open_room):
    schema = {"type": "object", "properties": {"score": {"type": "integer"}}}

    def score(row: Any, replies: Any, params: AskParams) -> Any:
        return [{"text": r.reply.text} for r in replies]

    @ask_stage(version=1, reads={}, writes={"text": pa.string()}, parse=score, prompts=lambda params: ())
    def scored(row: Any, so_far: Any, params: AskParams) -> Any:
        say = (Message("system", "be brief"), Message("user", row["text"]))
        return None if so_far else [Request(say, Sampling(9, 0.5, 0.9, seed, ("END",)), schema) for seed in (0, 1, None)]

    server = serve()
    params = AskParams(model="test-model", seed=2)
    room = open_room(params, endpoints=[server.url], served_as="name on the server", limit_field="max_completion_tokens", **FAST)
    (found,) = room.ask(scored, params, iter(texts(1)))
    assert len(found.rows) == 3
    forms = sorted(server.forms, key=lambda f: f.get("seed", -1))
    assert [f.get("seed") for f in forms] == [None, 2 * 65536, 2 * 65536 + 1]
    assert all(f["max_completion_tokens"] == 9 and "max_tokens" not in f and f["stop"] == ["END"] for f in forms)
    assert all(f["response_format"]["json_schema"]["schema"] == schema for f in forms)
    assert forms[0]["model"] == "name on the server"
    text = AskParams(model="test-model", api="completions")
    room = open_room(text, endpoints=[server.url], json_schema=False, **FAST)
    list(room.ask(scored, text, iter(texts(1))))
    assert server.forms[-1]["prompt"] == "be brief\n\nrow 0"
    assert "response_format" not in server.forms[-1]
