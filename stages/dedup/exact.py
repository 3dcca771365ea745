"""Exact duplicates: documents with the same text, or rows with the same address, after a declared normalisation."""

from __future__ import annotations

import re
import unicodedata
from typing import Literal
from urllib.parse import parse_qsl, urlencode, urlsplit

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from stages.contract import TEXT, reduce_stage
from stages.dedup.survivor import LOSER, WRITES, Survivor, contest, emits_of, settle_as

TRACKING = re.compile(
    r"^(utm_\w+|gclid|dclid|gbraid|wbraid|fbclid|msclkid|yclid|twclid|ttclid|igshid|mc_[ce]id|_ga|_gl|_hsenc|_hsmi|mkt_tok|"
    r"phpsessid|jsessionid|aspsessionid\w*)$",
    re.IGNORECASE,
)
"""Query parameters that name the click or the session and never the document."""


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


@reduce_stage(
    version=1,
    reads=lambda params: {"text": TEXT, **params.columns},
    emits=emits_of,
    writes=WRITES,
    settle=settle_as("exact_duplicate"),
    alone=False,
    memory=lambda _params: LOSER,
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
    return contest(compared, batch, params)


@reduce_stage(
    version=1,
    reads=lambda params: {"url": pa.string(), **params.columns},
    emits=emits_of,
    writes=WRITES,
    settle=settle_as("url_duplicate"),
    alone=False,
    memory=lambda _params: LOSER,
    libraries=("xxhash",),
)
def urls(batch: pa.Table, params: Urls) -> pa.Table:
    """Of rows with equal `url` one stays; the others are `url_duplicate` and name it in `twin` (its id).

    Rows without a URL take no part.
    """
    addresses = batch["url"].to_pylist()
    return contest([None if url is None else normal_url(url, params).encode() for url in addresses], batch, params)
