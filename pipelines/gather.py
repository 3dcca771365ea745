"""Read what is stored for one shard of a frame: layers by position, selections through the parent's rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.place import read_parquet
from pipelines.program import FrameUnit, FrameView, Standing

PARENT_AT = "parent_at"
DROP_STEP = "drop_step"
DROP_REASON = "drop_reason"
ENTERED = -1
"""drop_step of a row that did not stand when the object's first member ran."""


def part(root: str, address: str, key: str, suffix: str = ".parquet") -> str:
    """Path or URL of a part in the store at `root`."""
    return f"{root}/objects/{address}/parts/{key}{suffix}"


def read(root: str, address: str, key: str, columns: Sequence[str]) -> pa.Table:
    """Columns of one part."""
    path = part(root, address, key)
    try:
        return read_parquet(path, columns)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: the part is gone; run `gristmill verify`, then the recipe again") from error


def load(root: str, view: FrameView, unit: FrameUnit, columns: Iterable[str]) -> pa.Table:
    """Columns of all rows of a shard, standing or not."""
    wanted = list(dict.fromkeys(columns))
    pieces: dict[str, pa.ChunkedArray] = {}
    by_object: dict[str, list[str]] = {}
    for name in wanted:
        if name in view.objects:
            by_object.setdefault(view.objects[name], []).append(name)
    for address, names in by_object.items():
        table = read(root, address, unit.key, names)
        pieces |= {name: table[name] for name in names}
        if "id" in names and pieces["id"].null_count:
            pieces["id"] = pc.coalesce(pieces["id"], made_ids(address, unit.key, table.num_rows))
    far = [name for name in wanted if name not in pieces]
    if far and view.base is not None:
        pieces |= _through_selection(root, view, unit, far)
        far = [name for name in wanted if name not in pieces]
    if far:
        raise KeyError(f"no stored column {far} for shard {unit.name} of this frame")
    return pa.table({name: pieces[name] for name in wanted})


def made_ids(address: str, key: str, rows: int) -> pa.Array:
    """Ids of a dataset's rows whose stage gives them none: 80 bits of a hash of object and part, 48 of the position, in hex.

    They are made when they are read: 32 digits would be most of what is stored for a row of two numbers.
    """
    digits = np.empty((rows, 32), np.uint8)
    prefix = hashlib.blake2b(f"{address}\0{key}".encode(), digest_size=10).hexdigest()
    digits[:, :20] = np.frombuffer(prefix.encode(), np.uint8)
    position, alphabet = np.arange(rows), np.frombuffer(b"0123456789abcdef", np.uint8)
    for place in range(12):
        digits[:, 31 - place] = alphabet[position >> 4 * place & 15]
    offsets = np.arange(0, 32 * rows + 1, 32, dtype=np.int64)
    return pa.LargeStringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(digits)).cast(pa.string())


def _through_selection(root: str, view: FrameView, unit: FrameUnit, columns: list[str]) -> dict[str, pa.ChunkedArray]:
    assert view.base is not None
    assert unit.parent is not None
    positions = read(root, view.base, unit.key, [PARENT_AT])[PARENT_AT]
    found: dict[str, pa.ChunkedArray] = {}
    if "step" in columns and len(view.steps) > 1:
        columns = [c for c in columns if c != "step"]
        found["step"] = pa.chunked_array([pa.array([view.steps[unit.parent_frame]] * len(positions), pa.string())])
    if columns:
        above = load(root, view.parents[unit.parent_frame], unit.parent, columns)
        taken = above.combine_chunks().take(positions.combine_chunks())
        found |= {name: taken[name] for name in columns}
    return found


def standing(root: str, places: Sequence[Standing], unit: FrameUnit) -> np.ndarray | None:
    """Mask of the rows that stand at all of these places; None when there is no place to ask."""
    mask: np.ndarray | None = None
    for place in places:
        steps = read(root, place.address, unit.key, [DROP_STEP])[DROP_STEP]
        fallen = steps.fill_null(np.iinfo(np.int16).max).to_numpy()
        stands = fallen > place.member
        mask = stands if mask is None else mask & stands
    return mask
