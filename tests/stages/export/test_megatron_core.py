"""Megatron's own reader over our files; needs the megatron extra (megatron-core and a CPU build of torch)."""

import warnings
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson
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


SHARES = {("early", "web"): 0.62, ("early", "wiki"): 0.08, ("early", "code"): 0.3, ("late", "web"): 0.45, ("late", "wiki"): 0.55}
"""Planned tokens, as shares of the phase; wiki has far fewer documents than these shares need and is repeated."""
DOCUMENTS = {"web": 300, "wiki": 12, "code": 120}
SHARDS = 4


def planned_copies(phase: str, source: str) -> int:
    """Copies of each document that give a source about its share: every document has 50 tokens with its end."""
    return max(round(SHARES[phase, source] * 15_000 / 50 / DOCUMENTS[source]), 1)


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory, indexed_dataset: Any) -> tuple[Path, dict[str, bytes]]:
    """A phased mixture on disk with repeats that are virtual: several shards for each phase and source, and the blends."""
    folder = tmp_path_factory.mktemp("mixture")
    params = Megatron(split_by=("phase", "step"), prefix=f"{folder}/", valid=1, test=1)
    model = shards.model(params)
    tokenizer = type(model)(lambda texts: [np.full(49, int(t), np.int32) for t in texts], model.vocab_size, model.eod, model.bos)
    summaries = []
    rows = [
        {"id": f"{phase}-{step}-{n}", "phase": phase, "step": step, "copies": planned_copies(phase, step), "text": str(mark)}
        for mark, (phase, step) in enumerate(SHARES, 10)
        for n in range(DOCUMENTS[step])
    ]
    for shard in range(SHARDS):
        files = Folder(folder / f"shard{shard}")
        table = pa.Table.from_pylist(rows[shard::SHARDS])
        table = table.set_column(table.column_names.index("text"), "text", table["text"].cast(TEXT))
        summaries.append({"name": f"shard{shard}", **shards.encode(iter([table]), params, files, model=tokenizer)})
        for file in files.opened:
            file.close()
    return folder, shards.finish(summaries, params)


class Words:
    """What GPTDataset asks of a tokenizer."""

    unique_identifiers: dict[str, str] = {"class": "Words"}  # noqa: RUF012
    pad, eod, vocab_size = -1, 2, 131_072


def drawn(folder: Path, count: int, **blends: Any) -> Counter[int]:
    """How often each source's token is drawn by Megatron's own blended dataset."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
        from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig

        config = GPTDatasetConfig(
            random_seed=7, sequence_length=49, tokenizer=Words(), reset_position_ids=False,
            reset_attention_mask=False, eod_mask_loss=False, create_attention_mask=False, **blends,
        )  # fmt: skip
        train, _, _ = BlendedMegatronDatasetBuilder(GPTDataset, [count, 1, 1], lambda: True, config).build()
        which = np.asarray(train.dataset_index[:count]) if hasattr(train, "dataset_index") else np.zeros(count, int)
        names = [one.dataset.path_prefix for one in getattr(train, "datasets", [train])]
        tokens = {int(train[i]["tokens"][5]) for i in range(0, min(count, len(train)), max(count // 500, 1))}
    assert tokens <= {2, *range(10, 15)}
    return Counter({name: int((which == i).sum()) for i, name in enumerate(names)})


def shares_of(counts: Counter[Any], phase: str) -> dict[str, float]:
    total = Counter[str]()
    for name, count in counts.items():
        total[str(name).rsplit(".", 1)[1]] += count
        assert f".{phase}." in str(name)
    return {source: count / counts.total() for source, count in total.items()}


@pytest.mark.parametrize("phase", ["early", "late"])
@pytest.mark.parametrize("form", ["data_path", "per_split"])
def test_a_hundred_thousand_draws_have_the_proportions_of_the_plan(
    mixture: tuple[Path, dict[str, bytes]], phase: str, form: str
) -> None:
    from megatron.core.datasets.utils import get_blend_from_list

    folder, files = mixture
    if form == "data_path":
        blends: dict[str, Any] = {"blend": get_blend_from_list(files[f"blend-{phase}.txt"].decode().split()), "split": "1,0,0"}
    else:
        splits = orjson.loads(files[f"splits-{phase}.json"])
        blends = {"blend_per_split": [get_blend_from_list(splits[kind]) for kind in ("train", "valid", "test")]}
    got = shares_of(drawn(folder, 100_000, **blends), phase)
    weights = {step: planned_copies(p, step) * DOCUMENTS[step] for p, step in SHARES if p == phase}
    for step, weight in weights.items():
        assert abs(got[step] - weight / sum(weights.values())) < 0.001, (step, got)
    exact = Counter[str]()
    for weight, name in zip(*[iter(files[f"blend-{phase}.txt"].decode().split())] * 2, strict=True):
        exact[name.rsplit(".", 1)[1]] += int(weight)
    assert all(abs(got[step] - weight / exact.total()) < 0.001 for step, weight in exact.items())


def test_prefixes_without_weights_are_a_blend_by_length(mixture: tuple[Path, dict[str, bytes]]) -> None:
    from megatron.core.datasets.utils import get_blend_from_list

    folder, files = mixture
    prefixes, weights = get_blend_from_list(files["prefixes-early.txt"].decode().split())
    assert weights is None
    assert len(prefixes) == 2 * 3
    got = shares_of(drawn(folder, 1000, blend=(prefixes, None), split="1,0,0"), "early")
    assert got["web"] > got["code"] > got["wiki"]
