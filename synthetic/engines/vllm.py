"""vLLM inside the worker, in an environment that has it: its own scheduler sees every waiting request."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from typing import Any

from stages.prompt import Reply
from synthetic.asking import Deferred, Rejected
from synthetic.engines.contract import Failure
from synthetic.request import Wanted
from synthetic.served import Vllm

FINISH = {"stop": "stop", "length": "length"}

Order = tuple[Wanted, "asyncio.Future[Reply]"]


class VllmEngine:
    """`vllm.LLM` in a thread that adds what came and steps its engine: continuous batching without a server."""

    endpoints: Sequence[tuple[str, float]] = (("vLLM", 1.0),)

    def __init__(self, config: Vllm, model: str, revision: str) -> None:
        self._config, self._model, self._revision = config, model, revision
        self._orders: SimpleQueue[Order | None] = SimpleQueue()
        self._futures: dict[str, asyncio.Future[Reply]] = {}
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._llm: Any = None
        self._died = ""

    async def start(self) -> None:
        """Load the weights: half a minute on a CPU, minutes for a large model."""
        self._loop = asyncio.get_running_loop()
        self._llm = await asyncio.to_thread(self._load)
        self._thread = threading.Thread(target=self._work, name="vllm", daemon=True)
        self._thread.start()

    def _load(self) -> Any:
        try:
            from vllm import LLM
        except ImportError as error:
            raise Deferred(
                f"run.models.{self._model}: engine vllm needs an environment that has vLLM ({error}); "
                "its pins differ from ours, so that one is made for it: see docs/language-models.md, or use engine openai"
            ) from error
        options = {"model": self._config.weights or self._model, **_needed_here(), **self._config.options}
        if self._revision and not self._config.weights:
            options["revision"] = self._revision
        try:
            return LLM(**options)
        except (OSError, ValueError, TypeError) as error:
            raise Deferred(f"run.models.{self._model}: vLLM cannot load {options['model']} ({error})") from error

    async def ask(self, endpoint: str, wanted: Wanted) -> Reply:  # noqa: ARG002
        """Generate; see Engine.ask."""
        assert self._loop is not None
        future: asyncio.Future[Reply] = self._loop.create_future()
        self._orders.put((wanted, future))
        if self._died:
            self._fail_all(self._died)
        return await future

    async def close(self) -> None:
        """Finish what is under way and stop. Blocks: at the end of a process no new thread can start."""
        if self._thread is not None:
            self._orders.put(None)
            self._thread.join()
        self._llm = None

    def _work(self) -> None:
        """The thread of the engine: it alone touches vLLM."""
        try:
            going = True
            while going or self._futures:
                going = self._take() and going
                if self._futures:
                    for output in self._llm.llm_engine.step():
                        if output.finished:
                            self._resolve(output)
        except Exception as error:  # the boundary: a dead engine fails everything that waits for it, with its reason
            self._died = f"run.models.{self._model}: vLLM died ({type(error).__name__}: {error})"
            self._fail_all(self._died)

    def _take(self) -> bool:
        """Add what came; wait for the first when there is nothing to do. False when the engine shall stop."""
        while True:
            try:
                order = self._orders.get(block=not self._futures)
            except Empty:
                return True
            if order is None:
                return False
            self._add(*order)

    def _add(self, wanted: Wanted, future: asyncio.Future[Reply]) -> None:
        from vllm.exceptions import VLLMClientError

        try:
            params = _sampling(wanted)
            if wanted.body["api"] == "chat":
                (name,) = self._llm.enqueue_chat([dict(m) for m in wanted.body["messages"]], params, use_tqdm=False)
            else:
                (name,) = self._llm.enqueue(wanted.joined, params, use_tqdm=False)
        except (ValueError, VLLMClientError) as error:  # beyond the context, a broken schema, a model without a template
            self._tell(future, Rejected(f"vLLM: {error}"))
        else:
            self._futures[str(name).split("-")[0]] = future

    def _resolve(self, output: Any) -> None:
        future = self._futures.pop(str(output.request_id).split("-")[0])
        one = output.outputs[0]
        finish = FINISH.get(one.finish_reason)
        if finish is None:
            self._tell(future, Failure("garbled", f"vLLM: the generation ended by '{one.finish_reason}'"))
        else:
            self._tell(future, Reply(one.text, finish, len(output.prompt_token_ids or ()), len(one.token_ids)))

    def _fail_all(self, reason: str) -> None:
        waiting = [*self._futures.values()]
        while not self._orders.empty():
            order = self._orders.get()
            waiting += [order[1]] if order is not None else []
        for future in waiting:
            self._tell(future, Deferred(reason))
        self._futures.clear()

    def _tell(self, future: asyncio.Future[Reply], what: Reply | Exception) -> None:
        def tell() -> None:
            if future.done():
                return
            if isinstance(what, Reply):
                future.set_result(what)
            else:
                future.set_exception(what)

        assert self._loop is not None
        self._loop.call_soon_threadsafe(tell)


def _needed_here() -> dict[str, Any]:
    """On a CPU vLLM 0.32 dies of a seeded request whose prompt it reads in pieces ("CPU Generator does not use offset")."""
    from vllm.platforms import current_platform

    return {"enable_chunked_prefill": False} if current_platform.is_cpu() else {}


def _sampling(wanted: Wanted) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    sampling, schema = wanted.body["sampling"], wanted.body["schema"]
    return SamplingParams(
        max_tokens=sampling["max_tokens"], temperature=sampling["temperature"], top_p=sampling["top_p"], seed=sampling["seed"],
        stop=sampling["stop"] or None,
        structured_outputs=StructuredOutputsParams(json=schema) if schema is not None else None,
    )  # fmt: skip
