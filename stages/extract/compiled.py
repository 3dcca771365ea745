"""How the byte kernels of this folder are compiled.

numba stamps a cached kernel with the file that defines it alone, and not with the files of the kernels that were compiled
into it: after a change in one file the callers elsewhere would go on running the old code. All kernels of this folder are
therefore stamped with a hash over all files that hold kernels or their tables.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F")


def _stamp() -> str:
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(Path(__file__).parent.glob("*.py")):
        source = path.read_bytes()
        if b"stages.extract.compiled" in source or path.name in ("tags.py", "compiled.py"):
            digest.update(source)
    return digest.hexdigest()


_STAMP = _stamp()


def _compiled(function: F, **options: Any) -> F:
    dispatcher = numba.njit(cache=True, nogil=True, **options)(function)
    index = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    if index is not None and hasattr(index, "_source_stamp"):
        index._source_stamp = _STAMP
    return cast("F", dispatcher)


def kernel(function: F) -> F:
    """`numba.njit` with the cache on disk and the GIL released, typed as the function it wraps."""
    return _compiled(function)


def inlined(function: F) -> F:
    """A kernel that its callers take in as text: for the few instructions that run for every byte."""
    return _compiled(function, inline="always")
