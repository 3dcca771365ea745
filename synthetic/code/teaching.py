"""Texts about a piece of code: a task with its solution, a lesson, a review.

Source: Nemotron-Pretraining-Code (v1: questions in 11 languages, kept when the code of the answer parses; v2: student-teacher
dialogues about Python, code-review dialogues about Python and C++). Prompts are ours.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pydantic import Field

from stages import syntax
from stages.contract import TEXT, ask_stage
from stages.prompt import Exchange, Refused, Request
from synthetic.answers import is_refusal, pairs
from synthetic.code.fences import blocks, turns
from synthetic.code.single import OneRequest, Single, cut_off, open_counter
from synthetic.tokens import Count

WRITES = {"text": TEXT, "source_text": TEXT, "task": pa.string()}
SPOKEN = {"python": "Python", "py": "Python", "cpp": "C++", "c++": "C++", "c": "C", "javascript": "JavaScript", "js": "JavaScript",
          "java": "Java", "go": "Go", "rust": "Rust", "typescript": "TypeScript", "ts": "TypeScript", "ruby": "Ruby"}  # fmt: skip


class Teaching(OneRequest):
    """How a text about code is asked for."""

    temperature: float = Field(0.7, ge=0, description="Sampling temperature.")
    top_p: float = Field(0.9, gt=0, le=1, description="Nucleus of the sampling.")
    max_input_tokens: int = Field(3000, ge=32, description="Sources that make a longer prompt are not asked about.")
    max_output_tokens: int = Field(3000, ge=8, description="Tokens after which an answer is cut off, and then dropped.")
    min_turns: int = Field(4, ge=2, description="Fewest turns of a dialogue.")


@dataclass(frozen=True)
class Kind(Single):
    """One kind of text: its prompt, and who speaks in it."""

    speakers: tuple[str, ...] = ()

    def parse(
        self,
        row: Mapping[str, Any],
        replies: Sequence[Exchange],
        params: Teaching,
        model: Count,  # noqa: ARG002 - the contract's signature
    ) -> Sequence[Mapping[str, Any]] | Refused:
        """The text, when it has the form that was asked for and its code parses.

        Reasons: too_long, unfinished, filtered, refusal, no_pairs, too_few_turns, no_code, code_does_not_parse.
        """
        if not replies:
            return Refused("too_long")
        reply = replies[0].reply
        if cut := cut_off(reply):
            return Refused(cut, reply.text)
        if is_refusal(reply.text):
            return Refused("refusal", reply.text)
        text = self._formed(reply.text, params)
        if isinstance(text, Refused):
            return text
        fault = code_fault(text)
        return Refused(fault, reply.text) if fault else [{"text": text, "source_text": row["text"], "task": self.name}]

    def _formed(self, answer: str, params: Teaching) -> str | Refused:
        if not self.speakers:
            found = pairs(answer)
            return "\n\n".join([found[0][0], found[0][1]]) if found else Refused("no_pairs", answer)
        said = turns(answer, self.speakers)
        if len(said) < params.min_turns or len({name for name, _ in said}) < 2:
            return Refused("too_few_turns", answer)
        return "\n\n".join(f"{name}: {words}" for name, words in said)


def code_fault(text: str) -> str:
    """`no_code`, `code_does_not_parse`, or "": Python must parse, other languages must fit their grammar."""
    found = blocks(text)
    if not found:
        return "no_code"
    for name, code in found:
        language = SPOKEN.get(name)
        if language == "Python" and not _parses(code):
            return "code_does_not_parse"
        parsed = syntax.parse(language, code) if language and language != "Python" else None
        if parsed is not None and parsed.damage > 0:
            return "code_does_not_parse"
    return ""


def _parses(code: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ast.parse(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False
    return True


_QA = Kind("question_answer")
_LESSON, _REVIEW = Kind("lesson", ("Student", "Teacher")), Kind("review", ("Author", "Reviewer"))
READS = {"text": TEXT, "code_language": pa.string()}


@ask_stage(version=1, reads=READS, writes=WRITES, parse=_QA.parse, model=open_counter, prompts=_QA.prompts)
def question_answer(row: Mapping[str, Any], so_far: Sequence[Exchange], params: Teaching, model: Count) -> list[Request] | None:
    """A programming task inspired by a snippet, and its solution."""
    return _QA.ask(row, so_far, params, model)


@ask_stage(version=1, reads=READS, writes=WRITES, parse=_LESSON.parse, model=open_counter, prompts=_LESSON.prompts)
def lesson(row: Mapping[str, Any], so_far: Sequence[Exchange], params: Teaching, model: Count) -> list[Request] | None:
    """A conversation in which a teacher leads a student through a piece of code."""
    return _LESSON.ask(row, so_far, params, model)


@ask_stage(version=1, reads=READS, writes=WRITES, parse=_REVIEW.parse, model=open_counter, prompts=_REVIEW.prompts)
def review(row: Mapping[str, Any], so_far: Sequence[Exchange], params: Teaching, model: Count) -> list[Request] | None:
    """A code review as a conversation between author and reviewer, with the improved code."""
    return _REVIEW.ask(row, so_far, params, model)
