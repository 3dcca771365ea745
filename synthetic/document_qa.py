"""Document question answering for the long-context phase: questions about pieces of a long document, put at its end.

The recipe of Nemotron Nano 2 and 3: documents of more than 32k tokens are cut into pieces of 1,024 tokens, a random tenth of
the pieces gets questions and answers from a model, and all of them are appended to the document. (Nano 3 used three times
the amount: `share` 0.3, or more documents.) The prompt is ours (synthetic/prompts/document_qa).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import Field

from stages.contract import TEXT, AskParams, ask_stage, file
from stages.prompt import Exchange, Prompt, Refused, Request, read_prompt
from synthetic import answers
from synthetic.segments import parts
from synthetic.tokens import Count, counter

PROMPT = Path(__file__).parent / "prompts" / "document_qa" / "questions.md"


class DocumentQA(AskParams):
    """Which documents and pieces are asked about. Tokens are those of the model's own vocabulary."""

    prompt: str | None = file(None, "A prompt file of your own with the variable `text`; none: the packaged one.")
    tokenizer: str | None = file(None, "tokenizer.json or GGUF of the model; none: the embedded model's vocabulary.")
    min_document_tokens: int = Field(32_768, ge=1, description="Shorter documents are not asked about.")
    max_document_tokens: int = Field(524_288, ge=1, description="Longer documents are not asked about.")
    piece_tokens: int = Field(1024, ge=16, description="Tokens of a piece.")
    share: float = Field(0.1, gt=0, le=1, description="Share of the pieces that are asked about; at least one of a document.")
    max_output_tokens: int = Field(600, ge=8, description="Tokens after which an answer is cut off, and then dropped.")


@cache
def _read(path: str) -> Prompt:
    return read_prompt(path)


def _prompt(params: DocumentQA) -> Prompt:
    return _read(params.prompt or str(PROMPT))


def _open(params: DocumentQA) -> Count:
    return counter(params.tokenizer or params.model)


def chosen(document: str, pieces: int, params: DocumentQA) -> list[int]:
    """Numbers of the pieces of a document that are asked about: a sample by id and seed, in order."""
    seed = hashlib.blake2b(f"{document}/{params.seed}".encode(), digest_size=8).digest()
    return sorted(random.Random(seed).sample(range(pieces), max(1, round(pieces * params.share))))


def _parse(
    row: Mapping[str, Any], replies: Sequence[Exchange], params: DocumentQA, model: Count
) -> Sequence[Mapping[str, Any] | Refused] | Refused:
    """One row: the document with every pair at its end. Pieces that gave nothing are Refused in their own right."""
    if not replies:
        tokens = model(row["text"])
        return Refused("document_too_short" if tokens < params.min_document_tokens else "document_too_long")
    found = [_pairs(exchange, params) for exchange in replies]
    good = [pair for pairs in found if not isinstance(pairs, Refused) for pair in pairs]
    refused = [pairs for pairs in found if isinstance(pairs, Refused)]
    if not good:
        return refused[0]
    asked = "\n\n".join(f"Question: {question}\nAnswer: {answer}" for question, answer in good)
    text = row["text"].rstrip() + "\n\n" + asked + "\n"
    return [{"text": text, "source_text": row["text"], "pairs": len(good), "tokens": model(text)}, *refused]


def _pairs(exchange: Exchange, params: DocumentQA) -> list[tuple[str, str]] | Refused:
    reply = exchange.reply
    if reply.finish != "stop":
        return Refused("filtered" if reply.finish == "filtered" else "unfinished", reply.text)
    if answers.is_refusal(reply.text):
        return Refused("refusal", reply.text)
    if reply.text.strip(" .*").upper() == "NOTHING":
        return Refused("nothing_useful")
    said = answers.pairs(reply.text)
    found = [(q, a) for q, a in said if not answers.echoes(f"Question: {q}\nAnswer: {a}", "", _prompt(params))]
    return found or Refused("prompt_echo" if said else "no_pairs", reply.text)


@ask_stage(
    version=2,
    reads={"text": TEXT},
    writes={"text": TEXT, "source_text": TEXT, "pairs": pa.int32(), "tokens": pa.int32()},
    parse=_parse,
    model=_open,
    prompts=lambda params: [_prompt(params)],
)
def questions(row: Mapping[str, Any], so_far: Sequence[Exchange], params: DocumentQA, model: Count) -> list[Request] | None:
    """Ask about a random tenth of the pieces of a long document; the pairs are appended to it.

    Out: `text` (document and pairs), `source_text` (the document), `pairs`, and `tokens` of the model's vocabulary. A
    document outside the limits is refused as document_too_short or document_too_long.
    """
    if so_far or not params.min_document_tokens <= model(row["text"]) <= params.max_document_tokens:
        return None
    pieces = [piece for piece in parts(row["text"], model, params.piece_tokens) if piece.strip()]
    sampling = {"max_tokens": params.max_output_tokens, "seed": params.seed}
    prompt = _prompt(params)
    return [
        prompt.request({"text": pieces[n].strip()}, tag=str(n), **sampling) for n in chosen(str(row["id"]), len(pieces), params)
    ]
