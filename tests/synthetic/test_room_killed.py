"""kill -9 in the middle of asking, again and again: what was answered is never asked again."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import orjson

from stages.contract import AskParams
from stages.prompt import Message, Request, Sampling
from synthetic.request import wanted

IN_FLIGHT = 16
ROWS = 600
CLIENT = """
import sys
import pyarrow as pa
from stages.contract import AskParams, ask_stage
from stages.prompt import Message, Request, Sampling
from synthetic.room import Room, check_served

def parse(row, replies, params: AskParams):
    return [{"text": replies[0].reply.text}]

@ask_stage(version=1, reads={"text": pa.string()}, writes={"text": pa.string()}, parse=parse, prompts=lambda params: ())
def echo(row, so_far, params: AskParams):
    return None if so_far else [Request((Message("user", row["text"]),), Sampling(max_tokens=50))]

url, store, rows, in_flight = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
entry = {"engine": "openai", "endpoints": [url], "in_flight": in_flight, "patience_s": 20} if url != "replay" else {"engine": "replay"}
params = AskParams(model="test-model")
room = Room.open(params, check_served("test-model", {"test-model": entry}), store, 1)
for outcome in room.ask(echo, params, ({"text": f"row {i}"} for i in range(rows))):
    print(outcome.at, outcome.rows[0]["text"], outcome.completion_tokens, flush=True)
"""


def client(url: str, store: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CLIENT, url, str(store), str(ROWS), str(IN_FLIGHT)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


def ledger(store: Path) -> Counter[str]:
    """Keys of all whole lines, and nothing else."""
    lines = [line for path in store.glob("ledger/*/answers/*.jsonl") for line in path.read_bytes().split(b"\n")[:-1]]
    return Counter(orjson.loads(line)["key"] for line in lines)


def test_killed_again_and_again(serve, tmp_path):
    keys = {
        f"row {i}": wanted(Request((Message("user", f"row {i}"),), Sampling(max_tokens=50)), AskParams(model="test-model")).key
        for i in range(ROWS)
    }
    server = serve(delay=0.02, faults={"429": 0.02, "500": 0.02, "closed": 0.02}, seed=3)
    kills = 0
    for goal in (0.2, 0.4, 0.6, 0.8):
        came = len(server.forms)
        known = set(ledger(tmp_path))
        process = client(server.url, tmp_path)
        while len(server.answered) < goal * ROWS and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        asked = {keys[form["messages"][0]["content"]] for form in server.forms[came:]}
        assert not asked & known, "what has an entry is never sent again"
    assert kills >= 3
    known = set(ledger(tmp_path))
    came = len(server.forms)
    process = client(server.url, tmp_path)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert not {keys[form["messages"][0]["content"]] for form in server.forms[came:]} & known
    assert out.splitlines() == [f"{i} answer to row {i} 4" for i in range(ROWS)]
    assert ledger(tmp_path) == Counter(keys.values())
    assert server.answered.total() - ROWS <= kills * IN_FLIGHT, "at most what was in the air is paid twice"
    replayed, _ = client("replay", tmp_path).communicate(timeout=120)
    assert replayed == out
