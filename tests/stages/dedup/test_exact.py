from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.contract import TEXT
from stages.dedup.exact import Documents, Urls, documents, normal_text, normal_url, urls


def frame(**columns: list[Any]) -> pa.Table:
    n = len(next(iter(columns.values())))
    base: dict[str, Any] = {
        "id": [f"{i:032x}" for i in range(n)], "row": np.arange(n), "source": ["web"] * n, "date": pa.nulls(n, pa.string()),
        "url": pa.nulls(n, pa.string()), "text": pa.nulls(n, TEXT),
    }  # fmt: skip
    table = pa.table({**base, **columns})
    return table.set_column(table.schema.get_field_index("text"), "text", table["text"].cast(TEXT))


def verdicts(stage: Any, params: Any, *batches: pa.Table) -> dict[int, str]:
    """row -> twin, with the exchange played by a stable sort."""
    emitted = pa.concat_tables(stage.emit(b, params) for b in batches)
    assert {f.name: f.type for f in emitted.schema} == stage.emits_of(params)
    order = np.argsort(emitted["key"].to_numpy(), kind="stable")
    out = pa.concat_tables(stage.settle(iter([emitted.take(order)]), params))
    assert {f.name: f.type for f in out.schema} == stage.writes_of(params)
    assert out["row"].to_pylist() == list(dict.fromkeys(out["row"].to_pylist()))
    return dict(zip(out["row"].to_pylist(), (int(t, 16) for t in out["twin"].to_pylist()), strict=True))


def test_all_but_one_of_equal_texts_are_dropped_and_name_the_survivor() -> None:
    rows = frame(text=["a", "b", "a", None, "c", "a", None, ""])
    assert verdicts(documents, Documents(), rows) == {2: 0, 5: 0}
    assert verdicts(documents, Documents(), rows.slice(3, 1)) == {}


def test_normalisation_decides_what_is_equal() -> None:
    rows = frame(text=["Cafe\u0301 noir", "Café  noir\n", "café noir", "Café noir"])
    assert verdicts(documents, Documents(), rows) == {}
    assert verdicts(documents, Documents(normalize="whitespace"), rows) == {3: 1}
    assert verdicts(documents, Documents(normalize="nfc_casefold"), rows) == {1: 0, 2: 0, 3: 0}


def test_the_declared_survivor_stays() -> None:
    rows = frame(
        text=["x y", "x  y", "x y", "x y"], source=["web", "web", "wiki", "books"],
        date=["2024-05-01", "2021-01-01T00:00:00Z", None, "2023-01-01"], quality=[0.5, -2.0, float("nan"), 0.25],
    )  # fmt: skip

    def survivor(**params: Any) -> int:
        (twin,) = set(verdicts(documents, Documents(normalize="whitespace", **params), rows).values())
        return twin

    assert survivor() == 0
    assert survivor(keep="longest") == 1
    assert survivor(keep="oldest") == 1
    assert survivor(keep="newest") == 0
    assert survivor(keep="highest", by="quality") == 0
    assert survivor(prefer=("wiki", "books")) == 2
    assert survivor(prefer=("books", "wiki"), keep="newest") == 3


def test_highest_orders_every_float_and_needs_its_column() -> None:
    values = [-1e300, -1.0, -0.0, 0.0, 1e-300, 2.5, float("inf")]
    rows = frame(text=["t"] * 8, score=[float("nan"), *values])
    for count in range(2, 9):
        (twin,) = set(verdicts(documents, Documents(keep="highest", by="score"), rows.slice(0, count)).values())
        # 0.0 and -0.0 are one value: the smaller id stays.
        assert twin == (3 if count == 5 else count - 1)
    with pytest.raises(ValueError, match="belong together"):
        Documents(keep="highest")


def test_urls_differ_by_what_they_address() -> None:
    params = Urls()
    same = [
        "https://www.Example.org:443/a/?b=2&a=1&utm_source=x#top",
        "http://example.org/a?a=1&b=2",
        "https://example.org./a/?a=1&b=2",
    ]
    assert len({normal_url(u, params) for u in same}) == 1
    assert (
        len({normal_url(u, params) for u in ["http://e.org/a", "http://e.org/A", "http://e.org:8080/a", "http://e.org/a?x="]}) == 4
    )
    assert normal_url("http://[broken", params) == "http://[broken"
    assert normal_url("http://e.org:99999999/", params) == "http://e.org:99999999/"
    rows = frame(url=[same[0], "https://other.net", None, same[1], "http://other.net/?fbclid=1", None])
    assert verdicts(urls, params, rows) == {3: 0, 4: 1}
    assert verdicts(urls, Urls(keep_query=False), frame(url=["http://a.b/?p=1", "http://a.b/?p=2"])) == {1: 0}


@given(st.lists(st.sampled_from(["a", "a ", " a", "b", "B", "c\n", None]), max_size=12), st.randoms(use_true_random=False))
def test_same_verdicts_in_any_order_and_cut_as_a_plain_twin_gives(texts: list[str | None], random: Any) -> None:
    params = Documents(normalize="whitespace", keep="longest")
    rows = frame(text=texts) if texts else frame(text=[None])
    groups: dict[str, list[tuple[int, int]]] = {}
    for row, text in enumerate(texts):
        if text is not None:
            groups.setdefault(normal_text(text, "whitespace"), []).append((-len(text.encode()), row))
    expected = {row: min(group)[1] for group in groups.values() for _, row in group if row != min(group)[1]}
    assert verdicts(documents, params, rows) == expected
    order = list(range(rows.num_rows))
    random.shuffle(order)
    assert verdicts(documents, params, *(rows.take([i]) for i in order)) == expected
