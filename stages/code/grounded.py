"""Whether a page that a language model cleaned up still says what the page said: its code and its numbers.

Nemotron-CC-Math and -Code have pages rewritten by a model and do not say that anything was checked. Here each block of code of
the answer must stand in the page line by line, and its numbers must too; indentation counts, blank lines do not.
"""

from __future__ import annotations

import re

import pyarrow as pa
from pydantic import Field

from stages.contract import TEXT, Params, map_stage

FENCED = re.compile(r"^[ \t]*(```|~~~)[^\n]*\n(.*?)^[ \t]*\1[ \t]*$", re.MULTILINE | re.DOTALL)
FORMULA = re.compile(r"\$\$.+?\$\$|\\\[.+?\\\]|\\\(.+?\\\)|(?<![\w$\\])\$[^\s$][^$\n]*?\$(?![\w$])", re.DOTALL)
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


class Grounded(Params):
    """How much of an answer must stand in its source."""

    min_code: float = Field(
        1.0, ge=0, le=1, description="Smallest share of the lines of code that stand in the source with their indentation."
    )
    min_numbers: float = Field(1.0, ge=0, le=1, description="Smallest share of the numbers that stand in the source.")
    min_words: float = Field(
        0.8, ge=0, le=1, description="Smallest share of the words outside of code and formulas that stand in the source."
    )
    min_length: float = Field(0.05, ge=0, description="Shortest answer, as a share of the source's length.")
    rejected: str = Field(
        "drop", pattern="^(drop|keep_source)$", description="drop, or keep_source: the source takes the answer's place."
    )


WRITES = {
    "text": TEXT, "code_kept": pa.float32(), "numbers_kept": pa.float32(), "words_kept": pa.float32(), "rejected": pa.string(),
    "drop_reason": pa.string(),
}  # fmt: skip


@map_stage(version=1, reads={"text": TEXT, "source_text": TEXT}, writes=WRITES)
def answers(batch: pa.Table, params: Grounded) -> pa.Table:
    """Judge the cleaned page in `text` by the page in `source_text`; `rejected` names the first reason against it.

    Reasons: too_short, invented_code, invented_numbers, invented_words. `code_kept`, `numbers_kept` and `words_kept` are the
    shares of the answer that stand in the source, null where the answer has none.
    """
    rows = [
        judge(text or "", source or "", params)
        for text, source in zip(*(batch[c].to_pylist() for c in ("text", "source_text")), strict=True)
    ]
    drop = params.rejected == "drop"
    columns = list(zip(*rows, strict=True)) or [()] * 4
    texts = [
        text if drop or reason is None else source
        for text, source, reason in zip(batch["text"].to_pylist(), batch["source_text"].to_pylist(), columns[3], strict=True)
    ]
    shares = {
        name: pa.array(column, pa.float32())
        for name, column in zip(("code_kept", "numbers_kept", "words_kept"), columns[:3], strict=True)
    }
    reasons = pa.array(columns[3], pa.string())
    return pa.table(
        {
            "text": pa.array(texts, TEXT),
            **shares,
            "rejected": reasons,
            "drop_reason": reasons if drop else pa.nulls(len(rows), pa.string()),
        }
    )


def judge(text: str, source: str, params: Grounded) -> tuple[float | None, float | None, float | None, str | None]:
    """Shares of code lines, numbers and words that stand in the source, and the first reason against the answer."""
    here = {line.rstrip() for line in source.splitlines()}
    blocks = [[line.rstrip() for line in block.splitlines() if line.strip()] for _, block in FENCED.findall(text)]
    code = _share([found for block in blocks for found in _standing(block, here)])
    prose = FORMULA.sub(" ", FENCED.sub(" ", text))
    known = set(NUMBER.findall(source))
    numbers = _share([number in known for number in NUMBER.findall(FENCED.sub(" ", text))])
    words = set(re.findall(r"\w+", source.lower()))
    kept = _share([word in words for word in re.findall(r"[^\W\d_]+", prose.lower())])
    checks = (
        ("too_short", len(text) < params.min_length * len(source)),
        ("invented_code", code is not None and code < params.min_code),
        ("invented_numbers", numbers is not None and numbers < params.min_numbers),
        ("invented_words", kept is not None and kept < params.min_words),
    )
    return code, numbers, kept, next((name for name, holds in checks if holds), None)


def _standing(block: list[str], here: set[str]) -> list[bool]:
    """Which lines of a block stand in the source; a renderer may have moved the whole block up to eight columns to the right."""
    tries = ([" " * shift + line in here for line in block] for shift in range(9))
    return max(tries, key=sum)


def _share(found: list[bool]) -> float | None:
    return sum(found) / len(found) if found else None
