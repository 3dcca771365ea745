"""The shared analysis of a document: its tokens, found once and read by every filter, by language id and by MinHash.

The column `analysis` is transient (`large_binary`, 32 bytes a token, see `stages.splitting`): taking standing rows is one
memcpy a row, and a reader views it without copying. Tokens carry byte range, length in characters, flags (letter, digit,
punctuation, sentence end, first on a line or in a paragraph) and two hashes, exact and lower-cased; n-gram hashes are
rolled from these. Readers come here for the column's type and views only: the planner inserts the provider stage.

Measured on 1,266 documents of 3.3 KB: cutting takes 36.5 us a document, and writing the tokens down 2.6 us more, so that
one column for all readers beats cutting again in each of them.

Two splitters. `words` (plain): runs of letters, digits, marks and underscores, with apostrophes between letters and
points or commas between digits kept inside; every run of one repeated symbol is a token. Scripts written without spaces
(Han, kana, Thai, Lao, Khmer, Myanmar, Tibetan) give one token a character with its combining marks, so that counts and
n-grams mean something without a dictionary. `spacy_like_words` follows spaCy's English rules, see `stages.spacy_like`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stages import characters
from stages.contract import TEXT, Params, map_stage

ANALYSIS = pa.large_binary()
TOKEN_BYTES = 32

Splitter = Literal["plain", "spacy_like"]
PROVIDERS = {"analysis": "stages.analysis.words", "analysis_spacy_like": "stages.analysis.spacy_like_words"}
"""For `derived=`: a stage reads one of the two columns, as its parameter `words` says (`column_of`)."""


class Words(Params):
    """The splitters have no parameters: one column serves all readers."""


def column_of(splitter: Splitter) -> str:
    """The name of the column that a splitter fills."""
    return "analysis" if splitter == "plain" else "analysis_spacy_like"


def text_buffers(column: Any) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Bytes and int64 offsets of a text (or binary) column without copying a single chunk; null reads as empty."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    wide = TEXT if pa.types.is_string(array.type) or pa.types.is_large_string(array.type) else ANALYSIS
    if array.type != wide:
        array = array.cast(wide)
    if array.null_count:
        array = array.fill_null("" if wide == TEXT else b"")
    _, offsets, data = array.buffers()
    empty = len(array) == 0
    places = np.zeros(1, np.int64) if empty else np.frombuffer(offsets, np.int64, len(array) + 1, array.offset * 8)
    bytes_ = np.frombuffer(data, np.uint8) if data and data.size and not empty else np.zeros(0, np.uint8)
    # Always read-only: a kernel is compiled once more for every mixture of writable and read-only arrays.
    places.flags.writeable = bytes_.flags.writeable = False
    return bytes_, places


def token_view(column: Any) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Tokens of an analysis column as a (tokens, 4) view and, for each row, the number of its first token."""
    data, offsets = text_buffers(column)
    skew = int(offsets[0])
    used = data[skew : int(offsets[-1])].view(np.uint64).reshape(-1, 4)
    return used, (offsets - skew) // TOKEN_BYTES


def _cut(batch: pa.Table, splitter: Callable[..., int], column: str, *more: Any) -> pa.Table:
    data, offsets = text_buffers(batch["text"])
    table, fold = characters.tables()
    ends = np.zeros(len(offsets), np.int64)
    size = int(offsets[-1] - offsets[0])
    # A token per three bytes is more than prose needs; text of bare symbols needs one per byte and is cut again.
    for room in (size // 3 + 16, size + 16):
        out = np.empty((room, 4), np.uint64)
        count = splitter(data, offsets, table, fold, *more, out, ends[1:])
        if count >= 0:
            break
    tokens = pa.py_buffer(out[:count])
    array = pa.LargeBinaryArray.from_buffers(ANALYSIS, len(offsets) - 1, [None, pa.py_buffer(ends * TOKEN_BYTES), tokens])
    return batch.append_column(column, array)


@map_stage(version=1, reads={"text": TEXT}, writes={"analysis": ANALYSIS}, transient=("analysis",))
def words(batch: pa.Table, params: Words) -> pa.Table:  # noqa: ARG001 - the contract's signature
    """Tokens of the plain splitter: `text` in, the transient column `analysis` out (32 bytes a token)."""
    from stages import splitting

    return _cut(batch, splitting.plain, "analysis")


@map_stage(version=1, reads={"text": TEXT}, writes={"analysis_spacy_like": ANALYSIS}, transient=("analysis_spacy_like",))
def spacy_like_words(batch: pa.Table, params: Words) -> pa.Table:  # noqa: ARG001 - the contract's signature
    """Tokens of the spaCy-like splitter: `text` in, the transient column `analysis_spacy_like` out (32 bytes a token)."""
    from stages import english_exceptions, spacy_like

    tables = (english_exceptions.unit_hashes(), *english_exceptions.exception_table())
    return _cut(batch, spacy_like.spacy_like, "analysis_spacy_like", *tables)


def hashes(tokens: list[str]) -> NDArray[np.uint64]:
    """The exact hashes that the kernels give these tokens: for word lists."""
    seed, prime, mask = 0xCBF29CE484222325, 0x9E3779B97F4A7C15, (1 << 64) - 1
    found = []
    for token in tokens:
        value = seed
        for char in token:
            value = (value ^ ord(char)) * prime & mask
        found.append(value ^ value >> 29)
    return np.array(found, np.uint64)
