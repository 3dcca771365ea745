"""Labels by a language model: a rubric in a prompt file, a grade a document; `classifiers.linear.train` learns from them, or
`classifiers.scale.oriented` and `stages.filters.score.at_least` drop by them.

The annotators of FineWeb-Edu (arXiv 2406.17557, section 4) and of Nemotron-CC's edu classifiers (arXiv 2412.02595, appendix)
did this with 460,000 documents. Nemotron-CC v2.1 (arXiv 2512.20848) graded its translations once more where the classifiers
had let chat and advertising pass, and took out about 10.6 % of their tokens; neither its judge nor its rubric is published.
The packaged rubrics are in words of our own; any other is a file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from classifiers.scale import NAME
from stages.contract import TEXT, AskParams, ask_stage, file
from stages.prompt import Exchange, Prompt, Refused, Request, read_prompt

PROMPTS = Path(__file__).parent / "prompts"
GRADE = re.compile(r"^[\W_]*score[\W_]*?[ \t:=]+(-?\d+(?:\.\d+)?)[\s*_.]*$", re.IGNORECASE | re.MULTILINE)
NEEDED = ("lowest", "highest", "max_chars")


class Rubric(AskParams):
    """Who grades, by which rubric."""

    packaged: Literal["educational", "substance"] = Field(
        "educational", description="The packaged rubric: what a reader learns, or whether there is more than chat and advertising."
    )
    rubric: str | None = file(
        None, "A prompt file of your own: variable `text`, limits lowest, highest, max_chars; none: the packaged one."
    )
    column: str = Field("grade", pattern=NAME, description="Name of the column of grades.")


@cache
def _read(path: str) -> Prompt:
    prompt = read_prompt(path)
    missing = [name for name in NEEDED if name not in prompt.limits]
    if missing or prompt.variables != ("text",):
        fault = f"lacks limits {missing}" if missing else f"has the variables {list(prompt.variables)}"
        raise ValueError(
            f"{path}: the rubric {fault}; it needs limits: {{lowest: 0, highest: 5, max_chars: 6000}} and variables: [text]"
        )
    return prompt


def _prompts(params: Rubric) -> list[Prompt]:
    return [_read(params.rubric or str(PROMPTS / f"{params.packaged}.md"))]


def _parse(row: Mapping[str, Any], replies: Sequence[Exchange], params: Rubric) -> Sequence[Mapping[str, Any]] | Refused:
    del row
    if not replies:
        return Refused("no_text")
    (prompt,), said = _prompts(params), replies[-1].reply
    if said.finish != "stop":
        return Refused("grade_unfinished", said.text)
    grades = GRADE.findall(said.text)
    if len(grades) != 1:
        return Refused("grade_unclear", said.text)
    value = float(grades[0])
    if not prompt.limits["lowest"] <= value <= prompt.limits["highest"]:
        return Refused("grade_out_of_range", said.text)
    return [{params.column: value, f"{params.column}_reason": said.text}]


@ask_stage(
    version=1, reads={"text": TEXT}, parse=_parse, prompts=_prompts,
    writes=lambda p: {p.column: pa.float64(), f"{p.column}_reason": TEXT},
)  # fmt: skip
def grade(row: Mapping[str, Any], so_far: Sequence[Exchange], params: Rubric) -> list[Request] | None:
    """A language model's grade of `text` by a rubric, higher is better: `grade` (0 to 5) and `grade_reason`, its whole answer.

    Exactly one line `SCORE: n` within the rubric's limits counts. Refused: no_text, grade_unfinished, grade_unclear,
    grade_out_of_range. ValueError for a rubric file without its limits.
    """
    (prompt,) = _prompts(params)
    text = (row["text"] or "").strip()
    if so_far or not text:
        return None
    return [prompt.request({"text": text[: int(prompt.limits["max_chars"])]}, seed=params.seed)]
