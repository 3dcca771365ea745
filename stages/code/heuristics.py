"""What the characters, words and lines of a source file say about it: no language is looked at.

Source: Huang et al. 2024, OpenCoder (arXiv 2411.04905), appendix on RefineCode's filters, rules for all code; repeated
n-grams and lines are `stages.filters.gopher.repetition` with OpenCoder's limits. The paper prints limits and no definitions of
"long string", "long word" and "encoded"; ours stand at the parameters.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from stages.contract import TEXT, Params, map_stage

_WORD = re.compile(r"\w+")
_HEX = re.compile(r"0[xX][0-9a-fA-F]+|\\x[0-9a-fA-F]{2}|\b[0-9a-fA-F]{8,}\b")
FEW_DIGITS = 0.04
"""Under this share of digits nothing is counted as hexadecimal: ten of sixteen hexadecimal digits are digits."""
_ENCODED = re.compile(
    r"[A-Za-z0-9+/]{256,}={0,2}|(?:\\x[0-9a-fA-F]{2}){64,}|(?:0[xX][0-9a-fA-F]{1,8}\s*,\s*){64,}|[0-9a-fA-F]{256,}"
)
_QUOTED = re.compile(r'"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'|`(?:[^`\\\n]|\\.)*`')
_PROMPT = re.compile(
    r"(?:#|//|/\*|--|<!--).{0,20}(?:your (?:code|solution|implementation|answer)|"
    r"(?:write|add|put|insert|enter|type) (?:your|the) code|code goes here|implement (?:this|me) here)",
    re.IGNORECASE,
)
_ASSERT = re.compile(
    r"^[ \t]*(?:(?:self\.)?assert\w*|(?:t|assert|Assert|ASSERT|EXPECT|chai|expect|require)[._(]\S*)(?:\b|$)", re.MULTILINE
)
_XML = re.compile(r"\s*<\?xml\b")
_SPACE = bytes(range(9, 14)) + b" "
_DIGITS = b"0123456789"
_LETTERS = bytes(range(65, 91)) + bytes(range(97, 123))

MEASURES = (
    "chars", "words", "lines", "mean_word", "replacement_chars", "max_line", "mean_line", "letters", "digits", "spaces",
    "long_string_lines", "string_chars", "long_words", "encoded", "hex_chars", "prompt_comments", "asserts", "xml",
)  # fmt: skip


class General(Params):
    """Parameters of `general`; null switches a rule off. Limits are OpenCoder's."""

    min_words: int | None = Field(30, description="Fewest words (runs between white space).")
    min_chars: int | None = Field(50, description="Fewest characters.")
    max_bytes: int | None = Field(3_000_000, description="Largest file, in bytes of UTF-8. OpenCoder: 3 MB.")
    min_mean_word: float | None = Field(2, description="Shortest mean word (runs of letters, digits and underscores).")
    max_mean_word: float | None = Field(10, description="Longest mean word.")
    max_replacement_chars: float | None = Field(
        0.01, description="Largest share of U+FFFD, which stands for bytes that did not decode."
    )
    min_lines: int | None = Field(10, description="Fewest lines.")
    max_lines: int | None = Field(100_000, description="Most lines.")
    max_line: int | None = Field(1000, description="Characters of the longest line.")
    min_mean_line: float | None = Field(5, description="Shortest mean line.")
    max_mean_line: float | None = Field(100, description="Longest mean line.")
    min_letters: float | None = Field(
        0.5, description="Smallest share of letters among what is not white space: indentation is no fault."
    )
    max_digits: float | None = Field(0.2, description="Largest share of digits.")
    digits_by_language: dict[str, float] = Field({"SQL": 0.3}, description="Largest share of digits in these languages instead.")
    max_spaces: float | None = Field(0.5, description="Largest share of white space.")
    max_long_string_lines: float | None = Field(0.2, description="Largest share of lines with a long string.")
    long_string: int = Field(100, description="Characters of the shortest long string.")
    max_string_chars: float | None = Field(0.6, description="Largest share of characters in strings that end on their line.")
    max_long_words: float | None = Field(0.4, description="Largest share of characters in long words.")
    long_word: int = Field(25, description="Characters of the shortest long word.")
    encoded: bool = Field(
        True, description="Drop files with encoded data: 256 characters of base64 or hexadecimal digits, 64 byte codes."
    )
    max_hex: float | None = Field(0.4, description="Largest share of characters in hexadecimal numbers.")
    max_prompt_comments: float | None = Field(0.01, description="Largest share of lines that ask for code to be written here.")
    max_asserts: float | None = Field(0.4, description="Largest share of lines that assert.")
    xml: bool = Field(True, description="Drop files that begin with an XML declaration.")
    stats: bool = Field(False, description="Also write the values that decided, as columns.")


def _writes(params: General) -> dict[str, pa.DataType]:
    return {"drop_reason": pa.string(), **({f"code_{name}": pa.float32() for name in MEASURES} if params.stats else {})}


@map_stage(version=1, reads={"text": TEXT, "code_language": pa.string()}, writes=_writes, optional=("code_language",))
def general(batch: pa.Table, params: General) -> pa.Table:
    """OpenCoder's rules for all code: `text` in, `drop_reason` out, and with `stats` the values that decided.

    Reasons, in order: too_large, too_few_chars, too_few_words, too_few_lines, too_many_lines, xml, replacement_chars,
    line_too_long, mean_line_too_short, mean_line_too_long, mean_word_too_short, mean_word_too_long, too_few_letters,
    too_many_digits, too_many_spaces, encoded_data, too_much_hex, long_words, long_strings, mostly_strings, prompt_comments,
    mostly_asserts.
    """
    spoken = batch["code_language"].to_pylist() if "code_language" in batch.column_names else [None] * batch.num_rows
    measured, reasons = [], []
    for text, language in zip(batch["text"].to_pylist(), spoken, strict=True):
        values = measure(text or "", params)
        measured.append(values)
        reasons.append(reason(values, language, params))
    out: dict[str, Any] = {"drop_reason": pa.array(reasons, pa.string())}
    if params.stats:
        out |= {f"code_{name}": pa.array([values.get(name) for values in measured], pa.float32()) for name in MEASURES}
    return pa.table(out)


def measure(text: str, params: General) -> dict[str, float]:
    """All MEASURES of a text; of one over `max_bytes` its size alone."""
    raw = text.encode("utf-8", "replace")
    if params.max_bytes is not None and len(raw) > params.max_bytes:
        return {"chars": len(text), "bytes": len(raw)}
    chars, lines = max(1, len(text)), text.splitlines()
    words = _WORD.findall(text)
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    widths = np.fromiter(map(len, lines), np.int64, len(lines))
    strings = (
        [len(found) - 2 for line in lines for found in _QUOTED.findall(line)] if max(map(len, lines), default=0) <= 10_000 else []
    )
    runs = text.split()
    some, digits = max(1, len(lines)), _count(raw, _DIGITS) / chars
    solid = max(1, len(text) - _count(raw, _SPACE))
    return {
        "bytes": len(raw),
        "chars": len(text),
        "words": len(runs),
        "lines": len(lines),
        "mean_word": float(lengths.mean()) if len(words) else 0.0,
        "replacement_chars": text.count("\ufffd") / chars,
        "max_line": float(widths.max(initial=0)),
        "mean_line": float(widths.mean()) if len(lines) else 0.0,
        "letters": _letters(text, raw) / solid,
        "digits": digits,
        "spaces": _count(raw, _SPACE) / chars,
        "long_string_lines": min(1.0, sum(length >= params.long_string for length in strings) / some),
        "string_chars": sum(strings) / chars,
        "long_words": float(lengths[lengths >= params.long_word].sum()) / chars,
        "encoded": float(_is_encoded(text, runs)),
        "hex_chars": sum(map(len, _HEX.findall(text))) / chars if digits > FEW_DIGITS else 0.0,
        "prompt_comments": _prompts(text) / some,
        "asserts": sum(1 for _ in _ASSERT.finditer(text)) / some,
        "xml": float(_XML.match(text) is not None),
    }


def _is_encoded(text: str, runs: list[str]) -> bool:
    """Whether the text holds encoded data; the expression is tried only where its parts are there."""
    possible = max(map(len, runs), default=0) >= 256 or text.count("0x") + text.count("0X") >= 64 or text.count("\\x") >= 64
    return possible and _ENCODED.search(text) is not None


def _prompts(text: str) -> int:
    lowered = text.lower()
    return sum(1 for _ in _PROMPT.finditer(text)) if "here" in lowered or "your " in lowered else 0


def _count(raw: bytes, among: bytes) -> int:
    return len(raw) - len(raw.translate(None, among))


def _letters(text: str, raw: bytes) -> int:
    ascii_letters = _count(raw, _LETTERS)
    return ascii_letters if len(raw) == len(text) else ascii_letters + sum(char.isalpha() for char in text if char > "\x7f")


def reason(v: dict[str, float], language: str | None, p: General) -> str | None:
    """The first rule that a file breaks, or None."""
    if p.max_bytes is not None and v["bytes"] > p.max_bytes:
        return "too_large"
    digits = p.digits_by_language.get(language or "", p.max_digits) if p.max_digits is not None else None
    rules = (
        ("too_few_chars", v["chars"], p.min_chars, None),
        ("too_few_words", v["words"], p.min_words, None),
        ("too_few_lines", v["lines"], p.min_lines, None),
        ("too_many_lines", v["lines"], None, p.max_lines),
        ("xml", v["xml"], None, 0 if p.xml else None),
        ("replacement_chars", v["replacement_chars"], None, p.max_replacement_chars),
        ("line_too_long", v["max_line"], None, p.max_line),
        ("mean_line_too_short", v["mean_line"], p.min_mean_line, None),
        ("mean_line_too_long", v["mean_line"], None, p.max_mean_line),
        ("mean_word_too_short", v["mean_word"], p.min_mean_word, None),
        ("mean_word_too_long", v["mean_word"], None, p.max_mean_word),
        ("too_few_letters", v["letters"], p.min_letters, None),
        ("too_many_digits", v["digits"], None, digits),
        ("too_many_spaces", v["spaces"], None, p.max_spaces),
        ("encoded_data", v["encoded"], None, 0 if p.encoded else None),
        ("too_much_hex", v["hex_chars"], None, p.max_hex),
        ("long_words", v["long_words"], None, p.max_long_words),
        ("long_strings", v["long_string_lines"], None, p.max_long_string_lines),
        ("mostly_strings", v["string_chars"], None, p.max_string_chars),
        ("prompt_comments", v["prompt_comments"], None, p.max_prompt_comments),
        ("mostly_asserts", v["asserts"], None, p.max_asserts),
    )
    for name, value, least, most in rules:
        if (least is not None and value < least) or (most is not None and value > most):
            return name
    return None
