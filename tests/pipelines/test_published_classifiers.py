from pathlib import Path

import pytest

from pipelines.upkeep import PUBLISHED, examine, published_lines


def test_doctor_says_which_published_classifiers_are_missing_and_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    said: list[str] = []
    assert examine(str(tmp_path / "store"), said.append) == 0
    for name in PUBLISHED:
        assert any(line.startswith(f"{name}: absent (optional; hf download {name})") for line in said)
    name = next(iter(PUBLISHED))
    place = tmp_path / f"models--{name.replace('/', '--')}" / "snapshots" / "0123abcd"
    place.mkdir(parents=True)
    assert published_lines()[0].startswith(f"{name}: in {place};")


def test_doctor_names_the_extra_of_each_optional_library(tmp_path: Path) -> None:
    said: list[str] = []
    examine(str(tmp_path / "store"), said.append)
    lines = {line.split()[0]: line for line in said}
    for library, extra in (("torch", "encoder"), ("onnxruntime", "onnx"), ("kenlm", "perplexity"), ("scikit-learn", "train")):
        assert library in lines
        assert "absent" not in lines[library] or f"install gristmill[{extra}]" in lines[library]
