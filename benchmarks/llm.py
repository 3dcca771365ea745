"""Asking a model: how near a server's own throughput, at what cost, in what memory, and what faults do.

    .venv/bin/python benchmarks/llm.py [--quick] [--part limit|cost|faults|memory|vllm]

Side by side on the same rows: our room (ledger, order, retries, claims), a bare aiohttp loop that keeps nothing, and the
OpenAI SDK (3.54.0, in an environment that the script makes). The server of fixed latency runs in a process of its own on
the same cores. vLLM is compared where `.venv-vllm` is there (make test-vllm makes it): plain `LLM.chat` against the same
engine behind a room. The report goes between its markers in benchmarks/RESULTS.md; the last line printed is JSON. Every part is
kept in .cache/bench/llm.json with its hour and load, so that each can be measured when the machine is quiet.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from model_server import serving, stats
from results import machine, write_section

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "bench"
PEER = CACHE / "peer-openai-3.54.0"
VLLM = ROOT / ".venv-vllm" / "bin" / "python"
IN_FLIGHT, LATENCY = 64, 0.5
FAULTS = 0.3
CLIENTS = ("ours", "aiohttp", "openai")

Part = tuple[list[str], dict[str, Any]]
"""Lines of the report, and headline keys."""


def peer() -> Path:
    """The python of an environment with the SDK; made on the first run."""
    python = PEER / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", PEER], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "openai==3.54.0"], check=True)
    return python


def client(name: str, url: str, rows: int, store: str) -> dict[str, Any]:
    """One client in a process of its own."""
    python = peer() if name == "openai" else Path(sys.executable)
    script, place = ROOT / "benchmarks" / "llm_client.py", f"{store}/{name}-{os.urandom(4).hex()}"
    command = [python, script, name, url, str(rows), str(IN_FLIGHT), place]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def fixed_latency(quick: bool, store: str) -> Part:
    """Share of what the server can give (in flight / latency), by client; ours is the headline."""
    lines, ours = ["| client | requests/s | of the server's limit | mean in flight |", "|---|---|---|---|"], 0.0
    limit = IN_FLIGHT / LATENCY
    for name in CLIENTS:
        with serving(LATENCY) as url:
            client(name, url, (25 if quick else 100) * IN_FLIGHT, store)
            seen = stats(url)
        rate = seen["answered"] / seen["seconds"]
        ours = rate / limit if name == "ours" else ours
        lines.append(f"| {name} | {rate:.0f} | {rate / limit:.1%} | {seen['mean_in_flight']:.1f} of {IN_FLIGHT} |")
    head = f"Server of {LATENCY} s fixed latency, {IN_FLIGHT} requests in flight; it shares the cores with its client."
    return [head, "", *lines], {"fraction_of_server": round(ours, 4)}


def overhead(quick: bool, store: str) -> Part:
    """Requests for a CPU second of the client, against a server that answers at once."""
    lines, ours = ["| client | CPU ms a request | requests per CPU second |", "|---|---|---|"], 0.0
    rows = 2000 if quick else 10_000
    for name in CLIENTS:
        n = rows if name != "openai" else rows // 4
        with serving(0.0) as url:
            found = client(name, url, n, store)
        ours = n / found["cpu"] if name == "ours" else ours
        lines.append(f"| {name} | {1000 * found['cpu'] / n:.2f} | {n / found['cpu']:.0f} |")
    return ["Server that answers at once: what a client costs.", "", *lines], {"client_requests_per_s": round(ours)}


def faults(quick: bool, store: str) -> Part:
    """What a server that fails 30 % of all requests costs: rows without an answer, answers paid twice."""
    lines = ["| client | rows answered | lost | answered twice by the server | requests |", "|---|---|---|---|---|"]
    rows, lost, doubled = 500 if quick else 2000, 0, 0
    for name in CLIENTS:
        with serving(0.01, FAULTS) as url:
            found = client(name, url, rows, store)
            seen = stats(url)
        if name == "ours":
            lost, doubled = rows - found["good"], seen["answered_twice"]
        lines.append(
            f"| {name} | {found['good']:,} | {rows - found['good']:,} | {seen['answered_twice']:,} | {seen['requests']:,} |"
        )
    head = f"Server that fails {FAULTS:.0%} of all requests (429, 500, HTML, cut JSON, no choices, half a body, closed)."
    return [head, "", *lines], {"lost": lost, "doubled": doubled}


def memory(quick: bool, store: str) -> Part:
    """Anonymous memory of the client over many rows, with answers that need no server."""
    rows = 50_000 if quick else 1_000_000
    found = client("ours", "instant", rows, store)
    points = ", ".join(f"{m:.0f}" for m in found["memory_mb"])
    text = f"Memory of the client over {rows:,} rows (anonymous, MB, at every tenth): {points}."
    speed = f"{rows / found['cpu']:,.0f} rows per CPU second without a server: prompt, key, claim, ledger, order."
    return [f"{text} {speed}"], {}


def offline(quick: bool, store: str) -> Part:
    """Plain vLLM against vLLM behind a room."""
    model = CACHE / "smollm2"
    if not VLLM.exists():
        missing = "vLLM: not measured in this run (`make test-vllm` makes the environment that it takes)."
        return [missing], {"fraction_of_vllm_offline": None}
    if not model.exists():
        subprocess.run([VLLM, ROOT / "benchmarks" / "models" / "smollm2.py", model], check=True)
    command = [VLLM, ROOT / "benchmarks" / "llm_vllm.py", model, "64" if quick else "128", "32", f"{store}/vllm"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    plain, ours = min(found["plain"]), min(found["ours"])
    what = f"{found['rows']} prompts, {found['tokens']:,} tokens generated, best of two turns"
    times = f"plain `LLM.chat` {plain:.1f} s, the same engine behind a room {ours:.1f} s ({plain / ours:.1%})"
    same = f"{found['same']} of {found['rows']} answers alike (batches differ, and with them the last bits)"
    text = f"vLLM 0.32.0 on this CPU, SmolLM2-135M in bfloat16, {what}: {times}; {same}."
    return [text], {"fraction_of_vllm_offline": round(plain / ours, 4)}


PARTS = {"limit": fixed_latency, "cost": overhead, "faults": faults, "memory": memory, "vllm": offline}


def measured(name: str, quick: bool, store: str) -> dict[str, Any]:
    """One part, with when and under which load it was measured."""
    before = os.getloadavg()[0]
    lines, keys = PARTS[name](quick, store)
    when = f"{time.strftime('%Y-%m-%d %H:%M')}, load {before:.1f} before and {os.getloadavg()[0]:.1f} after"
    return {"lines": [*lines, "", f"({when}{', quick mode' if quick else ''})"], "keys": keys}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rows: about two minutes on a quiet machine")
    parser.add_argument("--part", choices=PARTS, help="measure this part anew and take the others as they were measured last")
    options = parser.parse_args()
    kept = CACHE / "llm.json"
    found: dict[str, Any] = json.loads(kept.read_text()) if options.part and kept.exists() else {}
    with tempfile.TemporaryDirectory() as store:
        for name in [options.part] if options.part else PARTS:
            found[name] = measured(name, options.quick, store)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(found))
    report = [
        "## llm: asking a model",
        "",
        f"`benchmarks/llm.py` on {machine()}. Each part says when it was measured, under which load.",
    ]
    for name in PARTS:
        report += ["", *found.get(name, {"lines": [f"The part `{name}` was not measured."]})["lines"]]
    print("\n".join(report))
    write_section("llm", "\n".join(report))
    nothing = dict.fromkeys(("fraction_of_server", "client_requests_per_s", "fraction_of_vllm_offline", "lost", "doubled"))
    print(json.dumps(nothing | {key: value for part in found.values() for key, value in part["keys"].items()}))


if __name__ == "__main__":
    main()
