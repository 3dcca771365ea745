"""The three steps of a mixture against a plain one that lays all documents out in a row."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.blend import Cuts, Sizes, Take, budget, sizes, take
from stages.contract import Unusable
from stages.mixture import Demand, Mixture, stocks
from stages.order import BUCKETS, dealt, hashes, turned

Documents = dict[str, list[int]]
"""Tokens of the documents of each source."""


def frame(sources: Documents) -> pa.Table:
    rows = [(f"{name}-{n}", name, tokens) for name, sizes in sources.items() for n, tokens in enumerate(sizes)]
    ids, names, tokens = zip(*rows, strict=True) if rows else ((), (), ())
    columns = {"id": pa.array(ids, pa.string()), "step": pa.array(names, pa.string()), "tokens": pa.array(tokens, pa.int64())}
    return pa.table(columns)


def measured(rows: pa.Table, seed: int = 0, batch: int = 7, **more: Any) -> pa.Table:
    params = Sizes(seed=seed, **more)
    emitted = pa.concat_tables([sizes.emit(rows.slice(i, batch), params) for i in range(0, max(rows.num_rows, 1), batch)])
    return pa.concat_tables(
        [pa.schema(sizes.writes_of(params).items()).empty_table(), *sizes.settle(iter([emitted.sort_by("key")]), params)]
    )


def decided(rows: pa.Table, mixture: Mixture, batch: int = 7) -> pa.Table:
    given = {"sizes": measured(rows, mixture.seed), "model": Cuts(mixture)}
    emitted = pa.concat_tables([budget.emit(rows.slice(i, batch), mixture, **given) for i in range(0, rows.num_rows, batch)])
    return pa.concat_tables(budget.settle(iter([emitted.sort_by("key")]), mixture, **given))


def mixed(rows: pa.Table, mixture: Mixture, repeat: str = "written") -> list[dict[str, Any]]:
    table, found = decided(rows, mixture), []
    for i in range(0, rows.num_rows, 5):
        batch = rows.slice(i, 5)
        for row in take(batch, Take(repeat=repeat), budget=table).to_pylist():
            found.append(row | batch.slice(row["parent"], 1).to_pylist()[0])
    return found


def in_epoch(document: str, seed: int, epoch: int) -> int:
    """A document's place in an epoch's order, one bit operation at a time."""
    key = xxhash.xxh3_64_intdigest(document, seed)
    order, _, mask = dealt(seed, epoch)
    return order.tolist().index(key >> 52) << 52 | (key & (1 << 52) - 1) ^ mask


def laid_out(sources: Documents, mixture: Mixture) -> set[tuple[str, str, int]]:
    """The reference: (id, phase, epoch), document by document along the endless row of each source."""
    found = set()
    for name, documents in sources.items():
        ends, total = [], 0
        for phase, wanted in mixture.wanted_by_phase().items():
            total += wanted.get(name, 0)
            ends.append((total, phase))
        position, epoch = 0, 0
        while position < total:
            order = sorted(range(len(documents)), key=lambda n: in_epoch(f"{name}-{n}", mixture.seed, epoch))
            for n in order:
                phase = next((phase for end, phase in ends if position < end), None)
                if phase is not None and documents[n]:
                    found.add((f"{name}-{n}", phase, epoch))
                position += documents[n]
            epoch += 1
    return found


@st.composite
def mixtures(draw: Any) -> tuple[Documents, Mixture]:
    names = draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True))
    lengths = st.lists(st.integers(1, 40), min_size=1, max_size=30)
    sources = {name: draw(lengths) for name in names}
    phases = {}
    for number in range(draw(st.integers(1, 3))):
        wanted = {name: draw(st.integers(0, 2 * sum(sources[name]))) for name in names}
        if any(wanted.values()):
            phases[f"p{number}"] = {"budgets": wanted}
    if not phases:
        phases["p"] = {"budgets": {names[0]: 1}}
    return sources, Mixture.model_validate({"seed": draw(st.integers(0, 9)), "phases": phases, "max_epochs": 9})


@settings(max_examples=40)
@given(mixtures())
def test_a_mixture_is_what_a_plain_reader_lays_out(case: tuple[Documents, Mixture]) -> None:
    sources, mixture = case
    got = mixed(frame(sources), mixture)
    assert {(row["id"], row["phase"], row["copy"]) for row in got} == laid_out(sources, mixture)
    assert len(got) == len(laid_out(sources, mixture))


@settings(max_examples=25)
@given(mixtures())
def test_the_budget_counts_every_token_and_misses_by_less_than_a_document(case: tuple[Documents, Mixture]) -> None:
    sources, mixture = case
    rows = frame(sources)
    table = decided(rows, mixture)
    for repeat in ("written", "virtual"):
        tokens: dict[tuple[str, str], int] = defaultdict(int)
        for row in mixed(rows, mixture, repeat):
            tokens[row["step"], row["phase"]] += row["tokens"] * row["copies"]
        planned: dict[tuple[str, str], int] = defaultdict(int)
        for part in table.to_pylist():
            planned[part["source"], part["phase"]] += part["tokens"]
        assert tokens == planned
    for phase, wanted in mixture.wanted_by_phase().items():
        for name, want in wanted.items():
            assert abs(planned[name, phase] - want) < max(sources[name])


def test_another_source_moves_no_document_of_the_first() -> None:
    one = {"a": [5] * 50}
    few = Mixture(phases={"p": {"budgets": {"a": 120}}}, max_epochs=9)
    both = Mixture(phases={"p": {"budgets": {"a": 120, "b": 60}}}, max_epochs=9)
    alone = {(r["id"], r["copy"]) for r in mixed(frame(one), few)}
    beside = {(r["id"], r["copy"]) for r in mixed(frame(one | {"b": [3] * 40}), both) if r["step"] == "a"}
    assert alone == beside
    more = Mixture(phases={"p": {"budgets": {"a": 150}}}, max_epochs=9)
    assert alone < {(r["id"], r["copy"]) for r in mixed(frame(one), more)}


def test_repeats_have_ids_of_their_own_and_the_first_keeps_the_documents() -> None:
    mixture = Mixture(budgets={"a": 500}, max_epochs=9)
    rows = mixed(frame({"a": [10] * 20}), mixture)
    numbers = defaultdict(list)
    for row in rows:
        numbers[row["id"]].append(row["k"])
    assert all(ks in ([None, 1], [None, 1, 2]) for ks in numbers.values())
    virtual = mixed(frame({"a": [10] * 20}), mixture, "virtual")
    assert len(virtual) == 20
    assert {row["copies"] for row in virtual} == {2, 3}
    assert {row["k"] for row in virtual} == {None}


def test_each_epoch_has_an_order_of_its_own() -> None:
    half = Mixture(phases={f"p{n}": {"budgets": {"a": 500}} for n in range(4)}, max_epochs=9)
    rows = mixed(frame({"a": [10] * 100}), half)
    first = [{r["id"] for r in rows if r["phase"] == f"p{n}"} for n in range(4)]
    assert not first[0] & first[1]
    assert not first[2] & first[3]
    assert 10 < len(first[0] & first[2]) < 40


def test_an_epochs_order_is_a_permutation_of_the_seeds() -> None:
    keys = hashes((str(n) for n in range(5000)), 3)
    assert np.array_equal(turned(keys, 3, 0), keys)
    for epoch in (1, 2):
        places = turned(keys, 3, epoch)
        assert len(np.unique(places)) == len(keys)
        assert abs(np.corrcoef(places.astype(float), keys.astype(float))[0, 1]) < 0.05
        assert sorted(dealt(3, epoch)[0].tolist()) == list(range(BUCKETS))


def test_an_impossible_mixture_is_refused_with_its_numbers() -> None:
    rows = frame({"wiki": [10] * 10, "web": [10] * 1000})
    mixture = Mixture(tokens=5000, shares={"wiki": 0.2, "web": 0.8})
    with pytest.raises(
        ValueError, match=r"wants 1,000 tokens of 'wiki', which has 100 in 10 documents: 10.00 epochs, and 4 are allowed"
    ) as error:
        decided(rows, mixture)
    assert "2,000 of 5,000 tokens" in str(error.value)
    assert "have 10 epochs (or a share of 0.08 at most)" in str(error.value)
    for way in ({"tokens": 2000}, {"epochs": {"wiki": 10}}, {"shares": {"wiki": 0.08, "web": 0.92}}):
        assert decided(rows, Mixture.model_validate({"tokens": 5000, "shares": {"wiki": 0.2, "web": 0.8}} | way)).num_rows


def test_a_source_without_rows_is_named() -> None:
    with pytest.raises(ValueError, match=r"'math', which has no rows; sources with rows: web"):
        decided(frame({"web": [5] * 9}), Mixture(tokens=20, shares={"web": 0.5, "math": 0.5}))


@pytest.mark.parametrize(
    ("params", "fault"),
    [
        ({"tokens": 9, "shares": {"a": 0.7, "b": 0.5}}, "the shares sum to 1.2"),
        ({"tokens": 9, "shares": {"a": 70, "b": 20}}, "the shares sum to 90"),
        ({"tokens": 9, "shares": {"a": -0.5, "b": 1.5}}, "'a' asks for -0.5"),
        ({"shares": {"a": 1}}, "shares need tokens"),
        ({"tokens": 9}, "needs shares, budgets or phases"),
        ({"tokens": 9, "shares": {"a": 1}, "phases": {"p": {"upto": 1, "shares": {"a": 1}}}}, "only one of the three"),
        ({"tokens": 9, "phases": {"p": {"upto": 0.9, "shares": {"a": 1}}}}, "the last is 1"),
        ({"tokens": 9, "phases": {"p": {"upto": 0.9, "shares": {"a": 1}}, "q": {"upto": 0.5, "shares": {"a": 1}}}}, "switch points rise"),
        ({"tokens": 9, "phases": {"p": {"shares": {"a": 1}}}}, "phase 'p' has shares and no length"),
        ({"budgets": {"a": 5}, "epochs": {"b": 2}}, "epochs names \\['b'\\]"),
    ],
)  # fmt: skip
def test_a_mixture_that_means_nothing_is_refused(params: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        Mixture.model_validate(params)


def test_percent_and_rounded_shares_are_shares() -> None:
    percent = Mixture(tokens=1000, shares={"a": 60.1, "b": 40.0}).wanted_by_phase()["all"]
    assert percent == {"a": 600, "b": 400}


def test_phases_switch_where_upto_says() -> None:
    mixture = Mixture.model_validate(
        {"tokens": 1000, "phases": {"p1": {"upto": 0.94, "shares": {"a": 1}}, "p2": {"upto": 1, "shares": {"a": 0.5, "b": 0.5}}}}
    )
    assert mixture.wanted_by_phase() == {"p1": {"a": 940}, "p2": {"a": 30, "b": 30}}


def test_an_id_that_occurs_twice_is_refused_or_counted() -> None:
    rows = pa.concat_tables([frame({"a": [5] * 9}), frame({"a": [5] * 2})])
    with pytest.raises(ValueError, match="ids occur twice: 2 in 'a'"):
        measured(rows)
    assert sum(measured(rows, twice="allow")["rows"].to_pylist()) == 11


def test_sizes_of_another_seed_are_refused() -> None:
    rows = frame({"a": [5] * 9})
    mixture = Mixture(budgets={"a": 20}, seed=2)
    with pytest.raises(Unusable, match="counted in the order of seed 1, the mixture has seed 2"):
        Demand(mixture, stocks(measured(rows, seed=1), mixture.seed))


def test_a_document_longer_than_its_budget_is_taken_whole_and_the_next_phase_goes_on_behind_it() -> None:
    mixture = Mixture(phases={"p": {"budgets": {"a": 100}}, "q": {"budgets": {"a": 100}}})
    rows = mixed(frame({"a": [10_000_000]}), mixture)
    assert [(row["phase"], row["tokens"]) for row in rows] == [("p", 10_000_000)]
