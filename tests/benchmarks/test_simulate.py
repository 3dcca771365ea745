"""The simulation of a run against plans that can be worked out by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from simulate import Action, simulate


def test_tasks_share_workers_and_actions_wait_for_what_they_need():
    actions = [Action("a", (), [1.0, 1.0, 2.0]), Action("b", ("a",), [1.0])]
    assert simulate(actions, 1, 0.0) == pytest.approx(5.0)
    assert simulate(actions, 2, 0.0) == pytest.approx(4.0)
    assert simulate(actions, 9, 0.0) == pytest.approx(3.0)
    assert simulate(actions, 9, 0.0, startup=10.0) == pytest.approx(13.0)


def test_a_driver_hears_one_outcome_at_a_time():
    assert simulate([Action("a", (), [0.1] * 1000)], 1000, 0.01) == pytest.approx(0.1 + 1000 * 0.01)


@given(st.lists(st.floats(0.01, 5), min_size=1, max_size=40), st.integers(1, 8))
def test_no_schedule_is_faster_than_the_work_and_none_slower_than_one_worker(durations, workers):
    took = simulate([Action("a", (), durations)], workers, 0.0)
    assert took >= max(sum(durations) / workers, max(durations)) - 1e-9
    assert took <= sum(durations) / workers + max(durations) + 1e-9
