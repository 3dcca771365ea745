"""From a token of a shard back to its document, by the table that every token shard has beside it.

`<shard>.docs.parquet` has a row for each document in the order of the tokens: `id`, `start` and `tokens`. It lies beside
the shard in the store and travels with it when shards are copied elsewhere.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.place import exists, open_url
from manifests.store import Store, StoreError

DOCS = ".docs.parquet"
SHARDS = (".bin", ".idx", ".parquet", DOCS)


def token_place(what: str) -> tuple[str, int] | None:
    """TOKEN-SHARD:OFFSET taken apart; None for anything else, such as a document id or a URL."""
    shard, colon, offset = what.rpartition(":")
    return (shard, int(offset)) if colon and offset.isdigit() and "/" in shard and "://" not in shard else None


def trace_token(store: Store, shard_path: str, offset: int) -> str:
    """Id of the document that token number `offset` (from 0) of a shard belongs to.

    `shard_path` is a file of the shard or its prefix, as it stands in a blend file, here or under the store. StoreError
    says what is missing when there is no such shard, or no such token in it.
    """
    table = _sidecar(store, shard_path)
    starts = _columns(table, "start", "tokens")
    index = int(np.searchsorted(starts["start"].to_numpy(), offset, side="right")) - 1
    total = pc.sum(starts["tokens"]).as_py() or 0
    if index < 0 or offset >= total:
        raise StoreError(f"{shard_path}: there is no token {offset:,}; the shard has {total:,} (counted from 0)")
    return str(_columns(table, "id")["id"][index].as_py())


def _columns(url: str, *names: str) -> pa.Table:
    with open_url(url) as file:
        return pq.read_table(file, columns=list(names))


def _sidecar(store: Store, shard_path: str) -> str:
    stem = next((shard_path.removesuffix(suffix) for suffix in SHARDS[::-1] if shard_path.endswith(suffix)), shard_path)
    if exists(stem + DOCS):
        return stem + DOCS
    name = stem.rsplit("/", 1)[-1] + DOCS
    exports = (o for o in store.objects() if o.asked() and o.question()["shape"] == "export")
    found = [url for url in (o.part(name, "") for o in exports) if exists(url)]
    if not found:
        raise StoreError(f"{shard_path}: no {name} beside it or in {store.url}; name a token shard as its blend does")
    if any(not _columns(url, "id", "start").equals(_columns(found[0], "id", "start")) for url in found[1:]):
        raise StoreError(
            f"{shard_path}: several steps have a shard of this name: {', '.join(found[:3])}; name one by its whole path"
        )
    return found[0]
