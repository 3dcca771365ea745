"""Broken Unicode: mojibake, stray entities and control characters, by ftfy."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from stages.contract import TEXT, Params, map_stage

SUSPECT_ASCII = r"[^\t\n\f -~]|&#?[0-9A-Za-z]{1,24};"
"""Text without a match is plain ASCII with neither control characters, CR nor entities: no fixer of ftfy can change it."""

SUSPECT = re.compile(
    "[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\u206a-\u206f\ufeff\ufff9-\ufffc]"  # control characters, C1, annotations, BOM
    "|&#?[0-9A-Za-z]{1,24};"
    "|\n[ÃÂ] "  # the one rule of ftfy's badness that is anchored to the start of a line
)


class Unicode(Params):
    """Which repairs to make. The defaults are Nemotron-CC's (NeMo Curator's UnicodeReformatter as its recipe sets it)."""

    unescape_html: bool = Field(True, description="Decode HTML entities, on the lines before the first '<' of a text.")
    uncurl_quotes: bool = Field(False, description="Make curly quotation marks straight.")
    fix_latin_ligatures: bool = Field(False, description="Take ligatures such as U+FB01 apart.")
    fix_character_width: bool = Field(False, description="Turn full-width Latin and half-width kana into the usual forms.")
    fix_line_breaks: bool = Field(False, description="Turn CR LF, CR and Unicode line breaks into LF.")
    remove_control_chars: bool = Field(True, description="Remove control characters that are not white space.")
    normalization: str | None = Field(None, pattern="^NFK?[CD]$", description="Unicode normal form, such as NFC; null: as it is.")

    @property
    def mild(self) -> bool:
        """Whether only rows that `SUSPECT` or ftfy's badness finds can change."""
        odd = (self.uncurl_quotes, self.fix_latin_ligatures, self.fix_character_width, self.fix_line_breaks, self.normalization)
        return not any(odd)


@map_stage(version=1, reads={"text": TEXT}, writes={"text": TEXT}, libraries=("ftfy",))
def repair(batch: pa.Table, params: Unicode) -> pa.Table:
    """Repair `text` with ftfy (Speer, 2019): mojibake, entities, control characters; sound text comes back unchanged.

    Only rows that a fix can touch reach ftfy: of plain ASCII costs one pass of a regular expression in Arrow, other
    scripts one pass of ftfy's own mojibake detector.
    """
    text = batch["text"].combine_chunks()
    chosen = pc.fill_null(pc.match_substring_regex(text, SUSPECT_ASCII), False)
    rows = text.filter(chosen).to_pylist()
    if not rows:
        return pa.table({"text": text})
    config = _config(params)
    repaired = pa.array([_repair(row, params, config) for row in rows], TEXT)
    return pa.table({"text": pc.replace_with_mask(text, chosen, repaired)})


def _config(params: Unicode) -> Any:
    import ftfy

    options = params.model_dump()
    return ftfy.TextFixerConfig(**{**options, "unescape_html": "auto" if params.unescape_html else False}, explain=False)


def _repair(text: str, params: Unicode, config: Any) -> str:
    import ftfy
    from ftfy.badness import is_bad

    if params.mild and len(text) <= config.max_decode_length and not may_change(text, is_bad):
        return text
    return str(ftfy.fix_text(text, config))


def may_change(text: str, is_bad: Any) -> bool:
    """Whether ftfy with its mild settings could change the text; ftfy works by line, and no match of its rules needs more."""
    return SUSPECT.search(text) is not None or text.startswith(("Ã ", "Â ")) or bool(is_bad(text))
