"""Python quality by pylint, as SwallowCode scores it: pylint's note, made smaller by the share of comments.

Source: Fujii et al. 2025, SwallowCode (arXiv 2505.02881): nine messages are switched off, files under 7.0 go.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from pydantic import Field

from stages.code.linter import Linted, Linter, Pylint, comment_share
from stages.contract import TEXT, map_stage

COUNTED = {"fatal": "F", "errors": "E", "warnings": "W", "refactors": "R", "conventions": "C"}
WRITES = {
    "lint_score": pa.float32(), "lint_note": pa.float32(), "lint_comments": pa.float32(), "lint_statements": pa.int32(),
    **{f"lint_{name}": pa.int32() for name in COUNTED},
    "lint_messages": pa.list_(pa.struct([("message", pa.string()), ("count", pa.int32())])),
    "lint_status": pa.string(), "drop_reason": pa.string(),
}  # fmt: skip


class Score(Pylint):
    """How files are scored and which stay."""

    min_score: float | None = Field(7.0, description="Lowest score that stays; null drops nothing for its score. SwallowCode: 7.0.")
    languages: tuple[str, ...] = Field(("Python",), description="Languages that are linted; files in others stand without a score.")


@map_stage(
    version=1, reads={"text": TEXT, "code_language": pa.string()}, writes=WRITES, optional=("code_language",), model=Linter,
    libraries=("pylint", "astroid"), seconds_per_row=180.0,
)  # fmt: skip
def score(batch: pa.Table, params: Score, model: Linter) -> pa.Table:
    """Score `text` by pylint: `lint_score` (0 to 10, comment-penalised), what made it, and all messages by id.

    `lint_note` is pylint's own note, `lint_comments` the share of comment tokens, `lint_status` ok, fatal (pylint gave up on
    the file: note 0), timeout or crash (no score). Reasons: lint_score_low, lint_timeout, lint_crash, no_statements. Rows of
    other languages stand with nulls. Sources can import the standard library only: a score never depends on what is
    installed beside us.
    """
    spoken = batch["code_language"].to_pylist() if "code_language" in batch.column_names else [None] * batch.num_rows
    wanted = [language is None or language in params.languages for language in spoken]
    texts = batch["text"].to_pylist()
    rows = [_row(text or "", model.lint(text or ""), params) if want else {} for text, want in zip(texts, wanted, strict=True)]
    return pa.table({name: pa.array([row.get(name) for row in rows], kind) for name, kind in WRITES.items()})


def _row(text: str, linted: Linted, params: Score) -> dict[str, Any]:
    comments = comment_share(text)
    value = None if linted.score is None else linted.score * (1 - comments)
    low = value is not None and params.min_score is not None and value < params.min_score
    failed = f"lint_{linted.status}" if linted.status in ("timeout", "crash") else "no_statements" if value is None else None
    return {
        "lint_score": value, "lint_note": linted.score, "lint_comments": comments, "lint_statements": linted.statements,
        **{f"lint_{name}": linted.count(letter) for name, letter in COUNTED.items()},
        "lint_messages": [{"message": name, "count": count} for name, count in linted.messages.items()],
        "lint_status": linted.status, "drop_reason": failed or ("lint_score_low" if low else None),
    }  # fmt: skip
