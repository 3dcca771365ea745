"""Web pages with a known main text: loading, word F1, and labels for the blocks of a page."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numba import njit
from numpy.typing import NDArray

JUDGED = ("human_full_text", "reference_full_text", "llm_draft_human_reviewed")
"""Kinds of gold text that a person wrote or went over; tools' expected outputs and snippets are not judged by."""

LICENSED = ("MIT", "Apache-2.0", "CC-BY-4.0", "MIT/Apache-2.0")
"""Licences of annotations that allow weights trained on them to be given away under Apache-2.0.

GPL-3.0 is left out because nobody has settled whether weights are a derived work; "none stated" and NC are left out as such.
"""

_WIDE = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_TOKEN = re.compile(f"[{_WIDE}]|[^\\W{_WIDE}]+")


@dataclass(frozen=True, slots=True)
class Gold:
    """One page: its bytes, its encoding, its main text, and where both come from."""

    id: str
    site: str
    source: str
    kind: str
    page_type: str
    language: str
    license: str
    html: bytes
    text: str

    @property
    def licensed(self) -> bool:
        """Whether the annotation may be trained on (`LICENSED`)."""
        return self.license.split(" (")[0].split(";")[0].strip() in LICENSED


def pages(data: Path, kinds: tuple[str, ...] = JUDGED, every: int = 1) -> Iterator[Gold]:
    """Pages of `data`/webpages, turned into UTF-8 by the encoding that the gold names; every n-th when asked."""
    root = data / "webpages"
    with gzip.open(root / "gold.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if row["gold_kind"] in kinds]
    for row in rows[::every]:
        html = gzip.decompress((root / row["html_path"]).read_bytes())
        html = html.decode(row["encoding"] or "utf-8", "replace").encode()
        yield Gold(
            row["id"], row["site"] or row["source"], row["source"], row["gold_kind"], row["page_type"] or row["source"],
            row["language"] or "", row["license"], html, row["text"] or "",
        )  # fmt: skip


def words(text: str) -> list[str]:
    """Lower-cased words; a Chinese, Japanese or Korean character is a word."""
    return _TOKEN.findall(text.lower())


def score(found: Counter[str], gold: Counter[str]) -> tuple[float, float, float]:
    """F1, precision and recall of words as multisets."""
    common = sum((found & gold).values())
    if not common:
        return 0.0, 0.0, 0.0
    precision, recall = common / sum(found.values()), common / sum(gold.values())
    return 2 * precision * recall / (precision + recall), precision, recall


FOLDS = 5


def fold(site: str) -> int:
    """The fold of a registered domain: a hash, so that any part of the pages and any later page falls the same way."""
    return hashlib.blake2b(site.encode(), digest_size=8).digest()[0] % FOLDS


@njit(cache=True)  # type: ignore[untyped-decorator]
def _align(page: NDArray[np.int32], gold: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which words of `page` stand in a best alignment with `gold`; a match that continues a run counts one and a half."""
    n, m = page.size, gold.size
    moves = np.zeros((n + 1, m + 1), np.uint8)
    best, run = np.zeros((2, m + 1), np.float32), np.full((2, m + 1), -1e9, np.float32)
    for i in range(1, n + 1):
        now, old = i & 1, (i - 1) & 1
        best[now, 0] = 0
        for j in range(1, m + 1):
            value, move = best[old, j], 1
            if best[now, j - 1] > value:
                value, move = best[now, j - 1], 2
            run[now, j] = -1e9
            if page[i - 1] == gold[j - 1]:
                fresh, on = best[old, j - 1] + 1, run[old, j - 1] + 1.5
                run[now, j] = max(fresh, on)
                move |= 8 if on > fresh else 0
                if run[now, j] >= value:
                    value, move = run[now, j], (move & 8) | 4
            best[now, j] = value
            moves[i, j] = move
    traced: NDArray[np.bool_] = _trace(page, gold, moves)
    return traced


@njit(cache=True)  # type: ignore[untyped-decorator]
def _trace(page: NDArray[np.int32], gold: NDArray[np.int32], moves: NDArray[np.uint8]) -> NDArray[np.bool_]:
    matched = np.zeros(page.size, np.bool_)
    i, j, forced = page.size, gold.size, False
    while i > 0 and j > 0:
        move = moves[i, j]
        if forced or move & 4:
            matched[i - 1] = True
            forced = (move & 8) != 0
            i, j = i - 1, j - 1
        elif move & 3 == 1:
            i -= 1
        else:
            j -= 1
    return matched


def label(blocks: list[str], gold: str, cells: int = 300_000_000) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """The share of each block's words that stand in the gold text in order, and its number of words.

    Pages whose alignment table would exceed `cells` bytes are matched by runs of four words instead.
    """
    numbers: dict[str, int] = {}
    lists = [words(block) for block in blocks]
    flat = np.array([numbers.setdefault(word, len(numbers)) for block in lists for word in block], np.int32)
    aim = np.array([numbers.setdefault(word, len(numbers)) for word in words(gold)], np.int32)
    if flat.size * aim.size <= cells:
        matched = _align(flat, aim)
    else:
        runs = {tuple(aim[i : i + 4]) for i in range(aim.size - 3)}
        matched = np.zeros(flat.size, np.bool_)
        for i in range(flat.size - 3):
            if tuple(flat[i : i + 4]) in runs:
                matched[i : i + 4] = True
    sizes = np.array([len(block) for block in lists], np.int32)
    ends = np.cumsum(sizes)
    sums = np.concatenate([[0], np.cumsum(matched)])
    return ((sums[ends] - sums[ends - sizes]) / np.maximum(sizes, 1)).astype(np.float32), sizes
