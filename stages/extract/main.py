"""Gristmill's own main-content extractor: the blocks of a page, judged twice by small gradient-boosted trees.

A page is read once by byte kernels (`markup`, `blocks`): no tree is built and nothing recurses, so that time is linear in
bytes. Each block is described (`features`), given a chance to be main text (`trees`), described again by the chances around it
(`context`), and kept when its second chance passes the threshold that maximises the page's expected word F1.
"""

from __future__ import annotations

import codecs
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field

from stages.contract import BYTES, TEXT, Params, map_stage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stages.extract.blocks import Page
    from stages.extract.metadata import Metadata
    from stages.extract.trees import Model

WEIGHTS = Path(__file__).parent / "models" / "main.npz"
BOMS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
"""Pages that begin so, hold escapes or begin with zeros may be in another encoding although they are valid UTF-8."""


class Main(Params):
    """How main text is chosen and written."""

    mode: Literal["learned", "rules"] = Field("learned", description="Choose blocks by trained trees, or by plain rules alone.")
    format: Literal["markdown", "plain"] = Field(
        "markdown", description="Mark headings (#), ordered lists, pipe tables and code fences, or write the words alone."
    )
    formulas: bool = Field(True, description="Write MathML, MathJax, KaTeX and formula images as LaTeX between dollar signs.")
    max_bytes: int = Field(
        4_000_000, ge=1_000, description="Bytes of a page that are read: larger pages are dumps of data, and cost seconds each."
    )
    max_blocks: int = Field(
        20_000, ge=1, description="Blocks that the trees judge; pages of more blocks are judged by the rules, which need no table."
    )


@functools.cache
def weights() -> Model:
    """The weights that are shipped, read once per process."""
    from stages.extract.trees import load

    return load(WEIGHTS)


def open_model(params: Main) -> Model:
    """The weights, after a first page in both modes: compiling takes up to a minute once per machine, and is no row's fault."""
    model = weights()
    for mode in ("learned", "rules"):
        extract(b"<title>A title</title><p>A few words.</p>", None, params.model_copy(update={"mode": mode}), model)
    return model


@map_stage(
    version=1,
    reads={"html": BYTES, "charset": pa.string()},
    writes={
        "text": TEXT, "title": pa.string(), "language_declared": pa.string(), "canonical_url": pa.string(),
        "published": pa.string(), "drop_reason": pa.string(),
    },
    optional=("charset",),
    model=open_model,
)  # fmt: skip
def main_text(batch: pa.Table, params: Main, *, model: Any = None) -> pa.Table:
    """Turn `html` (bytes; `charset` is what the server declared, or null) into `text` and what the page says about itself.

    `language_declared` is the tag of `<html lang>`, `published` ISO 8601. Pages without main text get the reason
    `no_main_text` and a null text.
    """
    model = model or weights()
    charsets = batch["charset"].to_pylist() if "charset" in batch.column_names else [None] * batch.num_rows
    rows = [extract(html or b"", charset, params, model) for html, charset in zip(batch["html"].to_pylist(), charsets, strict=True)]
    about = {
        name: pa.array([getattr(row.about, name) for row in rows], pa.string())
        for name in ("title", "language_declared", "canonical_url", "published")
    }
    reasons = pa.array([None if row.text else "no_main_text" for row in rows], pa.string())
    return pa.table({"text": pa.array([row.text or None for row in rows], TEXT), **about, "drop_reason": reasons})


class Extracted(NamedTuple):
    """The main text of one page ("" when there is none) and its metadata."""

    text: str
    about: Metadata


def extract(html: bytes, charset: str | None, params: Main, model: Model) -> Extracted:
    """Main text and metadata of one page."""
    from stages.extract.blocks import read_page
    from stages.extract.metadata import read_metadata
    from stages.extract.render import render

    page = read_page(as_utf8(html[: params.max_bytes], charset), formulas=params.formulas)
    kept = np.flatnonzero(choose(page, params, model)) if len(page.blocks) else np.zeros(0, np.int64)
    text = render(page, kept, markdown=params.format == "markdown")
    return Extracted(text, read_metadata(page))


def _is_utf8(html: bytes) -> bool:
    """Whether the bytes are valid UTF-8; Arrow looks without making a string of them, in a third of the time."""
    if html.isascii():
        return True
    places = pa.py_buffer(np.array([0, len(html)], np.int64))
    try:
        pa.LargeStringArray.from_buffers(1, places, pa.py_buffer(html)).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def as_utf8(html: bytes, charset: str | None) -> bytes:
    """The page in UTF-8; bytes that already are come back untouched."""
    from stages.ingest.charset import decode

    if 0 not in html[:1024] and 0x1B not in html and not html.startswith(BOMS) and _is_utf8(html):
        return html
    return decode(html, charset)[0].removeprefix("\ufeff").encode("utf-8", "replace")


def choose(page: Page, params: Main, model: Model) -> NDArray[np.bool_]:
    """Which blocks are main text."""
    from stages.extract import rules
    from stages.extract.wording import measure_all, title_set

    title = title_set(np.frombuffer(page.title, np.uint8))
    counts, hashes = measure_all(page.text, page.blocks, model.words, title)
    if params.mode == "rules" or len(page.blocks) > params.max_blocks:
        kept: NDArray[np.bool_] = rules.keep(page.blocks, page.nodes, counts)
        return kept
    return judge(page, model, counts, hashes)


def judge(page: Page, model: Model, counts: NDArray[np.float32], hashes: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Both looks at every block, and the threshold of the page."""
    from stages.extract.context import FLOOR, beside, surround, threshold
    from stages.extract.features import describe
    from stages.extract.trees import chances, chances_of
    from stages.extract.wording import W_WORDS

    table = describe(page.blocks, page.nodes, page.classes, model.classes, counts, hashes)
    chance = chances(table, model.first)
    open_ = np.flatnonzero(chance > FLOOR)
    around = surround(chance, page.blocks, page.nodes, counts)
    chance[open_] = chances_of(beside(table, around, open_), model.second)
    kept: NDArray[np.bool_] = chance >= threshold(chance, counts[:, W_WORDS].copy())
    return kept
