"""Translation by a language model, and the checks behind every translation (Nemotron-CC v2.1: nine languages to English).

A long document is translated part by part in one conversation: each part sees the end of the translation so far, for names
and terms. The checks are for any translator, also the dedicated ones of synthetic.translators.
"""

from __future__ import annotations

import re
from collections import Counter as Counted
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import Field

from stages.contract import TEXT, AskParams, Params, ask_stage, file, map_stage
from stages.prompt import Exchange, Prompt, Refused, Request, read_prompt
from synthetic.answers import has_preamble, is_refusal
from synthetic.segments import parts
from synthetic.tokens import Count, counter

NAMES = {
    "ar": "Arabic", "cs": "Czech", "da": "Danish", "de": "German", "en": "English", "es": "Spanish", "fi": "Finnish",
    "fr": "French", "he": "Hebrew", "hi": "Hindi", "it": "Italian", "ja": "Japanese", "ko": "Korean", "nl": "Dutch",
    "pl": "Polish", "pt": "Portuguese", "ru": "Russian", "sv": "Swedish", "th": "Thai", "zh": "Chinese",
}  # fmt: skip
"""The languages of Nemotron 3 Nano's multilingual data, by ISO 639-1 code."""
PROMPT = Path(__file__).parent / "prompts" / "translate" / "page.md"


class Translate(AskParams):
    """Parameters of the translation."""

    target: str = Field("en", description="ISO 639-1 code of the language to translate into.")
    prompt: str | None = file(None, "A prompt file of your own; none: the packaged one.")
    tokenizer: str | None = file(None, "tokenizer.json or GGUF of the model; none: the embedded model's vocabulary.")
    max_part_tokens: int = Field(1000, ge=1, description="Tokens of the source that are translated at once.")
    max_output_tokens: int = Field(2048, ge=16, description="Tokens after which an answer is cut off, and the document refused.")
    context_characters: int = Field(200, ge=0, description="Characters of the translation so far that the next part sees.")
    temperature: float = Field(0.0, ge=0, description="Sampling temperature.")


def open_counter(params: Translate) -> Count:
    """The token counter, opened once per worker."""
    return counter(params.tokenizer or params.model)


@cache
def _read(path: str) -> Prompt:
    return read_prompt(path)


def _prompts(params: Translate) -> list[Prompt]:
    return [_read(params.prompt or str(PROMPT))]


def _parse(
    row: Mapping[str, Any], replies: Sequence[Exchange], params: Translate, model: Count
) -> Sequence[Mapping[str, Any]] | Refused:
    for exchange in replies:
        if exchange.reply.finish != "stop":
            return Refused("filtered" if exchange.reply.finish == "filtered" else "unfinished", exchange.reply.text)
        if is_refusal(exchange.reply.text):
            return Refused("refusal", exchange.reply.text)
    pieces = [p for p in parts(row["text"], model, params.max_part_tokens) if p.strip()]
    if not pieces:
        return Refused("empty")
    joined = "".join(_framed(piece, e.reply.text) for piece, e in zip(pieces, replies, strict=True))
    return [{"text": joined.strip("\n"), "source_text": row["text"], "source_language": row["language"]}]


def _framed(piece: str, translated: str) -> str:
    """The translation of a part with the white space that stood around the part."""
    body = piece.strip()
    start = piece.index(body)
    return piece[:start] + _unfenced(translated) + piece[start + len(body) :]


def _unfenced(text: str) -> str:
    """Without the lines of equals signs that some models repeat."""
    return "\n".join(line for line in text.strip().split("\n") if not re.fullmatch(r"={3,}", line.strip()))


@ask_stage(
    version=1, reads={"text": TEXT, "language": pa.string()}, parse=_parse, prompts=_prompts, model=open_counter,
    writes={"text": TEXT, "source_text": TEXT, "source_language": pa.string()},
)  # fmt: skip
def pages(row: Mapping[str, Any], so_far: Sequence[Exchange], params: Translate, model: Count) -> list[Request] | None:
    """Translate each document, part after part; parts are cut at paragraphs, lines, sentences, in this order of preference."""
    pieces = [p for p in parts(row["text"], model, params.max_part_tokens) if p.strip()]
    if len(so_far) >= len(pieces):
        return None
    before = _unfenced(so_far[-1].reply.text)[-params.context_characters :] if so_far and params.context_characters else ""
    values = {
        "source_language": NAMES.get(row["language"] or "", row["language"] or "the language of the text"),
        "target_language": NAMES.get(params.target, params.target),
        "before": before or "(nothing yet)",
        "text": pieces[len(so_far)].strip(),
    }
    request = _prompts(params)[0].request(
        values, temperature=params.temperature, max_tokens=params.max_output_tokens, seed=params.seed
    )
    return [request]


class Checks(Params):
    """Limits of an acceptable translation."""

    min_length_ratio: float = Field(0.4, ge=0, description="Characters of the translation over characters of the source, at least.")
    max_length_ratio: float = Field(4.0, gt=0, description="The same, at most (a Chinese character is about three English ones).")
    min_kept: float = Field(
        0.9,
        ge=0,
        le=1,
        description="Share of the source's URLs, code lines and tags that stand unchanged in the translation, at least.",
    )
    min_numbers_kept: float = Field(
        0.7, ge=0, le=1, description="Share of the source's numbers that stand in the translation, at least."
    )
    max_line_difference: float = Field(
        0.2, ge=0, description="Difference in non-empty lines over the lines of the source, at most."
    )
    max_copy_rate: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of the translation's 4-word sequences that stand in the source (not translated), at most.",
    )
    max_repetition: float = Field(0.3, ge=0, le=1, description="Share of 5-word sequences that occurred before, at most.")
    languages: tuple[str, ...] = Field(
        ("en",), description="Languages the translation may have, from a language column made after it; empty: not asked."
    )


_KEPT = re.compile(r"https?://[^\s<>\"')\]]+|</?[a-zA-Z][^<>\n]*>|^(?: {4}|\t).*$|`[^`\n]+`", re.MULTILINE)
_NUMBER = re.compile(r"\d+")


@map_stage(
    version=1,
    reads=lambda p: {"text": TEXT, "source_text": TEXT, **({"language": pa.string()} if p.languages else {})},
    writes={"length_ratio": pa.float32(), "copy_rate": pa.float32(), "drop_reason": pa.string()},
)
def checks(batch: pa.Table, params: Checks) -> pa.Table:
    """Name the first fault of each translation: refusal, preamble, language, too_short, too_long, lines, kept, numbers,
    not_translated, repetition. Null means that it is kept.
    """
    languages = batch["language"].to_pylist() if params.languages else [None] * batch.num_rows
    rows = zip(batch["text"].to_pylist(), batch["source_text"].to_pylist(), languages, strict=True)
    judged = [_judged(text or "", source or "", language, params) for text, source, language in rows]
    ratios, copies, reasons = zip(*judged, strict=True) if judged else ((), (), ())
    return pa.table(
        {
            "length_ratio": pa.array(ratios, pa.float32()),
            "copy_rate": pa.array(copies, pa.float32()),
            "drop_reason": pa.array(reasons, pa.string()),
        }
    )


def _judged(text: str, source: str, language: str | None, p: Checks) -> tuple[float, float, str | None]:
    ratio = len(text) / max(len(source), 1)
    ours, theirs = text.lower().split(), source.lower().split()
    copied = _share(_grams(ours, 4), set(_grams(theirs, 4)), 0.0)
    lines, wanted = _lines(text), _lines(source)
    repeated = Counted(_grams(ours, 5))
    total = sum(repeated.values())
    faults = (
        ("refusal", is_refusal(text)),
        ("preamble", has_preamble(text) and not has_preamble(source)),
        ("language", bool(p.languages) and language not in p.languages),
        ("too_short", ratio < p.min_length_ratio),
        ("too_long", ratio > p.max_length_ratio),
        ("lines", abs(lines - wanted) > max(p.max_line_difference * wanted, 1 if wanted > 1 else 0)),
        ("kept", _share(_KEPT.findall(source), text, 1.0) < p.min_kept),
        ("numbers", _share(_NUMBER.findall(source), set(_NUMBER.findall(text)), 1.0) < p.min_numbers_kept),
        ("not_translated", copied > p.max_copy_rate),
        ("repetition", total > 0 and (total - len(repeated)) / total > p.max_repetition),
    )
    return round(ratio, 4), round(copied, 4), next((name for name, broken in faults if broken), None)


def _lines(text: str) -> int:
    return sum(1 for line in text.split("\n") if line.strip())


def _grams(words: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def _share(items: Sequence[Any], known: Any, empty: float) -> float:
    return sum(1 for item in items if item in known) / len(items) if items else empty
