"""Witnesses of local input files, remembered between plans: 100,000 files are not read again to say that nothing changed.

Size, modification time and inode are only the key of the memory; the identity of a unit never holds them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from manifests.place import replace_file
from stages.ingest.files import remembered


@contextmanager
def remembering(path: Path) -> Iterator[None]:
    """Plan inside of this block; what was learned is written to `path` when something was."""
    memory: dict[Any, str] = {}
    if path.exists():
        try:
            memory = {tuple(stamp): witness for *stamp, witness in orjson.loads(path.read_bytes())}
        except (orjson.JSONDecodeError, ValueError, TypeError):
            path.unlink()  # a damaged memory is no loss: files are looked at again
    before = len(memory)
    with remembered(memory):
        yield
    if len(memory) != before:
        replace_file(path, orjson.dumps([[*stamp, witness] for stamp, witness in memory.items()]))
