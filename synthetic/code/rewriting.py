"""Rewriting Python: for style, to be self-contained and efficient, and into C++. Each answer is verified by a later step.

Source: SwallowCode (Fujii et al. 2025, arXiv 2505.02881) keeps the two rewritings apart, since one prompt for both does worse;
Nemotron-Pretraining-Code-v2 adds the translation of Python into C++. Prompts are ours (synthetic/prompts/code). `text` is the
first fenced block of the answer, `source_text` what it was made from: `stages.code.verify.rewrites` reads both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import Field

from stages.contract import TEXT, AskParams, ask_stage, file
from stages.prompt import Exchange, Prompt, Refused, Request, read_prompt
from synthetic.answers import is_refusal
from synthetic.code.fences import first_block
from synthetic.tokens import Count, counter

PROMPTS = Path(__file__).parents[1] / "prompts" / "code"
WRITES = {"text": TEXT, "source_text": TEXT, "code_language": pa.string(), "answer_fault": pa.string()}
PYTHON, CPP = ("python", "py", "python3"), ("cpp", "c++", "cxx", "cc")


class Rewriting(AskParams):
    """How a source is rewritten."""

    prompt: str | None = file(None, "A prompt file of your own with the variable `text`; none: the packaged one of the step.")
    tokenizer: str | None = file(None, "tokenizer.json or GGUF of the model; none: the embedded model's vocabulary.")
    temperature: float = Field(0.2, ge=0, description="Sampling temperature (SwallowCode: 0.2).")
    top_p: float = Field(0.7, gt=0, le=1, description="Nucleus of the sampling (SwallowCode: 0.7).")
    max_input_tokens: int = Field(6000, ge=32, description="Sources that make a longer prompt are not asked about.")
    max_output_tokens: int = Field(8192, ge=8, description="Tokens after which an answer is cut off (SwallowCode: 8192).")
    keep_refused: bool = Field(
        True, description="Keep a row of which nothing came, with an empty rewrite: the verifier puts its source back."
    )


@cache
def read(path: str) -> Prompt:
    """A prompt file, read once."""
    return read_prompt(path)


def open_counter(params: Any) -> Count:
    """The token counter, opened once per worker."""
    return counter(params.tokenizer or params.model)


@dataclass(frozen=True)
class Step:
    """What the three have in common: one request, one fenced block."""

    name: str
    language: str
    fences: tuple[str, ...]

    def prompts(self, params: Rewriting) -> list[Prompt]:
        """For the contract: the prompt in use."""
        return [read(params.prompt or str(PROMPTS / f"{self.name}.md"))]

    def ask(self, row: Mapping[str, Any], so_far: Sequence[Exchange], params: Rewriting, model: Count) -> list[Request] | None:
        """One request with the whole source; none when it is too long."""
        if so_far:
            return None
        (prompt,) = self.prompts(params)
        sampling: dict[str, Any] = {
            "temperature": params.temperature,
            "top_p": params.top_p,
            "max_tokens": params.max_output_tokens,
            "seed": params.seed,
        }
        request = prompt.request({"text": row["text"]}, **sampling)
        return [request] if sum(model(m.content) for m in request.messages) <= params.max_input_tokens else None

    def parse(
        self,
        row: Mapping[str, Any],
        replies: Sequence[Exchange],
        params: Rewriting,
        model: Count,  # noqa: ARG002 - the contract's signature
    ) -> Sequence[Mapping[str, Any]] | Refused:
        """The first fenced block; a fault is refused, or kept with an empty text for the verifier."""
        fault, code = ("too_long", "") if not replies else self._read(replies[0])
        if fault and not params.keep_refused:
            return Refused(fault, replies[0].reply.text[:2000] if replies else "")
        language = self.language if not fault else "Python"
        return [{"text": code, "source_text": row["text"], "code_language": language, "answer_fault": fault or None}]

    def _read(self, exchange: Exchange) -> tuple[str, str]:
        reply = exchange.reply
        if reply.finish != "stop":
            return ("filtered" if reply.finish == "filtered" else "unfinished"), ""
        code = first_block(reply.text, self.fences)
        if code is None:
            return ("refusal" if is_refusal(reply.text) else "no_code"), ""
        return "", code


_STYLE, _WHOLE, _CPP = Step("style", "Python", PYTHON), Step("self_contained", "Python", PYTHON), Step("to_cpp", "C++", CPP)


@ask_stage(version=1, reads={"text": TEXT}, writes=WRITES, parse=_STYLE.parse, model=open_counter, prompts=_STYLE.prompts)
def style(row: Mapping[str, Any], so_far: Sequence[Exchange], params: Rewriting, model: Count) -> list[Request] | None:
    """Style-guided rewriting (SGCR): judge a Python source by ten criteria, then write it better."""
    return _STYLE.ask(row, so_far, params, model)


@ask_stage(version=1, reads={"text": TEXT}, writes=WRITES, parse=_WHOLE.parse, model=open_counter, prompts=_WHOLE.prompts)
def self_contained(row: Mapping[str, Any], so_far: Sequence[Exchange], params: Rewriting, model: Count) -> list[Request] | None:
    """Self-contained optimisation (SCOR): what is missing is written out, slow algorithms are replaced."""
    return _WHOLE.ask(row, so_far, params, model)


@ask_stage(version=1, reads={"text": TEXT}, writes=WRITES, parse=_CPP.parse, model=open_counter, prompts=_CPP.prompts)
def to_cpp(row: Mapping[str, Any], so_far: Sequence[Exchange], params: Rewriting, model: Count) -> list[Request] | None:
    """Translate a Python source into C++20 that compiles by itself."""
    return _CPP.ask(row, so_far, params, model)
