import math

import numpy as np
import pyarrow as pa
import pytest

from classifiers.scale import Scale, oriented


def test_scores_are_rounded_oriented_and_null_where_unknown() -> None:
    known = np.array([True, False, True])
    assert Scale(0, 1).column(np.array([0.12345678, np.nan, 1]), "x", known).to_pylist() == pytest.approx([0.123457, None, 1.0])
    lower = Scale(0, 1, "lower").column(np.array([0.25, 0, 0.0]), "x")
    assert lower.to_pylist() == [-0.25, 0.0, 0.0]
    assert not np.signbit(lower.to_numpy()).any() or lower.to_numpy()[0] < 0
    assert not np.signbit(lower.to_numpy()[1:]).any(), "a zero has one sign"


@pytest.mark.parametrize(("value", "said"), [(math.nan, "NaN. for 1 of 2"), (1.5, "1.5, outside .* 0 to 1"), (math.inf, "outside")])
def test_what_is_no_score_is_said(value: float, said: str) -> None:
    with pytest.raises(ValueError, match=f"my model gave.*{said}"):
        Scale(0, 1).column(np.array([0.5, value]), "my model")


def test_perplexity_becomes_a_score() -> None:
    params = oriented.params(source="perplexity", column="fluency", better="lower", log10=True, low=1)
    out = oriented(pa.table({"perplexity": pa.array([10.0, 1000.0, None, 1e9])}), params)
    assert out["fluency"].to_pylist() == [-1.0, -3.0, None, -9.0]
    assert oriented.writes_of(params) == {"fluency": pa.float32()}
    with pytest.raises(ValueError, match="outside of its declared range 1 to inf"):
        oriented(pa.table({"perplexity": pa.array([0.5])}), params)


def test_a_logarithm_and_a_scale_need_limits() -> None:
    with pytest.raises(ValueError, match="log10 needs low"):
        oriented.params(source="x", log10=True)
    with pytest.raises(ValueError, match="not below"):
        oriented.params(source="x", low=1, high=1)
