"""What training leaves behind: model files in plain portable formats, and how they did on rows held out, in one small dataset.

Rows are pieces of files (`file`, `piece`, `content`) or metrics (`metric`, `value`). The dataset is `given` to a scorer of the
same recipe, asked by SQL (`select metric, value from recipe.trained where metric is not null`), or written out by `saved` for
other recipes and other programs. Files are fastText .bin, npz or JSON: never pickle, which runs code when it is opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray
from pydantic import Field

from stages.contract import TEXT, FileGroup, Params, Unusable, export_stage

PIECE = 16 << 20
TRAINED = pa.schema(
    [
        ("id", pa.string()), ("file", pa.string()), ("piece", pa.int32()), ("content", pa.large_binary()),
        ("metric", pa.string()), ("value", pa.float64()),
    ]
)  # fmt: skip
COLUMNS = {field.name: field.type for field in TRAINED}


class Training(Params):
    """Which rows are good, and which are kept apart to judge by."""

    target: str = Field("label", description="Column that says how good a document is: a number, or with positive a text.")
    positive: tuple[str, ...] = Field((), description="Values of the target that are good, as {target: step, positive: [books]}.")
    threshold: float = Field(0.5, description="A numeric target is good from here on.")
    held_out: float = Field(0.2, ge=0, lt=1, description="Share of documents that is not learned from, by a hash of the id.")
    seed: int = Field(0, ge=0, description="Seed of the held-out share, of the order of documents and of the training.")


def target_columns(params: Training) -> dict[str, pa.DataType]:
    """The target as it is read."""
    return {params.target: pa.string() if params.positive else pa.float64()}


def targets(batch: pa.Table, params: Training) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Targets as numbers (1 and 0 where values were named), and which documents have one."""
    column = batch[params.target].combine_chunks()
    known = np.asarray(pc.is_valid(column).to_numpy(zero_copy_only=False), bool)
    if params.positive:
        column = pc.is_in(column, value_set=pa.array(params.positive, pa.string()))
    return np.asarray(pc.fill_null(column.cast(pa.float64()), 0.0).to_numpy(zero_copy_only=False), np.float64), known


EXAMPLES = {"key": pa.uint64(), "target": pa.float64(), "held": pa.bool_()}
"""What every training emits beside its features; keys are hashes of ids, so that documents come in one random order."""


def examples(batch: pa.Table, params: Training) -> tuple[dict[str, Any], NDArray[np.bool_]]:
    """The columns of EXAMPLES for documents with a target, and which documents of the batch these are."""
    values, known = targets(batch, params)
    ids = batch["id"].filter(pa.array(known)).to_pylist()
    keys = np.array([xxhash.xxh3_64_intdigest(i, params.seed) for i in ids], np.uint64)
    # Another hash than the key's: held-out rows are spread over the whole order.
    parts = np.array([xxhash.xxh3_64_intdigest(i, params.seed + (1 << 32)) for i in ids], np.uint64)
    return {"key": keys, "target": values[known], "held": parts < np.uint64(params.held_out * 2**64)}, known


def good_of(values: NDArray[np.float64], params: Training) -> NDArray[np.bool_]:
    """Which targets are good; Unusable when all are or none is."""
    good = values >= params.threshold
    if good.all() or not good.any():
        what = f"{len(good)} documents with a target, {int(good.sum())} of them good"
        raise Unusable(f"nothing to tell apart: {what}; training needs both kinds (target '{params.target}')")
    return good


def auc(scores: NDArray[Any], good: NDArray[np.bool_]) -> float:
    """Area under the ROC curve: the chance that a good document scores above a poor one, ties counting half. NaN without both."""
    many, few = int(good.sum()), int((~good).sum())
    if not many or not few:
        return float("nan")
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    rank = np.cumsum(count) - (count - 1) / 2
    return float((rank[place][good].sum() - many * (many + 1) / 2) / (many * few))


def measures(scores: NDArray[Any], values: NDArray[np.float64], params: Training, operating: float) -> dict[str, float]:
    """AUC, and precision, recall and share kept where `operating` is the lowest score taken for good; NaN where undefined."""
    good, kept = values >= params.threshold, np.asarray(scores) >= operating
    hits = float((good & kept).sum())
    return {
        "held_out_documents": float(len(good)), "held_out_good": float(good.sum()), "auc": round(auc(scores, good), 6),
        "precision": hits / float(kept.sum()) if kept.any() else float("nan"),
        "recall": hits / float(good.sum()) if good.any() else float("nan"),
        "kept_share": float(kept.mean()) if len(kept) else float("nan"), "operating_point": operating,
    }  # fmt: skip


def trained_rows(files: Mapping[str, bytes], metrics: Mapping[str, float]) -> pa.Table:
    """The dataset of TRAINED for these files and metrics."""
    rows: list[dict[str, Any]] = []
    for name, content in files.items():
        cuts = range(0, max(len(content), 1), PIECE)
        rows += [{"file": name, "piece": i, "content": content[low : low + PIECE]} for i, low in enumerate(cuts)]
    rows += [{"metric": name, "value": value} for name, value in metrics.items()]
    return pa.Table.from_pylist(rows, schema=TRAINED)


def file_of(trained: pa.Table, suffix: str) -> bytes:
    """The content of the one file of this suffix; Unusable when there is none or several."""
    table = trained.filter(pc.is_valid(trained["file"]))
    names = sorted({n for n in table["file"].to_pylist() if n.endswith(suffix)})
    if len(names) != 1:
        held = sorted(set(table["file"].to_pylist()))
        raise Unusable(f"the given training holds {held} and not one {suffix} file; give the step that trained this kind of model")
    pieces = table.filter(pc.equal(table["file"], names[0])).sort_by("piece")
    return b"".join(pieces["content"].to_pylist())


class Saved(Params):
    """Nothing to choose."""


def _finish(summaries: Iterable[Mapping[str, Any]], _params: Saved) -> dict[str, bytes]:
    found: dict[str, float] = {}
    for summary in summaries:
        found |= summary["metrics"]
    return {"metrics.json": orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)}


@export_stage(version=1, reads={n: t for n, t in COLUMNS.items() if n != "id"}, finish=_finish)
def saved(batches: Iterator[pa.Table], _params: Saved, files: FileGroup) -> dict[str, Any]:
    """Model files out of a training, for scorers that take a path, and `metrics.json`."""
    table = pa.concat_tables(
        [TRAINED.empty_table().drop_columns("id"), *(b.select([n for n in COLUMNS if n != "id"]) for b in batches)]
    )
    for name in sorted(set(table["file"].drop_null().to_pylist())):
        files.open(f".{name}").write(file_of(table, name))
    said = table.filter(pc.is_valid(table["metric"]))
    return {"rows": table.num_rows, "metrics": dict(zip(said["metric"].to_pylist(), said["value"].to_pylist(), strict=True))}


TEXTS = {**EXAMPLES, "text": TEXT}


def text_examples(batch: pa.Table, params: Training) -> pa.Table:
    """EXAMPLES with the text, for documents that have a text and a target."""
    batch = batch.filter(pc.is_valid(batch["text"]))
    columns, known = examples(batch, params)
    return pa.table({**columns, "text": batch["text"].filter(pa.array(known))})
