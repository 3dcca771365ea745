"""A Hugging Face dataset folder: Parquet files under `data/` and a card that says what they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml
from pydantic import Field

from stages.contract import FileGroup, export_stage
from stages.export.parquet import Parquet
from stages.export.rowgroups import RowGroups

SIZES = (
    (10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"), (10**9, "100M<n<1B"), (10**10, "1B<n<10B"), (10**11, "10B<n<100B"), (10**12, "100B<n<1T"),
)  # fmt: skip
"""Names of the hub for numbers of rows."""
MOST = 20
"""Values of a column that the card tells of."""


class Folder(Parquet):
    """What is written, and what the card says."""

    title: str = Field(description="Heading of the card.")
    summary: str = Field("", description="What the dataset is, in Markdown.")
    license: str = Field("other", description="The hub's name of the licence, such as cc-by-4.0 or odc-by.")
    split: str = Field("train", description="Name of the split.")
    tell: tuple[str, ...] = Field(("source", "language"), description="Columns whose values the card counts.")


def _finish(summaries: Sequence[Mapping[str, Any]], params: Folder) -> dict[str, bytes]:
    rows = sum(int(s["rows"]) for s in summaries)
    told: dict[str, Counter[str]] = {name: Counter() for name in params.tell}
    for summary in summaries:
        for name, counts in summary["told"].items():
            told[name].update(counts)
    head: dict[str, Any] = {"license": params.license, "pretty_name": params.title}
    if languages := sorted(code for code in told.get("language", ()) if len(code) in (2, 3)):
        head["language"] = languages
    head["size_categories"] = [next((name for limit, name in SIZES if rows < limit), "n>1T")]
    head["configs"] = [{"config_name": "default", "data_files": [{"split": params.split, "path": "data/*.parquet"}]}]
    lines = ["---", yaml.safe_dump(head, sort_keys=False, allow_unicode=True).strip(), "---", "", f"# {params.title}", ""]
    lines += [params.summary, ""] if params.summary else []
    lines += [f"{rows:,} rows in {len(summaries)} files.", "", "| column | type |", "|---|---|"]
    lines += [f"| `{name}` | {kind} |" for name, kind in params.written().items()]
    for name, counts in told.items():
        if counts:
            more = f" (the {MOST} most frequent of {len(counts):,})" if len(counts) > MOST else ""
            ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST]
            lines += ["", f"| {name}{more} | rows |", "|---|---|", *(f"| {value} | {count:,} |" for value, count in ranked)]
    return {"README.md": ("\n".join(lines) + "\n").encode()}


@export_stage(version=1, reads=lambda params: params.written(), finish=_finish, libraries=("pyarrow",))
def folder(batches: Iterable[pa.Table], params: Folder, files: FileGroup) -> Mapping[str, Any]:
    """Write a shard as Parquet for `data/`; the card `README.md` has licence, languages, size, columns and counts by value.

    `gristmill export` lays the folder out; `datasets.load_dataset(FOLDER)` opens it.
    """
    writer = RowGroups(files.open(".parquet"), pa.schema(params.written()), params.row_group_rows, params.level)
    told: dict[str, Counter[str]] = {name: Counter() for name in params.tell if name in params.written()}
    for batch in batches:
        writer.write(batch)
        for name, counts in told.items():
            found = pc.value_counts(batch[name].combine_chunks()).to_pylist()
            counts.update({str(one["values"]): one["counts"] for one in found if one["values"] not in (None, "")})
    return {"rows": writer.close(), "told": {name: dict(counts) for name, counts in told.items()}, "folders": {".parquet": "data"}}
