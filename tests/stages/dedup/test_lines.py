import re
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.contract import TEXT
from stages.dedup.lines import repeats
from stages.dedup.spans import cut, gather


def frame(texts: list[str]) -> pa.Table:
    n = len(texts)
    return pa.table(
        {"id": [f"{i:032x}" for i in range(n)], "row": np.arange(n), "text": pa.array(texts, TEXT), "source": ["web"] * n}
    )


def exchanged(stage: Any, table: pa.Table, params: Any) -> pa.Table:
    emitted = stage.emit(table.select(list(stage.reads_of(params))), params).select(list(stage.emits_of(params)))
    emitted = emitted.take(np.lexsort((emitted["row"].to_numpy(), emitted["key"].to_numpy())))
    empty = pa.schema(list(stage.writes_of(params).items())).empty_table()
    return pa.concat_tables([empty, *stage.settle(iter([emitted]), params)])


def cleaned(texts: list[str], **params: Any) -> list[str]:
    table = frame(texts)
    spans = exchanged(gather, exchanged(repeats, table, repeats.params(**params)), gather.params())
    place = {row: i for i, row in enumerate(spans["row"].to_pylist())}
    take = pa.array([place.get(row) for row in range(len(texts))], pa.int64())
    return cut(table.append_column("spans", spans["spans"].combine_chunks().take(take)), cut.params())["text"].to_pylist()


def plain(texts: list[str], least: int, documents: int, keep: str) -> list[str]:
    """Lines in Python: a piece takes in the line feeds behind it."""
    found: dict[str, list[tuple[int, int, int]]] = {}
    cut_up = []
    for row, text in enumerate(texts):
        lines = re.findall(r"[^\n]*\n+|[^\n]+\Z", text)
        cut_up.append(lines)
        for n, line in enumerate(lines):
            if len(line.strip(" \t\r\n").encode()) >= least:
                found.setdefault(line.strip(" \t\r\n"), []).append((xxhash.xxh3_64_intdigest(f"{row:032x}") >> 8, row, n))
    gone = set()
    for copies in found.values():
        if len({row for _, row, _ in copies}) >= documents:
            gone |= {(row, n) for _, row, n in sorted(copies)[1 if keep == "first" else 0 :]}
    return ["".join(line for n, line in enumerate(lines) if (row, n) not in gone) for row, lines in enumerate(cut_up)]


LINES = st.lists(
    st.sampled_from(["a", "share this", " share this ", "é menu", "", "home | about\t", "long enough line"]), max_size=6
)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(LINES.map("\n".join), min_size=1, max_size=5), st.integers(1, 8), st.integers(2, 3), st.sampled_from(["first", "none"])
)
def test_repeated_lines_go_as_a_plain_twin_says(texts: list[str], least: int, documents: int, keep: str) -> None:
    made = cleaned(texts, min_bytes=least, min_documents=documents, keep=keep)
    assert made == plain(texts, least, documents, keep)


def test_a_second_run_on_the_result_changes_nothing() -> None:
    texts = ["Menu\nAbout us and them\nOne story of its own\n", "Menu\nAbout us and them\nAnother story, quite new\n"] * 2
    once = cleaned(texts, min_bytes=5)
    assert once != texts
    assert cleaned(once, min_bytes=5) == once


def test_folding_takes_numbered_and_differently_marked_lines_for_one() -> None:
    texts = ["Page 12 of 40\nfirst text here\n", "page 13 of 41!\nsecond text here\n"]
    assert cleaned(texts, min_bytes=5, keep="none") == texts
    assert cleaned(texts, min_bytes=5, keep="none", normalize="folded") == ["first text here\n", "second text here\n"]


def test_paragraphs_are_cut_at_blank_lines() -> None:
    shared = "Subscribe to our letter\nand never miss a thing"
    texts = [f"{shared}\n\nOwn words.\nAnd more.", f"Other words.\n\n{shared}"]
    made = cleaned(texts, unit="paragraphs", keep="none")
    assert made == ["Own words.\nAnd more.", "Other words.\n\n"]
    assert cleaned(texts, unit="lines", min_bytes=200, keep="none") == texts
