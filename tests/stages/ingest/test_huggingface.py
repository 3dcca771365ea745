from __future__ import annotations

import pytest

from stages.ingest.huggingface import rows


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> str:
    import datasets

    folder = tmp_path_factory.mktemp("sets") / "poems"
    train = datasets.Dataset.from_dict({"body": [f"poem {number}" for number in range(25)], "meta": [{"who": "x"}] * 25})
    test = datasets.Dataset.from_dict({"body": ["last"], "meta": [{"who": "y"}]})
    datasets.DatasetDict(train=train, test=test).save_to_disk(str(folder))
    return str(folder)


def read(**params):
    chosen = rows.params(**params)
    units = list(rows.units(chosen))
    return units, [row for unit in units for chunk in rows(unit, chosen) for row in chunk.rows.to_pylist()]


@pytest.mark.parametrize("unit_rows", [1, 7, 25, 1000])
def test_units_are_row_ranges_and_hold_every_row_once(saved, unit_rows):
    units, found = read(dataset=saved, columns={"text": "body", "source": "meta.who"}, unit_rows=unit_rows)
    assert len(units) == -(-25 // unit_rows)
    assert [row["text"] for row in found] == [f"poem {number}" for number in range(25)]
    assert found[3]["origin"] == {"unit": "poems/train", "offset": 3, "length": 1}
    assert found[3]["source"] == "x"
    assert len({unit.key for unit in units}) == len(units)


def test_the_witness_is_that_of_the_files(saved):
    first, _ = read(dataset=saved, columns={"text": "body"})
    again, _ = read(dataset=saved, columns={"text": "body"})
    other, _ = read(dataset=saved, columns={"text": "body"}, split="test")
    assert first == again
    assert first[0].witness.startswith("sha256:")
    assert other[0].witness != first[0].witness


def test_a_folder_of_data_files_is_a_dataset_too(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    _, found = read(dataset=str(tmp_path / "data"))
    assert [row["text"] for row in found] == ["one", "two"]


def test_a_missing_split_or_column_is_named_with_those_present(saved):
    with pytest.raises(ValueError, match="no split 'dev'; there are test, train"):
        read(dataset=saved, split="dev")
    with pytest.raises(ValueError, match="no column 'text' for 'text'; there are body, meta"):
        read(dataset=saved)
