"""Megatron's own reader over our files; needs the megatron extra (megatron-core and a CPU build of torch)."""

import warnings
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pytest

from stages.contract import TEXT
from stages.export.megatron import Megatron, shards

pytestmark = pytest.mark.megatron

TEXTS = ["The mill grinds slowly.", "", "Żółta łódź\nna rzece", "水车" * 50]


class Folder:
    """Files of a shard in a folder."""

    def __init__(self, stem: Path) -> None:
        self.stem, self.opened = stem, list[BinaryIO]()

    def open(self, suffix: str) -> BinaryIO:
        self.opened.append(self.stem.with_name(self.stem.name + suffix).open("wb"))
        return self.opened[-1]


@pytest.fixture(scope="module")
def indexed_dataset() -> Any:
    pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("megatron.core.datasets.indexed_dataset")


def test_megatron_reads_our_shards_token_for_token(tmp_path: Path, indexed_dataset: Any) -> None:
    params = Megatron()
    model = shards.model(params)
    files = Folder(tmp_path / "shard")
    batch = pa.table({"id": [f"{n:032x}" for n in range(len(TEXTS))], "text": pa.array(TEXTS, TEXT)})
    shards.encode(iter([batch]), params, files, model=model)
    for file in files.opened:
        file.close()
    dataset = indexed_dataset.IndexedDataset(str(tmp_path / "shard"))
    expected = [[*ids.tolist(), 2] for ids in model.encode([t for t in TEXTS if t])]
    assert [dataset[i].tolist() for i in range(len(dataset))] == expected
    assert dataset.document_indices.tolist() == list(range(len(expected) + 1))
