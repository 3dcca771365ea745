"""A floor under a score: its own precision, both reasons, rows without a score."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.filters import score


def reasons(values: list[float | None], **params: Any) -> list[str | None]:
    batch = pa.table({"math": pa.array(values, pa.float32())})
    return score.at_least(batch, score.Floor(column="math", **params))["drop_reason"].to_pylist()


def test_a_score_at_the_floor_stays() -> None:
    assert reasons([0.69, 0.7, 5.0, None], least=0.7) == ["low_math", None, None, "no_math"]
    assert reasons([None, 2.0], least=3, unscored="keep") == [None, "low_math"]
    assert reasons([], least=3) == []
    assert reasons([None], least=3, unscored="keep") == [None]


@given(st.lists(st.none() | st.floats(-1e6, 1e6, width=32)), st.floats(-1e6, 1e6, width=32))
def test_it_is_what_a_loop_says(values: list[float | None], least: float) -> None:
    assert reasons(values, least=least) == ["no_math" if v is None else "low_math" if v < least else None for v in values]


def test_a_column_must_be_a_name() -> None:
    with pytest.raises(ValueError, match="column"):
        score.Floor(column="a b", least=1)
