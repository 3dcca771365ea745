import itertools
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifiers.bucket_loss import BORDERS, LOSSES, OTHER, Reference, borders, loss_of, losses, segments
from classifiers.kneser_ney import END
from manifests.spill import partition_of
from stages.contract import TEXT, Unusable

MILL = "the river turns the wheel and the wheel turns the stone and the stone grinds the corn into fine flour for bread".split()  # noqa: SIM905
SHOP = "buy cheap deal now click free shipping sale order today best price offer win cash prize".split()  # noqa: SIM905


def text(good: float, rng: random.Random) -> str:
    found: list[str] = []
    for _ in range(5):
        at = rng.randrange(15)
        found += MILL[at : at + 8] if rng.random() < good else rng.sample(SHOP, 8)
    return " ".join(found)


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    rng = random.Random(9)
    path = tmp_path / "reference.txt"
    path.write_text("\n".join(text(1.0, rng) for _ in range(40)))
    return path


def rows(buckets: int = 5, each: int = 30) -> list[dict[str, Any]]:
    rng = random.Random(1)
    return [
        {"id": f"{i * 100 + b:032x}", "text": text(b / (buckets - 1), rng), "bucket": b}
        for i in range(each)
        for b in range(buckets)
    ]


def judged(batches: list[list[dict[str, Any]]], place: Path, **params: Any) -> list[dict[str, Any]]:
    chosen = losses.params(reference=str(place), buckets=5, tokens=500, **params)
    schema = pa.schema([("id", pa.string()), ("text", TEXT), ("bucket", pa.int32())])
    model = losses.model(chosen)
    emitted = pa.concat_tables([losses.emit(pa.Table.from_pylist(b, schema=schema), chosen, model=model) for b in batches]).sort_by(
        "key"
    )
    places = partition_of(emitted["key"].to_numpy(), 5)
    assert places.tolist() == emitted["bucket"].to_pylist(), "a partition for each bucket"
    tables = list(losses.settle(iter([emitted]), chosen, model=model))
    assert all(t.schema.equals(LOSSES) for t in tables)
    found: list[dict[str, Any]] = pa.concat_tables(tables).to_pylist()
    return found


def test_buckets_closer_to_the_reference_lose_less_and_all_learn_from_equal_tokens(reference: Path) -> None:
    found = judged([rows()], reference)
    bits = [r["bits"] for r in found]
    assert bits == sorted(bits, reverse=True)
    assert bits[0] > bits[4] + 1
    assert [r["tokens"] for r in found] == [500] * 5
    assert found[4]["known_share"] == 1
    shuffled = rows()
    random.Random(3).shuffle(shuffled)
    assert judged([shuffled[:40], shuffled[40:90], shuffled[90:]], reference) == found


def test_a_loss_is_the_mean_surprise_of_the_reference() -> None:
    known = Reference([["a"], ["b"]], frozenset({"a", "b", END, OTHER}))
    # Unigrams of "a c": a, <other> and </s> once each; with the fallback discount of .5 half of the mass goes to four words.
    p = {"a": 0.5 / 3 + 0.5 / 4, "b": 0.5 / 4, END: 0.5 / 3 + 0.5 / 4}
    expected = -(math.log2(p["a"]) + math.log2(p["b"]) + 2 * math.log2(p[END])) / 4
    assert loss_of([["a", "c"]], known, 1) == pytest.approx(expected)


def test_a_bucket_with_too_few_tokens_has_no_loss(reference: Path) -> None:
    few = [r for r in rows() if r["bucket"] != 2] + [r for r in rows() if r["bucket"] == 2][:3]
    found = judged([few], reference)
    assert [r["bits"] is None for r in found] == [False, False, True, False, False]
    assert found[2]["tokens"] == 120


def test_what_cannot_be_judged_is_said(reference: Path, tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="there is a bucket 7; set buckets, which is 5"):
        judged([[{"id": "0" * 32, "text": "a", "bucket": 7}]], reference)
    for name, content, said in (
        ("a.csv", "x", "is a .txt or .jsonl"),
        ("a.txt", " \n", "holds no text"),
        ("a.jsonl", '{"x": 1}', "holds no text"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=said):
            losses.model(losses.params(reference=str(tmp_path / name)))
    with pytest.raises(ValueError, match="no reference there"):
        losses.model(losses.params(reference=str(tmp_path / "none.txt")))


@given(st.lists(st.integers(0, 9), min_size=3, max_size=9), st.integers(1, 3))
def test_runs_have_the_least_squares_of_all(values: list[int], count: int) -> None:
    bits = np.array(values, float)

    def cost(starts: tuple[int, ...]) -> float:
        return float(sum(((part - part.mean()) ** 2).sum() for part in np.split(bits, starts)))

    best = min(cost(starts) for starts in itertools.combinations(range(1, len(bits)), count - 1))
    found = segments(bits, count)
    assert found[0] == 0
    assert found == sorted(set(found))
    assert cost(tuple(found[1:])) == pytest.approx(best, abs=1e-9)


def bordered(bits: list[float | None], labels: list[str]) -> list[dict[str, Any]]:
    batch = pa.table({"bucket": pa.array(range(len(bits)), pa.int32()), "bits": pa.array(bits, pa.float64())})
    chosen = borders.params(labels=labels)
    (table,) = borders.settle(iter([borders.emit(batch, chosen)]), chosen)
    assert table.schema.equals(BORDERS)
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def test_borders_lie_where_losses_jump() -> None:
    found = bordered([9.1, 9.0, None, 6.2, 6.1, 6.0, 3.0], ["high", "medium", "low"])
    assert [(r["label"], r["low"], r["better_than_below"]) for r in found] == [
        ("low", 0, None),
        ("medium", 3, True),
        ("high", 6, True),
    ]
    assert bordered([3.0, 3.1, 9.0], ["good", "bad"])[1]["better_than_below"] is False
    with pytest.raises(Unusable, match="2 buckets have a loss and 3 labels"):
        bordered([1.0, None, 2.0], ["a", "b", "c"])


RECIPE = """
name: judged
steps:
  read:   {{uses: stages.ingest.jsonl.rows, with: {{paths: "{rows}", columns: {{id: id}}, keep: {{bucket: int32}}}}}}
  loss:   {{uses: classifiers.bucket_loss.losses, from: read, with: {{reference: "{reference}", buckets: 5, tokens: 500}}}}
  limits: {{uses: classifiers.bucket_loss.borders, from: loss, with: {{labels: [good, fair, poor]}}}}
  named:  {{uses: classifiers.buckets.relabel, from: read, given: {{borders: limits}}}}
"""


def test_labels_by_loss_through_a_recipe(engine: Any, reference: Path) -> None:
    path = engine.rows("rows.jsonl", rows())
    assert engine.run(RECIPE.format(rows=path, reference=reference)).code == 0
    assert [(r["bucket"], r["bits"]) for r in engine.table("loss")] == [
        (r["bucket"], r["bits"]) for r in judged([rows()], reference)
    ]
    lows = {r["label"]: r["low"] for r in engine.table("limits")}
    assert lows["poor"] == 0
    assert lows["good"] > lows["fair"] > 0
    for given_, named in zip(engine.table("read"), engine.table("named"), strict=True):
        expected = max((low, name) for name, low in lows.items() if low <= given_["bucket"])[1]
        assert named["label"] == expected
