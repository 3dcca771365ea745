"""Rows out of a dataset of the `datasets` library: saved in a local folder, or named on a hub."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from stages.contract import Chunk, Unit, knob, source
from stages.ingest import columns, files

BATCH = 512
SAVED = ("state.json", "dataset_dict.json")
"""What `save_to_disk` leaves in the folder of a dataset and of a dictionary of splits."""


class Rows(columns.Mapped):
    """Which dataset and columns."""

    dataset: str = knob(..., "A folder written by save_to_disk, a folder of data files, or a name on the hub.")
    config: str | None = knob(None, "The dataset's configuration, where it has several.")
    split: str = knob("train", "The split.")
    revision: str | None = knob(None, "Commit or tag on the hub; without it, whatever is newest at planning.")
    unit_rows: int = Field(100_000, ge=1, description="Rows of one unit.")


def _units(params: Rows) -> Iterator[Unit]:
    columns.check_targets(params)
    data = _loaded(params.dataset, params)
    count, witness = len(data), _witness(params.dataset, data)
    name = "/".join(part for part in (os.path.basename(params.dataset.rstrip("/")), params.config, params.split) if part)  # noqa: PTH119 (hub names are no paths)
    for start in range(0, max(count, 1), params.unit_rows):
        stop = start + params.unit_rows
        yield Unit(name, params.dataset, count, witness, start, stop if stop < count else None)


@source(version=1, units=_units, writes=columns.kept, libraries=("datasets",))
def rows(unit: Unit, params: Rows) -> Iterator[Chunk]:
    """One row for each row of the split: `text`, the core columns and those of `keep`, under the names of `columns`.

    Units are contiguous ranges of rows. origin.offset is the row's number in the split, origin.length 1. Rows without
    text are skipped as `no_text`. Raises ValueError for a mapped column or a split that is not there.
    """
    data = _loaded(unit.path, params).with_format("arrow")
    end = len(data) if unit.stop is None else unit.stop
    for start in range(unit.start, end, BATCH):
        yield from columns.chunks_of(data[start : min(end, start + BATCH)], params, unit, start)


def _loaded(path: str, params: Rows) -> Any:
    import datasets

    folder = Path(path)
    if not any((folder / name).exists() for name in SAVED):
        return datasets.load_dataset(path, params.config, split=params.split, revision=params.revision)
    data = datasets.load_from_disk(path)
    if not isinstance(data, datasets.DatasetDict):
        return data
    if params.split not in data:
        raise ValueError(f"{path} has no split {params.split!r}; there are {', '.join(sorted(data))}")
    return data[params.split]


def _witness(path: str, data: Any) -> str:
    """Of the data files where they are local, else the library's fingerprint of what it loaded."""
    names = sorted(entry["filename"] for entry in data.cache_files)
    if not names or not Path(path).exists():
        return f"fingerprint:{data._fingerprint}"
    digest = hashlib.sha256()
    for name in names:
        digest.update(files.witness_of(name, Path(name).stat().st_size).encode())
    return "sha256:" + digest.hexdigest()
