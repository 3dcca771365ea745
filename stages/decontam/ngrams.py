"""Test items of benchmarks in training documents, by overlap of word n-grams: marked, reported, dropped or cut.

13 words after normalisation are the rule of GPT-3 (arXiv 2005.14165, appendix C). A test item of fewer words is looked for
as a whole. An item whose words were changed more often than every thirteenth is not found by this: see the parameter `size`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from stages import characters
from stages.analysis import text_buffers
from stages.contract import TEXT, Params, file, map_stage
from stages.decontam.items import Grams, build, read_items

SPANS = pa.binary()


class Overlap(Params):
    """What is looked for, and what counts as found."""

    benchmarks: str = file(..., "File or folder of test items: .jsonl, .jsonl.gz, .json, .csv or .parquet.")
    fields: tuple[str, ...] = Field(
        ("question", "prompt", "problem", "text", "goal", "sentence"),
        min_length=1,
        description="Field of the text; the first there is.",
    )
    only: tuple[str, ...] = Field((), description="Benchmarks to look for, by name; none named: all.")
    size: int = Field(13, ge=2, le=64, description="Words of an n-gram.")
    least_words: int = Field(8, ge=1, description="Items of fewer words are not looked for; those below `size` only as a whole.")
    most_items: int = Field(10, ge=1, description="N-grams of more items than this are the form of a task, and pass.")
    min_share: float = Field(0.0, ge=0, le=1, description="Share of an item's n-grams that a document must hold.")


class Mark(Overlap):
    """What happens to a document that holds a test item."""

    policy: Literal["drop", "mark"] = Field(
        "drop", description="drop: it is `contaminated`; mark: columns only, to cut by `spans`."
    )


def _open(params: Overlap) -> Grams:
    return build(read_items(params.benchmarks, params.fields, params.only), params.size, params.least_words, params.most_items)


def _scan(batch: pa.Table, model: Grams) -> NDArray[np.int64]:
    from stages.decontam.matching import scan

    data, offsets = text_buffers(batch["text"])
    if not len(model.lengths):
        return np.empty((0, 4), np.int64)
    room = 1 << 14
    while True:
        hits = np.empty((room, 4), np.int64)
        count = scan(data, offsets, model.lengths, *characters.tables(), model.keys, model.first, hits)
        if count >= 0:
            return hits[:count]
        room *= 8


Found = tuple[int, list[tuple[int, int, float, NDArray[np.int64]]]]


def _found(batch: pa.Table, params: Overlap, model: Grams) -> Iterator[Found]:
    """For each row with hits: (item, n-grams, share, places (n, 2)) of every item found, most n-grams first."""
    hits = _scan(batch, model)
    edges = np.flatnonzero(np.diff(hits[:, 0], prepend=-1, append=-2)).tolist() if len(hits) else []
    for low, high in pairwise(edges):
        rows = hits[low:high]
        counts = np.diff(model.starts)[rows[:, 1]]
        which = np.repeat(np.arange(len(rows)), counts)
        within = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
        items = model.postings[model.starts[rows[which, 1]] + within]
        found = []
        for item in np.unique(items):
            mine = rows[which[items == item]]
            grams = len(np.unique(mine[:, 1]))
            share = grams / int(model.sizes[item])
            if share >= params.min_share:
                found.append((int(item), grams, share, mine[:, 2:]))
        if found:
            yield int(rows[0, 0]), sorted(found, key=lambda f: (-f[1], -f[2], f[0]))


def _joined(places: NDArray[np.int64]) -> bytes:
    """The union of byte ranges as int64 pairs."""
    places = places[np.argsort(places[:, 0], kind="stable")]
    reach = np.maximum.accumulate(places[:, 1])
    fresh = np.append(True, places[1:, 0] > reach[:-1])
    return (
        np.stack([places[fresh, 0], reach[np.append(np.flatnonzero(fresh)[1:] - 1, len(reach) - 1)]], axis=1)
        .astype("<i8")
        .tobytes()
    )


@map_stage(
    version=1,
    reads={"text": TEXT},
    writes={
        "contaminated_by": pa.string(), "contamination_grams": pa.int32(), "contamination_share": pa.float32(),
        "contaminated_spans": SPANS, "drop_reason": pa.string(),
    },
    model=_open,
)  # fmt: skip
def mark(batch: pa.Table, params: Mark, model: Grams) -> pa.Table:
    """The test item that a document holds most of: `text` in; `contaminated_by` (benchmark/item), its n-grams and share out.

    `contaminated_spans` are the bytes of all items found, for `stages.dedup.spans.cut`. ValueError for unreadable benchmarks.
    """
    empty: list[Any] = [None] * batch.num_rows
    by, grams, share, spans, reasons = list(empty), list(empty), list(empty), list(empty), list(empty)
    for row, found in _found(batch, params, model):
        item, grams[row], share[row], _ = found[0]
        by[row] = f"{model.items[item].benchmark}/{model.items[item].name}"
        spans[row] = _joined(np.concatenate([places for *_, places in found]))
        reasons[row] = "contaminated" if params.policy == "drop" else None
    return pa.table(
        {
            "contaminated_by": pa.array(by, pa.string()), "contamination_grams": pa.array(grams, pa.int32()),
            "contamination_share": pa.array(share, pa.float32()), "contaminated_spans": pa.array(spans, SPANS),
            "drop_reason": pa.array(reasons, pa.string()),
        }
    )  # fmt: skip


REPORT = {
    "parent": pa.int64(), "k": pa.int32(), "benchmark": pa.string(), "item": pa.string(), "grams": pa.int32(),
    "share": pa.float32(), "excerpt": pa.string(),
}  # fmt: skip


@map_stage(version=1, reads={"text": TEXT}, writes=REPORT, rows="any", model=_open)
def report(batch: pa.Table, params: Overlap, model: Grams) -> pa.Table:
    """A row for every document and test item in it: `benchmark`, `item`, distinct `grams`, `share` of the item's, `excerpt`.

    The excerpt is the first stretch found, up to 300 characters. Counts per benchmark and document are one SQL query away.
    """
    data, offsets = text_buffers(batch["text"])
    made: list[dict[str, Any]] = []
    for row, found in _found(batch, params, model):
        for k, (item, grams, share, places) in enumerate(found):
            low, high = np.frombuffer(_joined(places), "<i8")[:2].tolist()
            text = data[offsets[row] + low : offsets[row] + high].tobytes().decode("utf-8", "replace")
            name = model.items[item]
            values = (row, k, name.benchmark, name.name, grams, share, text[:300])
            made.append(dict(zip(REPORT, values, strict=True)))
    return pa.Table.from_pylist(made, schema=pa.schema(REPORT))
