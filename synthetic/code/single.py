"""One source, one request, one answer: what rewriting and teaching have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field

from stages.contract import AskParams, file
from stages.prompt import Exchange, Prompt, Reply, Request, read_prompt
from synthetic.tokens import Count, counter

PROMPTS = Path(__file__).parents[1] / "prompts" / "code"


class OneRequest(AskParams):
    """How a source is asked about; defaults are SwallowCode's (arXiv 2505.02881)."""

    prompt: str | None = file(None, "A prompt file of your own, with the variables of the packaged one; none: the packaged one.")
    tokenizer: str | None = file(None, "tokenizer.json or GGUF of the model; none: the embedded model's vocabulary.")
    temperature: float = Field(0.2, ge=0, description="Sampling temperature (SwallowCode: 0.2).")
    top_p: float = Field(0.7, gt=0, le=1, description="Nucleus of the sampling (SwallowCode: 0.7).")
    max_input_tokens: int = Field(6000, ge=32, description="Sources that make a longer prompt are not asked about.")
    max_output_tokens: int = Field(8192, ge=8, description="Tokens after which an answer is cut off (SwallowCode: 8192).")


@cache
def read(path: str) -> Prompt:
    """A prompt file, read once."""
    return read_prompt(path)


def open_counter(params: Any) -> Count:
    """The token counter, opened once per worker."""
    return counter(params.tokenizer or params.model)


def cut_off(reply: Reply) -> str:
    """`filtered` or `unfinished` for an answer that is not whole, else ""."""
    return "" if reply.finish == "stop" else "filtered" if reply.finish == "filtered" else "unfinished"


@dataclass(frozen=True)
class Single:
    """A task of one request, called like its prompt file."""

    name: str

    def prompts(self, params: Any) -> list[Prompt]:
        """For the contract: the prompt in use."""
        return [read(params.prompt or str(PROMPTS / f"{self.name}.md"))]

    def ask(self, row: Mapping[str, Any], so_far: Sequence[Exchange], params: Any, model: Count) -> list[Request] | None:
        """One request with the whole source; none when it is too long."""
        if so_far:
            return None
        (prompt,) = self.prompts(params)
        known = {"text": row["text"], "language": row.get("code_language") or "code"}
        sampling = {"temperature": params.temperature, "top_p": params.top_p, "max_tokens": params.max_output_tokens}
        values = {name: value for name, value in known.items() if name in prompt.variables}
        request = prompt.request(values, seed=params.seed, **sampling)
        return [request] if sum(model(m.content) for m in request.messages) <= params.max_input_tokens else None
