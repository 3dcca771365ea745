"""The compiled kernels of the extractor against plain Python twins."""

from __future__ import annotations

import html
import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stages.extract import blocks as b
from stages.extract.context import surround, threshold
from stages.extract.features import COLUMNS, describe
from stages.extract.tags import ENTITY_TABLE, TAG_TABLE, TAGS, fnv
from stages.extract.trees import Forest, chances, scorer
from stages.extract.wording import LEXICON_BITS, W_COLUMNS, W_ENDS, W_WORDS, measure, measure_all, title_set, word_slots

LEXICON = np.linspace(-2, 2, 1 << LEXICON_BITS).astype(np.float32)
NO_TITLE = np.zeros(1024, np.bool_)

WORDS = st.text("abcXYZ äß漢字кот.,!?&<>'\"=/ 09_-\n\t", max_size=40)


def texts(page: b.Page) -> list[str]:
    return [page.text[start:stop].tobytes().decode() for start, stop in page.blocks[:, [b.B_TEXT0, b.B_TEXT1]]]


def tags_above(page: b.Page, block: int) -> list[str]:
    found, node = [], page.blocks[block, b.B_NODE]
    while node:
        found.append(TAGS[page.nodes[node, b.N_TAG]])
        node = page.nodes[node, b.N_PARENT]
    return found


def twin_text(source: str) -> str:
    """White space collapsed as the kernel does it, references resolved by the standard library."""
    return re.sub(r"[\s\x00-\x20]+", " ", html.unescape(source)).strip()


@settings(deadline=None)
@given(st.lists(WORDS, max_size=6))
def test_escaped_text_comes_back_with_its_white_space_collapsed(parts: list[str]) -> None:
    page = b.read_page("".join(f"<p>{html.escape(part)}</p>" for part in parts).encode())
    assert texts(page) == [text for text in map(twin_text, (html.escape(part) for part in parts)) if text]


@pytest.mark.parametrize(
    "reference",
    [
        "&eacute;",
        "&#233;",
        "&#xE9;",
        "&#xe9",
        "&amp;amp;",
        "&#150;",
        "&notanentity;",
        "&copy2024",
        "&nosuchname;",
        "&",
        "&;",
        "&hearts;&lt;p&gt;",
    ],
)
def test_character_references_read_as_the_standard_library_reads_them(reference: str) -> None:
    assert texts(b.read_page(f"<p>a{reference}z</p>".encode())) == [html.unescape(f"a{reference}z")]


@settings(deadline=None)
@given(
    st.recursive(
        WORDS.map(lambda text: ("p", [text])),
        lambda inner: st.tuples(st.sampled_from(["div", "ul", "section", "table"]), st.lists(inner, max_size=3)),
        max_leaves=12,
    )
)
def test_blocks_stand_in_the_elements_that_hold_them(tree: tuple[str, list[object]]) -> None:
    expected: list[tuple[str, list[str]]] = []

    def write(node: Any, above: list[str]) -> str:
        name, children = node
        if name == "p":
            text = html.escape(children[0])
            if twin_text(text):
                expected.append((twin_text(text), ["p", *above]))
            return f"<p>{text}</p>"
        return f"<{name}>{''.join(write(child, [name, *above]) for child in children)}</{name}>"

    page = b.read_page(write(tree, []).encode())
    assert [(text, tags_above(page, n)) for n, text in enumerate(texts(page))] == expected


IMPLIED = {
    "<p>one<p>two": [("one", ["p"]), ("two", ["p"])],
    "<ul><li>one<li>two<ul><li>three</ul></ul>": [("one", ["li", "ul"]), ("two", ["li", "ul"]), ("three", ["li", "ul", "li", "ul"])],
    "<table><tr><td>one<td>two<tr><td>three</table>four": [
        ("one", ["td", "tr", "table"]), ("two", ["td", "tr", "table"]), ("three", ["td", "tr", "table"]), ("four", []),
    ],
    "<dl><dt>one<dd>two<dt>three</dl>": [("one", ["dt", "dl"]), ("two", ["dd", "dl"]), ("three", ["dt", "dl"])],
    "<div>one</p></section>two</div>three": [("one", ["div"]), ("two", ["div"]), ("three", [])],
    "<h1>one<h2>two</h1>three": [("one", ["h1"]), ("two", ["h2"]), ("three", [])],
    "<p>one<br>two<br><br>three": [("one\ntwo", ["p"]), ("three", ["p"])],
    "one<script>two</script>three<style>four</style>": [("onethree", [])],
    "one<!-- <p>two --><p>three": [("one", []), ("three", ["p"])],
    "1 < 2 <3 <p title='a>b'>four": [("1 < 2 <3", []), ("four", ["p"])],
    "one<svg><title>two</title></svg>three": [("onethree", [])],
}  # fmt: skip


@pytest.mark.parametrize("source", IMPLIED)
def test_end_tags_that_html_leaves_out_are_implied(source: str) -> None:
    page = b.read_page(source.encode())
    assert [(text, tags_above(page, n)) for n, text in enumerate(texts(page))] == IMPLIED[source]


def forest(rng: np.random.Generator, trees: int, columns: int) -> Forest:
    roots: list[int] = []
    depths: list[int] = []
    feature: list[int] = []
    limit: list[float] = []
    child: list[int] = []
    value: list[float] = []

    def slot() -> int:
        feature.append(0)
        limit.append(np.inf)
        child.append(len(child))
        value.append(0.0)
        return len(child) - 1

    for _ in range(trees):
        roots.append(slot())
        open_, deepest = [(roots[-1], 0)], 0
        while open_:
            at, depth = open_.pop()
            deepest = max(deepest, depth)
            if depth < 5 and rng.random() < 0.8:
                left, right = slot(), slot()
                feature[at], limit[at], child[at] = int(rng.integers(columns)), float(np.round(rng.normal(), 1)), left
                open_ += [(left, depth + 1), (right, depth + 1)]
            else:
                value[at] = float(np.float32(rng.normal()))
        depths.append(deepest)
    return Forest(*(np.array(part, kind) for part, kind in zip(
        (roots, depths, feature, limit, child, value), (np.int32, np.int32, np.int16, np.float32, np.int32, np.float32), strict=True
    )))  # fmt: skip


def twin_chance(row: NDArray[Any], f: Forest) -> float:
    total = np.float32(0)
    for root in f.roots:
        at = root
        while f.child[at] != at:
            at = f.child[at] + int(row[f.feature[at]] > f.threshold[at])
        total = np.float32(total + f.value[at])
    return round(65536 / (1 + math.exp(-float(total)))) / 65536


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(1, 12), st.integers(1, 40))
def test_trees_add_up_as_a_walk_from_root_to_leaf_does(seed: int, trees: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    f, table = forest(rng, trees, 5), np.round(rng.normal(size=(rows, 5)), 1).astype(np.float32)
    assert np.abs(chances(table, scorer(f)) - [twin_chance(row, f) for row in table]).max() <= 1 / 65536


def expected_f1(chance: NDArray[Any], words: NDArray[Any], cut: float) -> float:
    kept = chance >= cut
    return float(2 * (chance * words)[kept].sum() / (words[kept].sum() + (chance * words).sum()))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 64), st.integers(1, 50)), min_size=1, max_size=30).filter(
        lambda pairs: any(chance for chance, _ in pairs)
    )
)
def test_the_threshold_is_the_one_of_highest_expected_f1(pairs: list[tuple[int, int]]) -> None:
    chance, words = (np.array(part, np.float32) for part in zip(*pairs, strict=True))
    chance /= 64
    best = max(expected_f1(chance, words, cut) for cut in chance)
    assert expected_f1(chance, words, threshold(chance, words)) == pytest.approx(best, abs=1e-5)


CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"


@settings(deadline=None)
@given(st.text("abcXYZ äßкот漢字かな한글.,!?09_- ", max_size=60))
def test_words_are_counted_as_a_pattern_counts_them(text: str) -> None:
    raw, row = np.frombuffer(text.encode(), np.uint8), np.empty(W_COLUMNS, np.float32)
    measure(raw, 0, raw.size, LEXICON, NO_TITLE, row)
    assert row[W_WORDS] == len(re.findall(f"[{CJK}]|[^\\W{CJK}]+", text))
    assert row[W_ENDS] == len(re.findall(r"[.!?]", text))


@settings(deadline=None)
@given(st.text("abcXYZ äß漢字かな.,09 ", max_size=60))
def test_training_sees_the_word_slots_that_the_measure_weighs(text: str) -> None:
    raw, row, slots = np.frombuffer(text.encode(), np.uint8), np.empty(W_COLUMNS, np.float32), np.empty(200, np.int32)
    measure(raw, 0, raw.size, LEXICON, NO_TITLE, row)
    count = word_slots(raw, 0, raw.size, slots)
    weights = LEXICON[slots[:count]]
    assert row[9:12] == pytest.approx(
        [weights.sum(), min(weights, default=0, key=float) if (weights < 0).any() else 0, max(0, *weights) if count else 0],
        abs=1e-4,
    )


def test_features_are_finite_and_of_the_declared_width() -> None:
    page = b.read_page(
        b"<title>A title</title><body class='post'><h1>A title</h1>"
        + b"<p>Some words, and more.</p><ul><li><a href=x>y</a></ul>" * 9
    )
    counts, hashes = measure_all(page.text, page.blocks, LEXICON, title_set(np.frombuffer(page.title, np.uint8)))
    table = describe(page.blocks, page.nodes, page.classes, np.zeros(1 << 14, np.float32), counts, hashes)
    around = surround(np.full(len(table), 0.5, np.float32), page.blocks, page.nodes, counts)
    assert table.shape == (19, COLUMNS)
    assert np.isfinite(table).all()
    assert np.isfinite(around).all()


def test_tables_find_every_name_that_was_put_in() -> None:
    keys, values = TAG_TABLE
    for number, name in enumerate(TAGS):
        slot = fnv(name.encode()) & (keys.size - 1)
        while name and int(keys[slot]) != fnv(name.encode()):
            slot = (slot + 1) & (keys.size - 1)
        assert not name or values[slot] == number
    assert np.count_nonzero(ENTITY_TABLE[0]) > 2000
