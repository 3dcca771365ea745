"""Cached kernels are renewed when any file that they were compiled from changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stages.compiled
from stages.compiled import kernel, stamp
from stages.extract import blocks, markup
from stages.filters import quality_kernel


def test_a_stamp_follows_imports_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "stages"
    folder.mkdir()
    sources = {
        "top": "from stages.middle import (\n    one,\n    two,\n)\n",
        "middle": "import numpy\nfrom stages import low as lower\n",
        "low": "ONE = 1\n",
        "aside": "def f():\n    from stages.low import ONE\n",
    }
    files = {name: folder / f"{name}.py" for name in sources}
    for name, source in sources.items():
        files[name].write_text(source)
    monkeypatch.setattr(stages.compiled, "_ROOT", tmp_path)

    def stamps() -> dict[str, str]:
        stages.compiled._imports.cache_clear()
        stamp.cache_clear()
        return {name: stamp(file) for name, file in files.items()}

    before = stamps()
    files["low"].write_text("ONE = 2\n")
    after = stamps()
    assert {name for name in files if before[name] != after[name]} == {"top", "middle", "low"}
    stages.compiled._imports.cache_clear()
    stamp.cache_clear()


def test_kernels_carry_the_stamp_of_their_file() -> None:
    for one in (blocks.walk, markup.tokenize, quality_kernel.quality_counts):
        function: Any = one
        assert function._cache._cache_file._source_stamp == stamp(Path(function.py_func.__code__.co_filename))
    assert stamp(Path(blocks.__file__)) != stamp(Path(markup.__file__))


def test_a_kernel_that_makes_an_array_does_not_compile() -> None:
    def ones(count: int) -> Any:
        return np.ones(count, np.int64)

    with pytest.raises(Exception, match=r"Only accept returning of array|NRT required"):
        kernel(ones)(3)
