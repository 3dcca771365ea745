"""Exact duplicates: documents with the same text, or rows with the same address, after a declared normalisation."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from pydantic import Field

from stages.contract import TEXT, Params, reduce_stage

LAST = np.iinfo(np.int64).max

TRACKING = re.compile(
    r"^(utm_\w+|gclid|dclid|gbraid|wbraid|fbclid|msclkid|yclid|twclid|ttclid|igshid|mc_[ce]id|_ga|_gl|_hsenc|_hsmi|mkt_tok|"
    r"phpsessid|jsessionid|aspsessionid\w*)$",
    re.IGNORECASE,
)
"""Query parameters that name the click or the session and never the document."""


class Survivor(Params):
    """Which of several equal rows stays."""

    keep: Literal["first", "longest", "oldest", "newest", "highest"] = Field(
        "first", description="Who stays: smallest id, longest text, oldest or newest date, highest value of `by`; then smallest id."
    )
    by: str | None = Field(None, description="Numeric column for keep: highest.")
    prefer: tuple[str, ...] = Field((), description="Sources in order of preference, before `keep`; sources not named come last.")
    partitions: int = Field(64, ge=1, description="Parts of the exchange; one part must fit into memory (80 bytes a row).")

    def model_post_init(self, _context: Any) -> None:
        """Refuse `highest` without a column, and a column without `highest`."""
        if (self.keep == "highest") != (self.by is not None):
            raise ValueError("keep: highest and by: COLUMN belong together")

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """Columns beside the compared one that decide who stays."""
        needed: dict[str, pa.DataType] = {"id": pa.string(), "row": pa.int64()}
        needed |= {"source": pa.string()} if self.prefer else {}
        needed |= {"date": pa.string()} if self.keep in {"oldest", "newest"} else {}
        needed |= {"text": TEXT} if self.keep == "longest" else {}
        return needed | ({self.by: pa.float64()} if self.by else {})


class Documents(Survivor):
    """What makes two texts equal."""

    normalize: Literal["none", "whitespace", "nfc_casefold"] = Field(
        "none", description="none: byte by byte; whitespace: runs of it are one space; nfc_casefold: NFC and case-folded as well."
    )


class Urls(Survivor):
    """What makes two addresses equal: never the scheme, default ports, the fragment, or the order of query parameters."""

    keep_query: bool = Field(True, description="Compare query strings (without tracking and session parameters).")
    strip_www: bool = Field(True, description="Take www.host and host for the same.")


def normal_text(text: str, how: str) -> str:
    """A text as it is compared: `none`, `whitespace` or `nfc_casefold`."""
    if how == "none":
        return text
    text = " ".join(text.split())
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold()) if how == "nfc_casefold" else text


def normal_url(url: str, params: Urls) -> str:
    """An address as it is compared; what is not a URL is compared as it stands."""
    try:
        parts = urlsplit(url.strip())
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        return url
    if params.strip_www:
        host = host.removeprefix("www.")
    if port and port not in {80, 443}:
        host = f"{host}:{port}"
    query = sorted((k, v) for k, v in parse_qsl(parts.query, keep_blank_values=True) if not TRACKING.match(k))
    tail = f"?{urlencode(query)}" if query and params.keep_query else ""
    return f"{host}{parts.path.rstrip('/')}{tail}"


def _priority(batch: pa.Table, params: Survivor) -> np.ndarray[Any, Any]:
    """Smaller stays. Rows without a date or value come last; NaN is no value."""
    match params.keep:
        case "longest":
            return -np.asarray(pc.fill_null(pc.binary_length(batch["text"]), 0), np.int64)
        case "oldest" | "newest":
            digits = pc.utf8_slice_codeunits(pc.replace_substring_regex(batch["date"], r"\D", ""), 0, 14)
            when = np.asarray(pc.fill_null(pc.cast(pc.utf8_rpad(_numbers(digits), 14, "0"), pa.int64()), -1), np.int64)
            return np.where(when < 0, LAST, when if params.keep == "oldest" else -when)
        case "highest":
            return _descending(np.asarray(pc.fill_null(pc.cast(batch[params.by], pa.float64()), float("nan"))))
        case _:
            return np.zeros(batch.num_rows, np.int64)


def _numbers(digits: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(pc.equal(digits, ""), pa.scalar(None, pa.string()), digits)


def _descending(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Integers that order as the floats do from high to low: IEEE 754 bits order as integers once negatives are mirrored."""
    bits = (values + 0.0).view(np.int64)
    ascending = np.where(bits < 0, np.int64(-(2**63)) - bits, bits)
    return np.where(np.isnan(values), LAST, -ascending)


def _emit(compared: list[bytes | None], batch: pa.Table, params: Survivor) -> pa.Table:
    digests = [xxhash.xxh3_128_digest(value) if value is not None else None for value in compared]
    present = np.array([digest is not None for digest in digests], bool)
    joined = b"".join(digest for digest in digests if digest is not None)
    rank = {source: place for place, source in enumerate(params.prefer)}
    sources = batch["source"].to_pylist() if rank else [None] * batch.num_rows
    table = pa.table(
        {
            "source_rank": pa.array([rank.get(str(source), len(rank)) for source in sources], pa.int32()),
            "priority": _priority(batch, params),
            "id": batch["id"],
            "row": batch["row"],
        }
    ).filter(pa.array(present))
    keys = np.frombuffer(joined, ">u8")[::2].astype(np.uint64)
    digest = pa.Array.from_buffers(pa.binary(16), len(keys), [None, pa.py_buffer(joined)])
    return table.add_column(0, "digest", digest).add_column(0, "key", pa.array(keys))


EMITS = {
    "key": pa.uint64(), "digest": pa.binary(16), "source_rank": pa.int32(), "priority": pa.int64(), "id": pa.string(),
    "row": pa.int64(),
}  # fmt: skip
WRITES = {"row": pa.int64(), "drop_reason": pa.string(), "twin": pa.string()}
ORDER = [(name, "ascending") for name in ("digest", "source_rank", "priority", "id", "row")]


def _settle(reason: str) -> Callable[[Iterator[pa.Table], Survivor], Iterator[pa.Table]]:
    def settle(batches: Iterator[pa.Table], _params: Survivor) -> Iterator[pa.Table]:
        for batch in batches:
            yield _verdicts(batch, reason)

    return settle


def _verdicts(batch: pa.Table, reason: str) -> pa.Table:
    """Rows of a batch that have a better twin. Most keys stand alone: only neighbours with equal keys are sorted."""
    key = batch["key"].to_numpy()
    same = np.zeros(len(key) + 1, bool)
    same[1:-1] = key[1:] == key[:-1]
    rows = batch.filter(pa.array(same[1:] | same[:-1])).sort_by(ORDER).combine_chunks()
    digest = np.array(rows["digest"].to_pylist(), dtype="V16")
    first = np.ones(len(digest), bool)
    first[1:] = digest[1:] != digest[:-1]
    survivor = np.maximum.accumulate(np.where(first, np.arange(len(digest)), 0))
    lost = pa.array(~first)
    twin = rows["id"].take(pa.array(survivor)).filter(lost)
    return pa.table(
        {"row": rows["row"].filter(lost), "drop_reason": pa.array([reason] * len(twin), pa.string()), "twin": twin},
        schema=pa.schema(WRITES),
    )


@reduce_stage(
    version=1,
    reads=lambda params: {"text": TEXT, **params.columns},
    emits=EMITS,
    writes=WRITES,
    settle=_settle("exact_duplicate"),
    libraries=("xxhash",),
)
def documents(batch: pa.Table, params: Documents) -> pa.Table:
    """Of rows with equal `text` one stays; the others are `exact_duplicate` and name it in `twin` (its id).

    Equality is a 128-bit hash (xxh3) of the normalised text. The survivor depends on the rows alone, never on the order
    in which they arrive: preferred source, `keep`, smallest id. Rows without text take no part.
    """
    if params.normalize == "none":
        compared = pc.cast(batch["text"], pa.large_binary()).to_pylist()
    else:
        texts = batch["text"].to_pylist()
        compared = [None if text is None else normal_text(text, params.normalize).encode() for text in texts]
    return _emit(compared, batch, params)


@reduce_stage(
    version=1,
    reads=lambda params: {"url": pa.string(), **params.columns},
    emits=EMITS,
    writes=WRITES,
    settle=_settle("url_duplicate"),
    libraries=("xxhash",),
)
def urls(batch: pa.Table, params: Urls) -> pa.Table:
    """Of rows with equal `url` one stays; the others are `url_duplicate` and name it in `twin` (its id).

    Rows without a URL take no part.
    """
    addresses = batch["url"].to_pylist()
    return _emit([None if url is None else normal_url(url, params).encode() for url in addresses], batch, params)
