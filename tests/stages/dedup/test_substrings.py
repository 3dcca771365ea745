import random
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.contract import TEXT
from stages.dedup.spans import cut, gather
from stages.dedup.substrings import anchors, repeats


def frame(texts: list[str], sources: list[str] | None = None) -> pa.Table:
    n = len(texts)
    return pa.table(
        {
            "id": [f"{i:032x}" for i in range(n)],
            "row": np.arange(n),
            "text": pa.array(texts, TEXT),
            "source": sources or ["web"] * n,
        }
    )


def exchanged(stage: Any, tables: list[pa.Table], params: Any, parts: int = 2) -> pa.Table:
    emitted = pa.concat_tables(stage.emit(t.select(list(stage.reads_of(params))), params) for t in tables)
    emitted = emitted.select(list(stage.emits_of(params)))
    emitted = emitted.take(np.lexsort((emitted["row"].to_numpy(), emitted["key"].to_numpy())))
    places = (emitted["key"].to_numpy() >> np.uint64(32)) * np.uint64(parts) >> np.uint64(32)
    empty = pa.schema(list(stage.writes_of(params).items())).empty_table()
    out = [t for part in range(parts) for t in stage.settle(iter([emitted.filter(pa.array(places == part))]), params)]
    return pa.concat_tables([empty, *(t.cast(empty.schema) for t in out)])


def with_column(table: pa.Table, found: pa.Table, name: str) -> pa.Table:
    place = {row: i for i, row in enumerate(found["row"].to_pylist())}
    assert len(place) == found.num_rows
    take = pa.array([place.get(row) for row in table["row"].to_pylist()], pa.int64())
    return table.append_column(name, found[name].combine_chunks().take(take))


def spanned(table: pa.Table, size: int, **params: Any) -> pa.Table:
    grams = exchanged(anchors, [table.slice(0, 1), table.slice(1)], anchors.params(size=size))
    anchored = with_column(table, exchanged(gather, [grams], gather.params(column="anchors")), "anchors")
    found = exchanged(repeats, [anchored], repeats.params(size=size, **params))
    return with_column(anchored, exchanged(gather, [found], gather.params()), "spans")


def ranges(table: pa.Table) -> list[list[tuple[int, int]]]:
    return [
        [] if value is None else [(a, b) for a, b in np.frombuffer(value, "<i8").reshape(-1, 2).tolist()]
        for value in table["spans"].to_pylist()
    ]


def plain(texts: list[str], size: int, keep: str) -> list[list[tuple[int, int]]]:
    """By looking at every window of every text."""
    places: dict[bytes, list[tuple[int, int, int]]] = {}
    for row, text in enumerate(texts):
        data = text.encode()
        mark = xxhash.xxh3_64_intdigest(f"{row:032x}") >> 8
        for at in range(len(data) - size + 1):
            places.setdefault(data[at : at + size], []).append((mark, row, at))
    go = [np.zeros(len(t.encode()), bool) for t in texts]
    stay = [np.zeros(len(t.encode()), bool) for t in texts]
    for found in places.values():
        if len(found) > 1:
            for n, (_, row, at) in enumerate(sorted(found)):
                (stay if n == 0 and keep == "first" else go)[row][at : at + size] = True
    out = []
    for a, b in zip(go, stay, strict=True):
        edges = np.flatnonzero(np.diff(np.r_[False, a & ~b, False]))
        out.append([(int(x), int(y)) for x, y in edges.reshape(-1, 2)])
    return out


PHRASES = ["abcabcab", "the quick brown fox ", "aaaaaaaaaaaa", "é日本語", "x", "lorem ipsum dolor"]
TEXTS = st.lists(st.lists(st.sampled_from(PHRASES), max_size=8).map("".join), min_size=1, max_size=6)


@settings(deadline=None, max_examples=150)
@given(TEXTS, st.integers(8, 24), st.sampled_from(["first", "none"]))
def test_spans_are_exactly_the_repeated_bytes(texts: list[str], size: int, keep: str) -> None:
    assert ranges(spanned(frame(texts), size, keep=keep)) == plain(texts, size, keep)


def test_spans_of_real_length_equal_those_of_brute_force() -> None:
    rng = random.Random(4)
    words = [f"{a}{b}" for a in "bdfgklmnprst" for b in ("an", "orl", "isk", "ult", "em")]
    shared = [" ".join(rng.choice(words) for _ in range(n)) for n in (20, 40, 90)]
    texts = []
    for _ in range(25):
        own = [" ".join(rng.choice(words) for _ in range(30)) for _ in range(3)]
        texts.append(" ".join([*own, *rng.sample(shared, rng.randint(0, 2)), own[0] if rng.random() < 0.2 else ""]))
    for keep in ("first", "none"):
        assert ranges(spanned(frame(texts), 100, keep=keep)) == plain(texts, 100, keep)


def test_one_copy_of_everything_repeated_stays_and_the_preferred_source_keeps_it() -> None:
    shared = "this sentence was published in two places and is one of them only. "
    texts = [f"One. {shared}Only here.", f"{shared}Two, and something else.", "A third text without it."]
    table = spanned(frame(texts, ["web", "wiki", "web"]), 30, prefer=("wiki",))
    made = cut(table, cut.params(borders="words"))
    assert made["text"].to_pylist() == ["One. Only here.", texts[1], texts[2]]
    assert made["cut_bytes"].to_pylist() == [len(shared), 0, 0]
    assert made["drop_reason"].null_count == 3
    dropped = cut(table, cut.params(policy="drop", reason="shares_text"))
    assert dropped["drop_reason"].to_pylist() == ["shares_text", None, None]
    assert cut(table, cut.params(max_share=0.5))["drop_reason"].to_pylist() == ["repeated_spans", None, None]


@settings(deadline=None, max_examples=80)
@given(st.text(st.sampled_from("aé日𝒜 \n"), max_size=20), st.data())
def test_a_cut_never_splits_a_character_or_a_word(text: str, data: Any) -> None:
    size = len(text.encode())
    edges = sorted(data.draw(st.lists(st.integers(0, size), max_size=6, unique=True).filter(lambda e: len(e) % 2 == 0)))
    spans = np.array(edges, np.int64).tobytes()
    table = pa.table({"text": pa.array([text], TEXT), "spans": pa.array([spans], pa.binary())})
    made = cut(table, cut.params())["text"].to_pylist()[0]
    starts = np.cumsum([0, *(len(c.encode()) for c in text)])
    gone = [
        any(a <= starts[i] and starts[i + 1] <= b for a, b in zip(edges[::2], edges[1::2], strict=True)) for i in range(len(text))
    ]
    assert made == "".join(c for c, g in zip(text, gone, strict=True) if not g)
    by_words = cut(table, cut.params(borders="words"))["text"].to_pylist()[0]
    assert set(by_words.split()) <= set(text.split()) or not edges


def test_texts_shorter_than_a_span_are_left_alone() -> None:
    table = spanned(frame(["short", "short", "", "short"]), 20)
    assert ranges(table) == [[], [], [], []]
    assert cut(table, cut.params())["text"].to_pylist() == ["short", "short", "", "short"]
