"""Near duplicates by MinHash and locality-sensitive hashing, in four steps of which only small rows travel.

    signatures  Map     text -> `bands`: one 64-bit hash a band (160 bytes a document by default)
    pairs       Reduce  bands -> edges between documents that share a band; 16 bytes a band cross the exchange
    clusters    Reduce  edges -> `cluster` and `cluster_size` on the documents, by union-find
    twins       Reduce  clusters -> one of each stays by the declared priority, the others are `near_duplicate`

Two documents of Jaccard similarity J share a band with probability 1 - (1 - J**rows)**bands. Defaults are those of
Nemotron-CC: 24 characters, 20 bands of 13 rows, seed 42, which puts the threshold near 0.8.

A crawl is compared with earlier ones through an index (`index`, a dataset with the bands and the survivor of every old
document): `pairs` reads the new documents and the index side by side, and a new document that touches an old one loses.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from stages.analysis import ANALYSIS, text_buffers, token_view
from stages.contract import TEXT, Chunk, Memory, Params, Unit, knob, map_stage, reduce_stage, source
from stages.dedup.survivor import LOSER, Survivor, contest, emits_of, named, ranking, verdicts
from stages.dedup.survivor import WRITES as TWIN
from stages.ingest import files

BANDS = pa.binary()
NEAR = "near_duplicate"
PIECE = 1 << 18
"""Rows of a table that a settle yields."""
DERIVED = {"analysis": "stages.analysis.words"}


class Shingles(Params):
    """What a shingle is."""

    unit: Literal["characters", "words"] = Field(
        "characters", description="Unit of a shingle; words are lower-cased, marks left out."
    )
    size: int = Field(24, ge=1, le=1024, description="Units of a shingle.")
    normalize: Literal["none", "folded"] = Field(
        "none",
        description="characters only: none, or folded (lower case, one space for a run of all that is neither letter nor digit).",
    )

    @property
    def content(self) -> dict[str, pa.DataType]:
        """The column that shingles are made from."""
        return {"text": TEXT} if self.unit == "characters" else {"analysis": ANALYSIS}


class Signatures(Shingles):
    """How many permutations, and how they are banded."""

    bands: int = Field(20, ge=1, description="Bands; more find more pairs.")
    rows: int = Field(13, ge=1, description="Rows of a band; more are stricter.")
    seed: int = Field(42, ge=0, description="Seed of the permutations: signatures of different seeds never meet.")


@map_stage(
    version=1,
    reads=lambda params: params.content,
    writes={"bands": BANDS, "survivor": pa.string()},
    derived=DERIVED,
)
def signatures(batch: pa.Table, params: Signatures) -> pa.Table:
    """Band hashes of a document: `text` (or its words) in, `bands` out (8 bytes a band, little endian).

    A text with fewer units than a shingle is one shingle; a text without any has null bands and takes part in nothing.
    `survivor` is null: only rows of an index carry one. Memory does not grow with the length of a document.
    Source: Broder, "On the resemblance and containment of documents" (1997); Leskovec et al., Mining of Massive Datasets, 3.4.
    """
    from stages import characters
    from stages.dedup import shingles

    masks, factors = shingles.permutations(params.bands * params.rows, params.seed)
    made = np.empty((batch.num_rows, params.bands), np.uint64)
    units = np.zeros(batch.num_rows, np.int64)
    if params.unit == "characters":
        data, offsets = text_buffers(batch["text"])
        table, fold = characters.tables()
        folded = params.normalize == "folded"
        shingles.by_characters(data, offsets, params.size, folded, table, fold, masks, factors, made, units)
    else:
        tokens, firsts = token_view(batch["analysis"])
        shingles.by_words(tokens, firsts, params.size, masks, factors, made, units)
    hashed = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(8 * params.bands), batch.num_rows, [pa.array(units > 0).buffers()[1], pa.py_buffer(made)]
    )
    return pa.table({"bands": hashed.cast(BANDS), "survivor": pa.nulls(batch.num_rows, pa.string())})


def band_matrix(column: pa.ChunkedArray) -> NDArray[np.uint64]:
    """Band hashes of rows that all have some, shape (rows, bands); ValueError where rows differ in their number of bands."""
    data, offsets = text_buffers(column)
    lengths = np.unique(np.diff(offsets))
    if len(lengths) == 0:
        return np.zeros((0, 0), np.uint64)
    if len(lengths) > 1 or lengths[0] % 8:
        raise ValueError(f"rows have {(lengths // 8).tolist()} bands: signatures of different parameters do not meet")
    return np.frombuffer(data[offsets[0] : offsets[-1]].tobytes(), "<u8").reshape(-1, lengths[0] // 8)


class Pairs(Params):
    """The exchange of the bands."""

    partitions: int = Field(64, ge=1, description="Parts of the exchange; one part must fit into memory (30 bytes a band).")


EDGES = {"row": pa.int64(), "other": pa.int64(), "survivor": pa.string()}


def _settle_pairs(batches: Iterator[pa.Table], _params: Pairs) -> Iterator[pa.Table]:
    touched: list[pa.Table] = []
    for batch in batches:
        if batch["survivor"].null_count < batch.num_rows:
            touched.append(_contacts(batch))
            batch = batch.filter(pc.is_null(batch["survivor"]))  # noqa: PLW2901 - the old rows are done with
        key, row = batch["key"].to_numpy(), batch["row"].to_numpy()
        member = np.zeros(len(key), bool)
        member[1:] = key[1:] == key[:-1]
        first = np.maximum.accumulate(np.where(member, 0, np.arange(len(key))))[member]
        yield pa.table([row[member], row[first], pa.nulls(len(first), pa.string())], schema=pa.schema(EDGES))
    if touched:
        best = pa.concat_tables(touched).group_by("row").aggregate([("survivor", "min")]).sort_by("row")
        yield pa.table([best["row"], best["row"], best["survivor_min"]], schema=pa.schema(EDGES))


def _contacts(batch: pa.Table) -> pa.Table:
    """New rows in a bucket with rows of an index, and the smallest survivor that these name."""
    old = pc.is_valid(batch["survivor"])
    smallest = batch.filter(old).group_by("key").aggregate([("survivor", "min")])
    new = batch.filter(pc.invert(old)).select(["key", "row"])
    return new.join(smallest, "key", join_type="inner", use_threads=False).select(["row", "survivor_min"]).rename_columns(
        ["row", "survivor"]
    )  # fmt: skip


@reduce_stage(
    version=1,
    reads={"bands": BANDS, "survivor": pa.string(), "row": pa.int64()},
    emits={"key": pa.uint64(), "row": pa.int64(), "survivor": pa.string()},
    writes=EDGES,
    settle=_settle_pairs,
    result="dataset",
    union=True,
    alone=False,
    fan_out=lambda _params: 20.0,
)
def pairs(batch: pa.Table, params: Pairs) -> pa.Table:  # noqa: ARG001 - the contract's signature
    """Edges between documents with an equal band: `bands` in, a dataset of `row` and `other` out.

    A bucket gives a star, every member to the one with the smallest address, so a million equal documents give a million
    edges a band and not half a billion. Where a bucket holds rows of
    an index (`survivor` is not null), the new members get an edge to themselves that names the smallest such survivor; old
    rows are frozen and get none.
    """
    batch = batch.filter(pc.is_valid(batch["bands"]))
    matrix = band_matrix(batch["bands"])
    count = matrix.shape[1]
    index = pa.array(np.repeat(np.arange(batch.num_rows), count))
    return pa.table(
        {"key": matrix.reshape(-1), "row": np.repeat(batch["row"].to_numpy(), count), "survivor": batch["survivor"].take(index)},
        schema=pa.schema({"key": pa.uint64(), "row": pa.int64(), "survivor": pa.string()}),
    )


class Clusters(Params):
    """Where the union-find works. One process does it, on edges as they are read: 16 bytes each, and 20 a clustered document."""

    memory_mb: int = knob(4096, "Memory for edges and arrays; what does not fit becomes files mapped to memory.", ge=1)
    scratch: str | None = knob(None, "Folder for these files; none: on the store's disk.")


CLUSTER = {"row": pa.int64(), "cluster": pa.int64(), "cluster_size": pa.int32(), "index_twin": pa.string()}


def _settle_clusters(batches: Iterator[pa.Table], params: Clusters) -> Iterator[pa.Table]:
    from stages.dedup.components import Components, Room, count_members

    with Room(params.memory_mb << 20, params.scratch) as room:
        components, touched = Components(room), [pa.schema({"row": pa.int64(), "survivor": pa.string()}).empty_table()]
        for batch in batches:
            components.add(batch["row"].to_numpy(), batch["other"].to_numpy())
            touched.append(batch.filter(pc.is_valid(batch["survivor"])).select(["row", "survivor"]))
        nodes, parent = components.solve()
        sizes = room.zeros(len(nodes), np.int32)
        count_members(parent, sizes)
        twins = _frozen(pa.concat_tables(touched), nodes, parent)
        for start in range(0, len(nodes), PIECE):
            labels = parent[start : start + PIECE]
            twin = pc.take(twins["survivor"], pc.index_in(pa.array(labels), twins["label"]))
            yield pa.table([nodes[start : start + PIECE], nodes[labels], sizes[labels], twin], schema=pa.schema(CLUSTER))


def _frozen(touched: pa.Table, nodes: NDArray[np.int64], parent: NDArray[np.int64]) -> pa.Table:
    """Components that touch an index (`label`, a place among the nodes) and the smallest survivor that they touch."""
    labels = parent[np.searchsorted(nodes, touched["row"].to_numpy())]
    table = pa.table({"label": pa.array(labels, pa.int64()), "survivor": touched["survivor"]})
    best = table.group_by("label").aggregate([("survivor", "min")])
    return pa.table({"label": best["label"].combine_chunks(), "survivor": best["survivor_min"].combine_chunks()})


@reduce_stage(
    version=1,
    reads={"row": pa.int64(), "other": pa.int64(), "survivor": pa.string()},
    emits={"key": pa.uint64(), "row": pa.int64(), "other": pa.int64(), "survivor": pa.string()},
    writes=CLUSTER,
    settle=_settle_clusters,
    partitions=lambda _params: 1,
    streams=True,
    memory=lambda params: Memory(fixed=params.memory_mb << 20, disk_per_row=56),
)
def clusters(batch: pa.Table, params: Clusters) -> pa.Table:  # noqa: ARG001 - the contract's signature
    """Connected components of the edges, on the documents: `cluster` (null: alone), `cluster_size`, `index_twin`.

    `cluster` is the smallest row address of the component: a label inside one run, not an identity. `index_twin` is the id
    of the survivor in the index that the component touches (the smallest of several). Nothing is dropped here.
    """
    return batch.append_column("key", batch["row"].cast(pa.uint64()))


class Twins(Survivor):
    """Who stays of a cluster."""

    min_jaccard: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Above 0, members are compared by true Jaccard similarity and a cluster falls apart below this.",
    )
    shingles: Shingles = Field(
        default_factory=lambda: Shingles.model_validate({}),
        description="Shingles of that comparison: the same as of the signatures.",
    )

    @property
    def checks(self) -> dict[str, pa.DataType]:
        """Columns that the comparison needs."""
        return {"bands": BANDS, **self.shingles.content} if self.min_jaccard else {}


def _emits_twins(params: Twins) -> dict[str, pa.DataType]:
    more: dict[str, pa.DataType] = {"bands": BANDS, "shingles": pa.large_binary()} if params.min_jaccard else {}
    return emits_of(params) | {"index_twin": pa.string()} | more


def _settle_twins(batches: Iterator[pa.Table], params: Twins) -> Iterator[pa.Table]:
    for batch in batches:
        frozen = batch.filter(pc.is_valid(batch["index_twin"]))
        reasons = pa.array([NEAR] * frozen.num_rows, pa.string())
        yield pa.table([frozen["row"], reasons, frozen["index_twin"]], schema=pa.schema(TWIN))
        free = batch.filter(pc.is_null(batch["index_twin"]))
        yield _checked(free, params) if params.min_jaccard else verdicts(free, params, NEAR)


def _checked(batch: pa.Table, params: Twins) -> pa.Table:
    """Verdicts after comparison: the first of a verified component, in the order of priority, stays."""
    from stages.dedup.jaccard import verified

    rows = batch.sort_by(ranking(params)).combine_chunks()
    digest = np.array(rows["digest"].to_pylist(), dtype="V16")
    edges = np.flatnonzero(np.r_[True, digest[1:] != digest[:-1], True]) if len(digest) else np.zeros(1, np.int64)
    data, offsets = text_buffers(rows["shingles"])
    hashes = np.frombuffer(data[offsets[0] : offsets[-1]].tobytes(), np.uint32)
    survivor = verified(band_matrix(rows["bands"]), hashes, (offsets - offsets[0]) // 4, edges, params.min_jaccard)
    return named(rows, survivor, NEAR)


@reduce_stage(
    version=1,
    reads=lambda params: {"cluster": pa.int64(), "index_twin": pa.string(), **params.columns, **params.checks},
    emits=_emits_twins,
    writes=TWIN,
    settle=_settle_twins,
    memory=lambda _params: LOSER,
    derived=DERIVED,
    libraries=("xxhash",),
)
def twins(batch: pa.Table, params: Twins) -> pa.Table:
    """Of each cluster one row stays; the others are `near_duplicate` and name it in `twin` (its id).

    The survivor depends on the rows alone: preferred source, `keep` in turn, smallest id. Every member of a cluster that
    touches an index loses to the index's survivor. With `min_jaccard` the members of one band are compared with up to
    eight leaders of it (in the order of priority) by the Jaccard similarity of their shingle sets, and only pairs at or
    above it hold a cluster together; sets are exact up to 65,536 shingles and their smallest 65,536 hashes beyond.
    """
    batch = batch.filter(pc.is_valid(batch["cluster"]))
    places = batch["cluster"].to_numpy().astype("<i8").tobytes()
    emitted = contest([places[i : i + 8] for i in range(0, len(places), 8)], batch, params)
    emitted = emitted.append_column("index_twin", batch["index_twin"])
    if params.min_jaccard:
        from stages.dedup.jaccard import shingle_sets

        emitted = emitted.append_column("bands", batch["bands"])
        emitted = emitted.append_column("shingles", shingle_sets(batch, params.shingles))
    return emitted


class Index(Survivor):
    """Survivors as `twins` chose them: the same `keep`, `by` and `prefer`."""


def _settle_index(batches: Iterator[pa.Table], params: Index) -> Iterator[pa.Table]:
    for batch in batches:
        rows = batch.sort_by(ranking(params)).combine_chunks()
        digest = np.array(rows["digest"].to_pylist(), dtype="V16")
        first = np.r_[True, digest[1:] != digest[:-1]][: len(digest)]
        best = np.maximum.accumulate(np.where(first, np.arange(len(digest)), 0))
        survivor = pc.coalesce(rows["index_twin"], rows["id"].take(pa.array(best)))
        yield pa.table({"id": rows["id"], "bands": rows["bands"], "survivor": survivor})


@reduce_stage(
    version=1,
    reads=lambda params: {"cluster": pa.int64(), "index_twin": pa.string(), "bands": BANDS, **params.columns},
    emits=lambda params: emits_of(params) | {"index_twin": pa.string(), "bands": BANDS},
    writes={"id": pa.string(), "bands": BANDS, "survivor": pa.string()},
    settle=_settle_index,
    result="dataset",
    libraries=("xxhash",),
)
def index(batch: pa.Table, params: Index) -> pa.Table:
    """Every document with its bands and its survivor (its own id where it stayed): a dataset to publish, read by `known`.

    From the step `clusters`, before `twins` drops anything. All documents are in it, not only those that were kept: a new
    page may resemble a dropped one and not its survivor. Documents without bands are left out.
    """
    batch = batch.filter(pc.is_valid(batch["bands"]))
    alone = pc.if_else(pc.is_null(batch["cluster"]), pc.subtract(-1, batch["row"]), batch["cluster"])
    places = alone.to_numpy().astype("<i8").tobytes()
    emitted = contest([places[i : i + 8] for i in range(0, len(places), 8)], batch, params)
    return emitted.append_column("index_twin", batch["index_twin"]).append_column("bands", batch["bands"])


class Known(Params):
    """Where an index lies."""

    paths: list[str] | str = knob([], "Parquet files of an index, and globs; a list, or separated by commas.")


def _units(params: Known) -> Iterator[Unit]:
    for file in files.expand(params.paths):
        yield Unit(file.name, file.path, file.size, file.witness)


@source(version=1, units=_units, writes={"bands": BANDS, "survivor": pa.string()})
def known(unit: Unit, _params: Known) -> Iterator[Chunk]:
    """The rows of an index, to stand beside new documents in `pairs`: `id`, `bands` and `survivor`, never a text."""
    import pyarrow.parquet as pq

    with files.open_file(unit.path) as opened:
        for batch in pq.ParquetFile(opened).iter_batches(1 << 14, columns=["id", "bands", "survivor"]):
            yield Chunk(pa.Table.from_batches([batch]), batch.num_rows)
