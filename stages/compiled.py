"""How byte and token kernels are compiled: with numba, cached on disk, the GIL released, and no reference counts.

numba stamps a cached kernel with the file that defines it alone, and not with the files of the kernels that were compiled
into it: after a change in one file the callers elsewhere would go on running the old code. A kernel is therefore stamped with
a hash over its own file and all files of `stages` that it imports, directly or not.

Imported only where a kernel is about to run: numba takes half a second to import, and kernels seconds to compile once per
machine.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])

_ROOT = Path(__file__).parents[1]
_IMPORT = re.compile(r"^from (stages[\w.]*) import (\([^)]*\)|.*)", re.MULTILINE)


def _file(module: str) -> Path | None:
    """Where a module lies; None for a name that is none."""
    path = _ROOT / module.replace(".", "/")
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@functools.cache
def _imports(file: Path) -> frozenset[Path]:
    """The files of `stages` that a file imports at its top level by `from stages... import`, as all of ours do."""
    names = {
        name
        for match in _IMPORT.finditer(file.read_text())
        for name in (match[1], *(f"{match[1]}.{word}" for word in re.findall(r"\w+", match[2])))
    }
    return frozenset(found for name in names if (found := _file(name)) is not None)


@functools.cache
def stamp(file: Path) -> str:
    """A hash over a file and all files of `stages` below it."""
    held, open_ = {file, Path(__file__)}, [file]
    while open_:
        new = _imports(open_.pop()) - held
        held |= new
        open_ += new
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(held):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _compiled(function: F, **options: Any) -> F:
    dispatcher = numba.njit(cache=True, nogil=True, **options)(function)
    index = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    if index is not None and hasattr(index, "_source_stamp"):
        index._source_stamp = stamp(Path(function.__code__.co_filename))
    return cast("F", dispatcher)


def kernel(function: F) -> F:
    """A function that makes no arrays, typed as the function it wraps.

    Without numba's reference counts: they are atomic, and each call that passes a page's or a document's arrays on would move
    some of them twice (measured: a quarter of the extractor's time). A function that does make an array fails to compile.
    """
    return _compiled(function, _nrt=False)


def making(function: F) -> F:
    """A kernel that makes arrays, once for a page or a batch: nothing that runs for each block, token or byte."""
    return _compiled(function)


def inlined(function: F) -> F:
    """A kernel that its callers swallow whole: for the few instructions that run for every byte."""
    return _compiled(function, inline="never", forceinline=True, _nrt=False)
