"""A second opinion on a rewrite: a language model says how faithful it is to its source. Costs a call a row; off by default."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import Field

from stages.contract import TEXT, AskParams, ask_stage, file
from stages.prompt import Exchange, Prompt, Refused, Request, read_prompt

PROMPT = Path(__file__).parent / "prompts" / "judge.md"
_SCORE = re.compile(r"^\W*score\W*\s([0-5])\W*$", re.IGNORECASE | re.MULTILINE)


class Judge(AskParams):
    """Who judges, and what is good enough."""

    prompt: str | None = file(None, "A prompt file of your own with the variables `source` and `text`; none: the packaged one.")
    min_score: int = Field(4, ge=0, le=5, description="Lowest score at which a rewrite is kept.")


@cache
def _read(path: str) -> Prompt:
    return read_prompt(path)


def _prompts(params: Judge) -> list[Prompt]:
    return [_read(params.prompt or str(PROMPT))]


def _parse(row: Mapping[str, Any], replies: Sequence[Exchange], params: Judge) -> Sequence[Mapping[str, Any]] | Refused:
    del row
    said = replies[-1].reply
    if said.finish != "stop":
        return Refused("judge_unfinished", said.text)
    scores = _SCORE.findall(said.text)
    if len(scores) != 1:
        return Refused("judge_unclear", said.text)
    if int(scores[0]) < params.min_score:
        return Refused(f"judged_{scores[0]}", said.text)
    return [{"judge_score": int(scores[0]), "judge_said": said.text}]


@ask_stage(
    version=1, reads={"text": TEXT, "source_text": TEXT}, parse=_parse, prompts=_prompts,
    writes={"judge_score": pa.int32(), "judge_said": TEXT},
)  # fmt: skip
def faithful(row: Mapping[str, Any], so_far: Sequence[Exchange], params: Judge) -> list[Request] | None:
    """Score each rewrite 0 to 5 against `source_text`; below `min_score` it is refused as judged_<score>.

    Exactly one line `SCORE: n` counts, anything else is judge_unclear. `generator` of the rows that stand names the judge;
    the writer's stands in the parent.
    """
    if so_far:
        return None
    return [_prompts(params)[0].request({"source": row["source_text"] or "", "text": row["text"] or ""}, seed=params.seed)]
