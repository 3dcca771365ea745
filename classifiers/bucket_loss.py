"""What is each bucket worth? A small language model of each, from equally many tokens, and its loss on texts one cares for.

Nemotron-CC maps buckets to labels by annealing an 8B model on each (arXiv 2412.02595, section 2.2). This is the small honest
version: an n-gram model (Kneser-Ney, `classifiers.kneser_ney`) over the closed vocabulary of a reference corpus, so that
losses compare. It sees vocabulary and phrasing, not knowledge: it tells boilerplate from prose, hardly good prose from better.

    losses   Reduce  text and its bucket -> bits a token of the reference, a row a bucket
    borders  Reduce  losses -> where each label begins, for classifiers.buckets.relabel
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray
from pydantic import Field

from classifiers.buckets import LABELS
from classifiers.kneser_ney import BEGIN, END, counted, estimated, log10_of
from classifiers.sentences import sentences
from stages.contract import TEXT, Params, Unusable, file, reduce_stage

OTHER = "<other>"
"""Every word that the reference does not have."""
LOSSES = pa.schema(
    [
        ("id", pa.string()), ("bucket", pa.int32()), ("bits", pa.float64()), ("tokens", pa.int64()), ("documents", pa.int64()),
        ("known_share", pa.float64()), ("reference_tokens", pa.int64()),
    ]
)  # fmt: skip
EMITS = {"key": pa.uint64(), "bucket": pa.int32(), "tokens": pa.int64(), "text": TEXT}
BORDERS = pa.schema(
    [("id", pa.string()), ("label", pa.string()), ("low", pa.int32()), ("bits", pa.float64()), ("better_than_below", pa.bool_())]
)


class Losses(Params):
    """What is learned from each bucket, and what it is tried on."""

    reference: str = file(
        ..., "Texts to be good at: .txt, or .jsonl with a field text (also .gz). None of them may be in the buckets."
    )
    buckets: int = Field(20, ge=2, le=1000, description="How many buckets there are.")
    tokens: int = Field(50_000, ge=100, description="Tokens learned from each bucket; one with fewer has no loss.")
    order: int = Field(3, ge=1, le=5, description="Words of the longest n-grams.")


@dataclass(frozen=True)
class Reference:
    """Lines of tokens, and their vocabulary with the end mark and the one other word."""

    lines: list[list[str]]
    vocabulary: frozenset[str]


def read_texts(path: Path) -> list[str]:
    """The texts of a .txt or .jsonl file, also .gz; ValueError for another kind, for no text, or for a line that is no row."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if kind == ".jsonl":
        texts = [orjson.loads(line).get("text") or "" for line in raw.splitlines() if line.strip()]
    elif kind == ".txt":
        texts = [raw.decode("utf-8")]
    else:
        raise ValueError(f"{path}: a reference is a .txt or .jsonl file")
    if not any(text.strip() for text in texts):
        raise ValueError(f"{path}: the reference holds no text")
    return texts


def _open(params: Losses) -> Reference:
    path = Path(params.reference)
    if not path.is_file():
        raise ValueError(f"{path}: no reference there; name a file of texts one wants to be good at")
    lines = [line for text in read_texts(path) for line in sentences(text)]
    return Reference(lines, frozenset(word for line in lines for word in line) | {END, OTHER})


def _kept(table: pa.Table, params: Losses) -> pa.Table:
    """Of each bucket the documents with the smallest keys that together have enough tokens: associative."""
    table = table.sort_by([("bucket", "ascending"), ("key", "ascending")])
    buckets, tokens = table["bucket"].to_numpy(), table["tokens"].to_numpy()
    before = np.cumsum(tokens) - tokens
    starts = np.searchsorted(buckets, buckets)
    return table.filter(pa.array(before - before[starts] < params.tokens)) if table.num_rows else table


def _cut(lines: list[list[str]], tokens: int) -> tuple[list[list[str]], int]:
    """Lines up to exactly `tokens` tokens, and how many there are at most."""
    found, held = [], 0
    for line in lines:
        if held >= tokens:
            break
        found.append(line[: tokens - held])
        held += len(found[-1])
    return found, held


def loss_of(lines: list[list[str]], reference: Reference, order: int) -> float:
    """Bits a token of the reference (ends of lines are tokens) under the n-gram model of these lines."""
    closed = [[word if word in reference.vocabulary else OTHER for word in line] for line in lines]
    model = estimated(counted(closed, order), vocabulary=len(reference.vocabulary))
    total, count = 0.0, 0
    for line in reference.lines:
        padded = (BEGIN, *line, END)
        total += sum(log10_of(model, padded[max(0, at - order + 1) : at + 1]) for at in range(1, len(padded)))
        count += len(padded) - 1
    return -total / count / math.log10(2)


def _settle(batches: Iterator[pa.Table], params: Losses, *, model: Reference) -> Iterator[pa.Table]:
    table = pa.concat_tables([pa.schema(list(EMITS.items())).empty_table(), *batches])
    for bucket in sorted(set(table["bucket"].to_pylist())):
        mine = _kept(table.filter(pc.equal(table["bucket"], bucket)), params)
        lines, tokens = _cut([line for text in mine["text"].to_pylist() for line in sentences(text)], params.tokens)
        bits = round(loss_of(lines, model, params.order), 6) if tokens >= params.tokens else None
        known = sum(word in model.vocabulary for line in lines for word in line) / max(tokens, 1)
        size = sum(len(line) + 1 for line in model.lines)
        yield pa.table([[None], [bucket], [bits], [tokens], [mine.num_rows], [round(known, 6)], [size]], schema=LOSSES)


@reduce_stage(
    version=1, reads={"id": pa.string(), "text": TEXT, "bucket": pa.int32()}, emits=EMITS, writes={f.name: f.type for f in LOSSES},
    settle=_settle, combine=_kept, result="dataset", partitions=lambda p: int(p.buckets), model=_open, libraries=("xxhash",),
)  # fmt: skip
def losses(batch: pa.Table, params: Losses, *, model: Reference) -> pa.Table:
    """Train on `tokens` tokens of each bucket, drawn by hashed id, and judge on the reference: `bucket, bits, tokens, documents`.

    `bits` a token, lower is better, null where the bucket has too few tokens; `known_share`: of its words in the reference.
    Unusable: a bucket beyond `buckets`. ValueError for a reference that is not there, empty or of another kind.
    """
    assert model.lines
    batch = batch.filter(pc.and_(pc.is_valid(batch["bucket"]), pc.is_valid(batch["text"])))
    buckets = batch["bucket"].to_numpy().astype(np.int64)
    if len(buckets) and (buckets.max() >= params.buckets or buckets.min() < 0):
        raise Unusable(f"there is a bucket {int(buckets.max())}; set buckets, which is {params.buckets}, to what cut_points made")
    hashes = np.array([xxhash.xxh3_64_intdigest(i, 11) for i in batch["id"].to_pylist()], np.uint64)
    # A partition for each bucket: the upper half of a key is its place between 0 and 1.
    place = np.maximum(hashes >> np.uint64(32), np.uint64(params.buckets))
    high = ((buckets.astype(np.uint64) << np.uint64(32)) + place) // np.uint64(params.buckets)
    keys = high << np.uint64(32) | hashes & np.uint64(0xFFFF_FFFF)
    sizes = [sum(map(len, sentences(text))) for text in batch["text"].to_pylist()]
    found = pa.table([keys, buckets, sizes, batch["text"]], schema=pa.schema(list(EMITS.items())))
    return _kept(found, params)


class Borders(Params):
    """Which labels there are."""

    labels: tuple[str, ...] = Field(tuple(LABELS), min_length=2, description="Labels, best first.")


def segments(bits: NDArray[np.float64], count: int) -> list[int]:
    """Where each of `count` runs begins so that the squared differences to their means are least (Fisher 1958), by programming."""
    size = len(bits)
    sums, squares = np.append(0, np.cumsum(bits)), np.append(0, np.cumsum(bits**2))
    best = np.full((count + 1, size + 1), np.inf)
    last = np.zeros((count + 1, size + 1), np.int64)
    best[0, 0] = 0
    for runs in range(1, count + 1):
        for stop in range(runs, size + 1):
            start = np.arange(runs - 1, stop)
            cost = squares[stop] - squares[start] - (sums[stop] - sums[start]) ** 2 / (stop - start)
            whole = np.round(best[runs - 1, start] + cost, 12)
            last[runs, stop] = start[int(whole.argmin())]
            best[runs, stop] = whole.min()
    found, stop = [], size
    for runs in range(count, 0, -1):
        stop = int(last[runs, stop])
        found.append(stop)
    return found[::-1]


def _settle_borders(batches: Iterator[pa.Table], params: Borders) -> Iterator[pa.Table]:
    rows = sorted((r for batch in batches for r in batch.to_pylist() if r["bits"] is not None), key=lambda r: int(r["bucket"]))
    if len(rows) < len(params.labels):
        many = f"{len(rows)} buckets have a loss and {len(params.labels)} labels are wanted"
        raise Unusable(f"{many}: learn from fewer tokens a bucket, or name fewer labels")
    bits = np.array([r["bits"] for r in rows])
    starts = segments(bits, len(params.labels))
    means = [float(part.mean()) for part in np.split(bits, starts[1:])]
    made = [
        {
            "label": name, "low": 0 if i == 0 else rows[starts[i]]["bucket"], "bits": round(means[i], 6),
            "better_than_below": None if i == 0 else means[i] < means[i - 1],
        }
        for i, name in enumerate(reversed(params.labels))
    ]  # fmt: skip
    yield pa.Table.from_pylist(made, schema=BORDERS)


@reduce_stage(
    version=1,
    reads={"bucket": pa.int32(), "bits": pa.float64()},
    emits={"key": pa.uint64(), "bucket": pa.int32(), "bits": pa.float64()},
    writes={f.name: f.type for f in BORDERS},
    settle=_settle_borders,
    result="dataset",
    partitions=lambda _params: 1,
)
def borders(batch: pa.Table, params: Borders) -> pa.Table:
    """Labels as runs of buckets of similar loss: `label, low` (its lowest bucket), mean `bits`, and whether it beats the run below.

    Where `better_than_below` is false the buckets do not order the texts as the reference does: look before relabelling by it.
    Unusable: fewer buckets with a loss than labels.
    """
    assert params.labels
    keys = pa.array(np.arange(batch.num_rows), pa.uint64())
    return pa.table({"key": keys, "bucket": batch["bucket"], "bits": batch["bits"]})
