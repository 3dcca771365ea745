"""Additive increase, multiplicative decrease; budgets that count what is in the air."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthetic.limits import CUT, Budget, Gate


def test_one_cut_for_all_that_was_sent_before_it():
    gate = Gate("g", 1.0, 100)
    for sent_at in (1.0, 1.5, 1.9):
        gate.overload(2.0, sent_at, 3.0)
    assert gate.limit == pytest.approx(100 * CUT)
    assert not gate.open_at(4.9)
    assert gate.open_at(5.0)
    gate.overload(6.0, 5.5, 0.0)
    assert gate.limit == pytest.approx(100 * CUT**2)


def test_a_window_of_successes_raises_the_limit_by_one_step():
    gate = Gate("g", 1.0, 64, limit=0.0)
    gate.overload(1.0, 0.5, 0.0)
    before = gate.limit
    for _ in range(int(before)):
        gate.success()
    assert before + 1.8 < gate.limit < before + 2.0
    for _ in range(10_000):
        gate.success()
    assert gate.limit == 64


def test_one_may_always_pass():
    gate = Gate("g", 1.0, 4)
    for now in range(1, 100):
        gate.overload(float(now), now - 0.5, 0.0)
    assert gate.limit == 1.0
    assert gate.open_at(1000.0)
    gate.in_flight = 1
    assert not gate.open_at(1000.0)


@given(st.lists(st.integers(1, 500), max_size=60), st.integers(0, 5000), st.integers(1, 4), st.randoms())
def test_no_order_of_answers_spends_more_than_the_budget(ceilings, tokens, share, draw):
    """`share` workers that do not know of each other's requests in flight, and see answers late."""
    budgets = [Budget(tokens, None, (0.0, 0.0), share) for _ in range(share)]
    spent, flying = 0, []
    for ceiling in ceilings:
        budget = draw.choice(budgets)
        if budget.allows(ceiling, (spent, 0)):
            budget.reserve(ceiling)
            flying.append((budget, ceiling))
        if flying and draw.random() < 0.5:
            budget, cost = flying.pop(draw.randrange(len(flying)))
            spent += draw.randint(0, cost)
            budget.reserve(cost, -1)
        assert spent + sum(c for _, c in flying) <= tokens


def test_money_counts_at_the_dearer_price_until_it_is_known():
    budget = Budget(None, 1.0, (2.0, 8.0), 1)
    assert budget.allows(125_000, (0, 0))
    assert not budget.allows(125_001, (0, 0))
    assert not budget.allows(1000, (500_000, 0))
    assert budget.paid(500_000, 1000) == pytest.approx(1.008)
    budget.reserve(100_000)
    assert not budget.allows(26_000, (0, 0))
    assert Budget(5, None, (0, 0), 1).state((3, 1)) == "4 of 5 tokens are spent"
