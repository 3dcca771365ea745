import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifiers.quantiles import Counts, bucket_of, cuts_of, held, ordered, values_of

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(floats, min_size=1, max_size=50))
def test_ordered_integers_keep_order_and_values(values: list[float]) -> None:
    scores = np.array(values, np.float32)
    places = ordered(scores)
    assert np.array_equal(values_of(places), scores + np.float32(0))
    assert np.array_equal(np.argsort(places, kind="stable"), np.argsort(scores + np.float32(0), kind="stable"))


documents = st.lists(st.tuples(st.integers(-5, 30), st.integers(0, 9)), min_size=1, max_size=60)


@given(documents, st.integers(2, 25))
def test_cuts_are_the_weighted_inverted_cdf_and_every_document_is_held_once(rows: list[tuple[int, int]], buckets: int) -> None:
    scores = np.array([s / 8 for s, _ in rows], np.float32)
    weights = np.array([w for _, w in rows], np.int64)
    if not weights.sum():
        weights[0] = 1
    distinct, place = np.unique(scores, return_inverse=True)
    counts = Counts(distinct, np.bincount(place), np.bincount(place, weights).astype(np.int64))
    cuts = cuts_of(counts, buckets)
    # Plainly: every document repeated as often as it weighs, and the k-th share of that list.
    line = np.sort(np.repeat(scores, weights))
    assert cuts.tolist() == [line[-(-k * len(line) // buckets) - 1] for k in range(1, buckets)]
    which = bucket_of(scores, cuts)
    assert which.tolist() == [sum(bool(c < s) for c in cuts) for s in scores]
    many, weight = held(counts, cuts)
    assert many.tolist() == np.bincount(which, minlength=buckets).tolist()
    assert weight.tolist() == np.bincount(which, weights, minlength=buckets).tolist()
    total = weights.sum()
    assert all(weight[b:].sum() * buckets <= (buckets - b) * total for b in range(1, buckets)), "no upper part beyond its share"


def test_distinct_scores_make_equal_buckets() -> None:
    scores = np.arange(40, dtype=np.float32)
    one = np.ones(40, np.int64)
    assert held(Counts(scores, one, one), cuts_of(Counts(scores, one, one), 20))[0].tolist() == [2] * 20


def test_numpy_agrees() -> None:
    rng = np.random.default_rng(1)
    scores = np.unique(rng.normal(size=500).astype(np.float32))
    weight = rng.integers(1, 5000, len(scores))
    cuts = cuts_of(Counts(scores, np.ones_like(weight), weight), 20)
    expected = np.quantile(scores, np.arange(1, 20) / 20, weights=weight, method="inverted_cdf")
    assert cuts.tolist() == pytest.approx(expected.tolist())
