"""Rewriting Python: for style, to be self-contained and efficient, and into C++. Each answer is verified by a later step.

Source: SwallowCode (Fujii et al. 2025, arXiv 2505.02881) keeps the two rewritings apart, since one prompt for both does worse;
Nemotron-Pretraining-Code-v2 adds the translation of Python into C++. Prompts are ours (synthetic/prompts/code). `text` is the
first fenced block of the answer, `source_text` what it was made from: `stages.code.verify.rewrites` reads both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pydantic import Field

from stages.contract import TEXT, ask_stage
from stages.prompt import Exchange, Refused, Request
from synthetic.answers import is_refusal
from synthetic.code.fences import first_block
from synthetic.code.single import OneRequest, Single, cut_off, open_counter
from synthetic.tokens import Count

WRITES = {"text": TEXT, "source_text": TEXT, "code_language": pa.string(), "answer_fault": pa.string()}
PYTHON, CPP = ("python", "py", "python3"), ("cpp", "c++", "cxx", "cc")


class Rewriting(OneRequest):
    """How a source is rewritten."""

    keep_refused: bool = Field(
        True, description="Keep a row of which nothing came, with an empty rewrite: the verifier puts its source back."
    )


@dataclass(frozen=True)
class Step(Single):
    """A rewriting: its prompt, the language that it writes, and the names of that language at a fence."""

    language: str
    fences: tuple[str, ...]

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
        if fault := cut_off(exchange.reply):
            return fault, ""
        code = first_block(exchange.reply.text, self.fences)
        if code is None:
            return ("refusal" if is_refusal(exchange.reply.text) else "no_code"), ""
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
