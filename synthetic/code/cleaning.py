"""Technical pages cleaned up by a model: boilerplate out, formulas as LaTeX, code letter by letter.

Source: Nemotron-CC-Math (arXiv 2508.15096) and -Code with NeMo Curator's tutorial: chunks of 5,000 tokens cut at paragraphs,
temperature 0.7, top-p 0.8, chunks may be answered with "nothing useful", a document is joined again and cut at 900,000
characters. That code and numbers stand in the page is checked by `stages.code.grounded.answers`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from stages.contract import TEXT, AskParams, ask_stage, file
from stages.prompt import Exchange, Prompt, Refused, Request
from synthetic.answers import has_preamble, is_refusal
from synthetic.code.single import cut_off, open_counter, read
from synthetic.segments import parts
from synthetic.tokens import Count

PROMPTS = Path(__file__).parents[1] / "prompts" / "pages"
NOTHING = "NOTHING USEFUL"
BLANK = re.compile(r"\A(?:[^\S\n]*\n)+")
WRITES = {"text": TEXT, "source_text": TEXT, "chunks": pa.int32(), "chunks_useful": pa.int32()}


class Cleaning(AskParams):
    """How pages are cleaned."""

    kind: Literal["math", "code"] = Field(
        "math", description="Which packaged prompt: pages about mathematics or about programming."
    )
    prompt: str | None = file(None, "A prompt file of your own with the variable `text`; none: the packaged one.")
    tokenizer: str | None = file(None, "tokenizer.json or GGUF of the model; none: the embedded model's vocabulary.")
    temperature: float = Field(0.7, ge=0, description="Sampling temperature (NeMo Curator: 0.7).")
    top_p: float = Field(0.8, gt=0, le=1, description="Nucleus of the sampling (NeMo Curator: 0.8).")
    chunk_tokens: int = Field(5_000, ge=32, description="Tokens of a chunk, cut at paragraphs where that is possible.")
    context_tokens: int = Field(16_384, ge=64, description="The model's context: answers may use what the chunk leaves of it.")
    max_chars: int = Field(900_000, ge=100, description="Characters after which a joined document is cut.")


def _prompts(params: Cleaning) -> list[Prompt]:
    return [read(params.prompt or str(PROMPTS / f"clean_{params.kind}.md"))]


def _parse(
    row: Mapping[str, Any],  # noqa: ARG001 - the contract's signature
    replies: Sequence[Exchange],
    params: Cleaning,
    model: Count,  # noqa: ARG001 - the contract's signature
) -> Sequence[Mapping[str, Any] | Refused] | Refused:
    """The useful chunks joined; Refused in the place of those that failed, and `nothing_useful` for a page without any."""
    if not replies:
        return Refused("no_text")
    found = [(exchange.request.tag, _read(exchange)) for exchange in replies]
    useful = [(source, text) for source, text in found if isinstance(text, str)]
    faults = [fault for _, fault in found if isinstance(fault, Refused)]
    if not useful:
        return faults[0]
    text = "\n\n".join(text for _, text in useful)[: params.max_chars]
    page = {
        "text": text,
        "source_text": "".join(source for source, _ in useful),
        "chunks": len(found),
        "chunks_useful": len(useful),
    }
    return [page, *(fault for fault in faults if fault.reason != "nothing_useful")]


def _read(exchange: Exchange) -> str | Refused:
    reply = exchange.reply
    if cut := cut_off(reply):
        return Refused(cut, reply.text)
    # A chunk can begin inside of code: its first line keeps its indentation.
    text = BLANK.sub("", reply.text).rstrip()
    if not text or text.strip(' .*`"').upper().startswith(NOTHING):
        return Refused("nothing_useful")
    if is_refusal(text):
        return Refused("refusal", text)
    return Refused("preamble", text) if has_preamble(text) else text


@ask_stage(version=2, reads={"text": TEXT}, writes=WRITES, parse=_parse, model=open_counter, prompts=_prompts)
def pages(row: Mapping[str, Any], so_far: Sequence[Exchange], params: Cleaning, model: Count) -> list[Request] | None:
    """Clean a page chunk by chunk; `source_text` holds the chunks that were useful.

    Reasons: no_text, nothing_useful, unfinished, filtered, refusal, preamble.
    """
    if so_far or not row["text"]:
        return None
    (prompt,) = _prompts(params)
    room = params.context_tokens - params.chunk_tokens - sum(model(m.content) for m in prompt.messages)
    sampling = {"temperature": params.temperature, "top_p": params.top_p, "max_tokens": max(64, room), "seed": params.seed}
    chunks = [chunk for chunk in parts(row["text"], model, params.chunk_tokens) if chunk.strip()]
    return [prompt.request({"text": chunk}, tag=chunk, **sampling) for chunk in chunks]
