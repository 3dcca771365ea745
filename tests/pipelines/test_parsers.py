"""Recipe scalars, predicates and rows in flight, against plain references."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.layer import Fallen, Rows, layer_table, overlay
from pipelines.predicate import parse_predicate
from pipelines.recipe import RecipeError, parse, scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [("no", "no"), ("yes", "yes"), ("on", "on"), ("true", True), ("False", False), ("~", None), ("", None), ("12", 12), ("10_000", 10000),
     ("-3", -3), ("1e3", 1000.0), (".5", 0.5), ("0.02", 0.02), ("1.2.3", "1.2.3"), ("0x10", "0x10"), ("2026-01-01", "2026-01-01")],
)  # fmt: skip
def test_scalars_follow_yaml_1_2(text, value):
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


@given(st.text(max_size=200))
@settings(max_examples=200)
def test_any_text_is_a_recipe_or_one_clear_error(tmp_path_factory, text):
    fault = None
    try:
        parse(text, "recipe.yaml", tmp_path_factory.getbasetemp())
    except RecipeError as error:
        fault = str(error)
    if fault is not None:
        assert fault.startswith("recipe.yaml")
        assert "\n" not in fault.split("not valid YAML")[0]


ATOMS = {
    "n = 3": lambda n, s: None if n is None else n == 3,
    "n >= 2": lambda n, s: None if n is None else n >= 2,
    "n in (1, 4)": lambda n, s: None if n is None else n in (1, 4),
    "s = 'it''s'": lambda n, s: None if s is None else s == "it's",
    "s like 'a%'": lambda n, s: None if s is None else s.startswith("a"),
    "n is null": lambda n, s: n is None,
    "s is not null": lambda n, s: s is not None,
}


def _not(value):
    return None if value is None else not value


def _and(a, b):
    return False if a is False or b is False else None if a is None or b is None else True


def _or(a, b):
    return True if a is True or b is True else None if a is None or b is None else False


trees = st.recursive(
    st.sampled_from(sorted(ATOMS)),
    lambda inner: st.tuples(st.just("not"), inner) | st.tuples(st.sampled_from(["and", "or"]), inner, inner),
    max_leaves=6,
)


def spelled(tree):
    if isinstance(tree, str):
        return tree
    if tree[0] == "not":
        return f"not ({spelled(tree[1])})"
    return f"({spelled(tree[1])}) {tree[0].upper()} ({spelled(tree[2])})"


def meant(tree, n, s):
    if isinstance(tree, str):
        return ATOMS[tree](n, s)
    if tree[0] == "not":
        return _not(meant(tree[1], n, s))
    return (_and if tree[0] == "and" else _or)(meant(tree[1], n, s), meant(tree[2], n, s))


@given(trees)
def test_a_predicate_means_what_sql_means(tree):
    cases = [(n, s) for n in (None, 1, 2, 3, 4) for s in (None, "it's", "abc", "")]
    table = pa.table({"n": pa.array([n for n, _ in cases], pa.int64()), "s": pa.array([s for _, s in cases], pa.string())})
    assert parse_predicate(spelled(tree)).mask(table).to_pylist() == [meant(tree, n, s) is True for n, s in cases]


@pytest.mark.parametrize(
    "text", ["", "n", "n =", "n = 1 or", "(n = 1", "n in ()", "n in 1", "1 = n", "n ; drop", "and", "n is 3", "n = 'x"]
)
def test_what_is_no_predicate_is_refused_with_its_place(text):
    with pytest.raises(ValueError, match="where: expected"):
        parse_predicate(text)


@given(st.lists(st.sampled_from(["stands", "out", 0, 1]), max_size=40), st.integers(0, 5), st.booleans())
def test_a_layer_has_one_row_per_position_whatever_became_of_it(fates, low, keep_text):
    """Plain twin: each position's fate decides its values; `out` did not stand on entry."""
    at = np.arange(low, low + len(fates))

    def rows(positions):
        return Rows(
            np.array(positions, np.int64),
            pa.table(
                {
                    "n": pa.array([int(p) for p in positions], pa.int64()),
                    "t": pa.array([f"t{p}" for p in positions], pa.large_string()),
                }
            ),
        )

    standing = rows([p for p, f in zip(at, fates, strict=True) if f == "stands"])
    fallen = []
    for member in (0, 1):
        down = [p for p, f in zip(at, fates, strict=True) if f == member]
        if down:
            fallen.append(Fallen(rows(down), member, pa.array([f"why{member}"] * len(down), pa.string())))
    table = layer_table({"n": pa.int64(), "t": pa.large_string()}, low, low + len(fates), standing, fallen, keep_text)
    expected = []
    for p, fate in zip(at, fates, strict=True):
        here = fate != "out"
        text = f"t{p}" if fate == "stands" or (here and keep_text) else None
        step = None if fate == "stands" else -1 if fate == "out" else fate
        reason = f"why{fate}" if fate in (0, 1) else None
        expected.append({"n": int(p) if here else None, "t": text, "drop_step": step, "drop_reason": reason})
    assert table.to_pylist() == expected


@given(st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)))
def test_an_overlay_has_the_rows_that_stand_in_both_and_the_columns_of_both(a, b):
    left = Rows(
        np.array(sorted(a), np.int64),
        pa.table({"x": pa.array(sorted(a), pa.int64()), "both": pa.array(["l"] * len(a), pa.string())}),
    )
    right = Rows(
        np.array(sorted(b), np.int64),
        pa.table({"y": pa.array(sorted(b), pa.int64()), "both": pa.array(["r"] * len(b), pa.string())}),
    )
    out = overlay([left, right])
    assert out.at.tolist() == sorted(a & b)
    assert out.table.to_pylist() == [{"x": p, "both": "r", "y": p} for p in sorted(a & b)]
