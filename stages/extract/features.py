"""What the classifier sees of a block: its words, its elements, its neighbours, and the page as a whole."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.compiled import kernel, making
from stages.extract.blocks import (
    B_BREAKS,
    B_IMAGES,
    B_INLINE,
    B_LINKED,
    B_LINKS,
    B_NODE,
    B_PRE,
    B_STRONG,
    N_BLOCK0,
    N_BLOCK1,
    N_DEPTH,
    N_MASK,
    N_PARENT,
    N_PATH,
    N_PATH_MASK,
    N_TAG,
    N_TOKEN0,
    N_TOKEN1,
)  # fmt: skip
from stages.extract.tags import ID
from stages.extract.wording import (
    W_BYTES,
    W_CAPITALS,
    W_COMMAS,
    W_DIGITS,
    W_ENDS,
    W_FIRST,
    W_LAST,
    W_LEX,
    W_LEX_MAX,
    W_LEX_MIN,
    W_LONGEST,
    W_SYMBOLS,
    W_TITLE,
    W_WIDE,
    W_WORDS,
)  # fmt: skip

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]

_WATCHED = "li table nav header footer aside form main article figure blockquote button details section dl h1 a p noscript ol td ul"
WATCHED = tuple(name for name in _WATCHED.split() if name != "a")
"""Elements whose presence above a block is a feature of its own (counted, so that depth of lists shows)."""
_WATCH = np.full(max(ID.values()) + 1, -1, np.int32)
for _number, _name in enumerate(WATCHED):
    _WATCH[ID[_name]] = _number
_WATCHES = len(WATCHED)
_P, _H1, _H6, _LI, _TD, _ARTICLE = ID["p"], ID["h1"], ID["h6"], ID["li"], ID["td"], ID["article"]
CLASS_BITS = 14
"""Words of attributes are hashed into 16,384 weights."""
LEVELS = 5
"""Elements above a block that are described: the one that holds it and four more."""
BITS = 17
SUMS = 7
"""Prefix sums: words, bytes, linked bytes, sentence ends, words of paragraphs, lexicon weight, blocks with a sentence."""


@kernel
def _copy(source: Any, row: Any, at: int) -> int:
    """Write `source` into `row` from `at` on, in place; numba's own way of slices makes room for two that overlap."""
    for n in range(source.size):
        row[at + n] = source[n]
    return at + int(source.size)


@making
def _sums(blocks: Ints, counts: Floats) -> NDArray[np.float64]:
    sums = np.zeros((len(blocks) + 1, SUMS), np.float64)
    for i in range(len(blocks)):
        row = counts[i]
        _copy(sums[i], sums[i + 1], 0)
        sums[i + 1, 0] += row[W_WORDS]
        sums[i + 1, 1] += row[W_BYTES]
        sums[i + 1, 2] += blocks[i, B_LINKED]
        sums[i + 1, 3] += row[W_ENDS]
        sentence = row[W_ENDS] > 0 and blocks[i, B_LINKED] * 2 < row[W_BYTES] and row[W_WORDS] > 9
        sums[i + 1, 4] += row[W_WORDS] if sentence else 0
        sums[i + 1, 5] += row[W_LEX]
        sums[i + 1, 6] += sentence
    return sums


@making
def _paths(nodes: Ints, classes: NDArray[np.uint32], weights: Floats) -> tuple[Floats, Floats]:
    """For each element the counts of `WATCHED` above it (itself included), and its class weights: own, sum, min, max."""
    above, named = np.zeros((len(nodes), _WATCHES), np.float32), np.zeros((len(nodes), 4), np.float32)
    for n in range(1, len(nodes)):
        parent = nodes[n, N_PARENT]
        _copy(above[parent], above[n], 0)
        watch = _WATCH[nodes[n, N_TAG]]
        if watch >= 0:
            above[n, watch] += 1
        own = np.float32(0)
        for token in range(nodes[n, N_TOKEN0], nodes[n, N_TOKEN1]):
            own += weights[classes[token] & np.uint32((1 << CLASS_BITS) - 1)]
        own /= max(1, nodes[n, N_TOKEN1] - nodes[n, N_TOKEN0])
        named[n, 0], named[n, 1] = own, named[parent, 1] + own
        named[n, 2], named[n, 3] = min(named[parent, 2], own), max(named[parent, 3], own)
    return above, named


@making
def _groups(blocks: Ints, nodes: Ints, counts: Floats, level: int) -> Floats:
    """For each block: number, words and linked bytes share of the blocks whose element (`level` up) has the same path."""
    size = 1
    while size < 2 * len(blocks) + 2:
        size *= 2
    keys, sums, slots = np.full(size, -1, np.int64), np.zeros((size, 4), np.float32), np.empty(len(blocks), np.int32)
    for i in range(len(blocks)):
        node = blocks[i, B_NODE]
        for _ in range(level):
            node = nodes[node, N_PARENT]
        key = nodes[node, N_PATH]
        slot = (key * 2654435761 >> 7) & (size - 1)
        while keys[slot] >= 0 and keys[slot] != key:
            slot = (slot + 1) & (size - 1)
        keys[slot], slots[i] = key, slot
        sums[slot, 0] += 1
        sums[slot, 1] += counts[i, W_WORDS]
        sums[slot, 2] += blocks[i, B_LINKED]
        sums[slot, 3] += counts[i, W_BYTES]
    found = np.empty((len(blocks), 3), np.float32)
    for i in range(len(blocks)):
        row = sums[slots[i]]
        found[i, 0], found[i, 1], found[i, 2] = row[0], row[1] / row[0], row[2] / max(row[3], 1)
    return found


@making
def _repeats(hashes: Ints) -> Floats:
    """How often the text of each block stands on the page."""
    order = np.argsort(hashes)
    found = np.ones(len(hashes), np.float32)
    start = 0
    for at in range(1, len(order) + 1):
        if at == len(order) or hashes[order[at]] != hashes[order[start]]:
            for inside in range(start, at):
                found[order[inside]] = at - start
            start = at
    return found


@making
def _candidate(blocks: Ints, nodes: Ints, counts: Floats) -> Any:
    """The element with most words of sentences directly below it (grandchildren count half), after Readability's idea."""
    score = np.zeros(len(nodes), np.float32)
    for i in range(len(blocks)):
        if counts[i, W_ENDS] > 0 and counts[i, W_WORDS] > 9 and blocks[i, B_LINKED] * 2 < counts[i, W_BYTES]:
            node = blocks[i, B_NODE]
            parent = nodes[node, N_PARENT]
            score[parent] += counts[i, W_WORDS]
            score[nodes[parent, N_PARENT]] += counts[i, W_WORDS] / 2
    return np.argmax(score)


@making
def _page(blocks: Ints, nodes: Ints, counts: Floats, sums: NDArray[np.float64], best: int, page: Floats) -> None:
    """Features of the whole page, the same for all blocks."""
    total, n = sums[-1], max(1, len(blocks))
    words, held = max(total[0], 1), sums[nodes[best, N_BLOCK1]] - sums[nodes[best, N_BLOCK0]]
    page[0], page[1], page[2] = np.log1p(total[0]), np.log1p(len(blocks)), total[2] / max(total[1], 1)
    page[3], page[4], page[5] = total[3] / words, total[4] / words, total[5] / words
    page[6], page[7] = held[0] / words, held[4] / max(total[4], 1)
    page[8] = total[6] / n
    articles = listed = celled = longest = wide = 0.0
    for i in range(len(blocks)):
        tag = nodes[blocks[i, B_NODE], N_TAG]
        listed += counts[i, W_WORDS] if tag == _LI else 0
        celled += counts[i, W_WORDS] if tag == _TD else 0
        longest = max(longest, counts[i, W_WORDS])
        wide += counts[i, W_WIDE]
    for node in range(len(nodes)):
        articles += nodes[node, N_TAG] == _ARTICLE
    page[9], page[10], page[11], page[12] = listed / words, celled / words, np.log1p(longest), np.log1p(articles)
    page[13] = wide / words


PAGE = 14


@kernel
def _own(i: int, blocks: Ints, counts: Floats, repeats: Floats, row: Floats) -> int:
    """The block's own words."""
    block, c = blocks[i], counts[i]
    words, size = max(c[W_WORDS], 1), max(c[W_BYTES], 1)
    row[0], row[1], row[2], row[3] = c[W_WORDS], c[W_BYTES] / words, block[B_LINKED] / size, block[B_LINKS]
    row[4], row[5], row[6], row[7] = c[W_COMMAS] / words, c[W_ENDS], c[W_ENDS] / words, c[W_DIGITS] / size
    row[8], row[9], row[10], row[11] = c[W_CAPITALS] / words, c[W_SYMBOLS] / words, c[W_LAST], c[W_FIRST]
    row[12], row[13], row[14], row[15] = c[W_LEX] / words, c[W_LEX_MIN], c[W_LEX_MAX], c[W_LONGEST]
    row[16], row[17], row[18], row[19] = block[B_BREAKS], block[B_STRONG] / size, block[B_PRE], block[B_IMAGES]
    row[20], row[21], row[22] = c[W_TITLE] / words, c[W_WIDE] / words, repeats[i]
    return 23


@kernel
def _elements(node: int, nodes: Ints, above: Floats, named: Floats, sums: NDArray[np.float64], row: Floats, inline: int) -> int:
    """The elements that hold the block."""
    at = 0
    row[at], row[at + 1], row[at + 2], row[at + 3] = nodes[node, N_DEPTH], named[node, 1], named[node, 2], named[node, 3]
    at = _copy(above[node], row, 4)
    for bit in range(BITS):
        own, path, inner = nodes[node, N_MASK] >> bit & 1, nodes[node, N_PATH_MASK] >> bit & 1, inline >> bit & 1
        row[at + bit] = 3 * inner + own + path
    at += BITS
    for _ in range(LEVELS):
        first, last = nodes[node, N_BLOCK0], nodes[node, N_BLOCK1]
        held = sums[last, 0] - sums[first, 0]
        words = max(held, 1)
        row[at], row[at + 1] = nodes[node, N_TAG], held
        row[at + 2] = (sums[last, 2] - sums[first, 2]) / max(sums[last, 1] - sums[first, 1], 1)
        row[at + 3], row[at + 4], row[at + 5] = (sums[last, 4] - sums[first, 4]) / words, last - first, named[node, 0]
        row[at + 6], row[at + 7] = held / max(sums[-1, 0], 1), (sums[last, 5] - sums[first, 5]) / words
        at += 8
        node = nodes[node, N_PARENT]
    return at


@kernel
def _near(i: int, blocks: Ints, nodes: Ints, counts: Floats, row: Floats) -> int:
    """Two blocks before and two after."""
    at = 0
    for step in (-2, -1, 1, 2):
        j = i + step
        if 0 <= j < len(blocks):
            words = max(counts[j, W_WORDS], 1)
            row[at], row[at + 1] = counts[j, W_WORDS], blocks[j, B_LINKED] / max(counts[j, W_BYTES], 1)
            row[at + 2], row[at + 3] = nodes[blocks[j, B_NODE], N_TAG], counts[j, W_LEX] / words
            row[at + 4], row[at + 5] = counts[j, W_ENDS], blocks[j, B_NODE] == blocks[i, B_NODE]
        else:
            row[at : at + 6] = -1
        at += 6
    return at


@kernel
def _place(i: int, node: int, best: int, since: Ints, nodes: Ints, sums: NDArray[np.float64], row: Floats) -> int:
    """Where on the page the block stands."""
    n, total = len(sums) - 1, sums[-1]
    row[0], row[1] = i / n, sums[i, 0] / max(total[0], 1)
    row[2], row[3] = sums[i, 4] / max(total[4], 1), total[0] - sums[i, 0]
    row[4], row[5], row[6] = since[0], since[1], since[2]
    start, stop = nodes[best, N_BLOCK0], nodes[best, N_BLOCK1]
    row[7] = i - start if i < start else i - stop + 1 if i >= stop else 0
    row[8] = (i - start) / max(1, stop - start)
    top, up = best, 0
    while not nodes[top, N_BLOCK0] <= i < nodes[top, N_BLOCK1]:
        top, up = nodes[top, N_PARENT], up + 1
    row[9], row[10] = up, nodes[node, N_DEPTH] - nodes[top, N_DEPTH]
    for k, reach in enumerate((4, 12)):
        low, high = max(0, i - reach), min(n, i + reach + 1)
        words = sums[high, 0] - sums[low, 0]
        row[11 + 3 * k] = words / (high - low)
        row[12 + 3 * k] = (sums[high, 2] - sums[low, 2]) / max(sums[high, 1] - sums[low, 1], 1)
        row[13 + 3 * k] = (sums[high, 4] - sums[low, 4]) / max(words, 1)
    return 17


NEAR, PLACE, OWN, GROUPS = 24, 17, 23, 6
ELEMENTS = 4 + _WATCHES + BITS + 8 * LEVELS
COLUMNS = OWN + ELEMENTS + NEAR + PLACE + GROUPS + PAGE


@kernel
def _since(tag: int, since: Ints) -> None:
    """Blocks since the last heading, its level, and blocks since the first h1 (-1: before it)."""
    if _H1 <= tag <= _H6:
        since[0], since[1] = 0, tag - _H1 + 1
    else:
        since[0] += 1
    if since[2] >= 0:
        since[2] += 1
    elif tag == _H1:
        since[2] = 0


@making
def describe(blocks: Ints, nodes: Ints, classes: NDArray[np.uint32], weights: Floats, counts: Floats, hashes: Ints) -> Floats:
    """The feature matrix of a page (blocks x `COLUMNS`); `counts` and `hashes` come from `wording.measure_all`."""
    table = np.empty((len(blocks), COLUMNS), np.float32)
    sums = _sums(blocks, counts)
    above, named = _paths(nodes, classes, weights)
    groups, repeats = np.empty((2, len(blocks), 3), np.float32), _repeats(hashes)
    for level in range(2):
        groups[level] = _groups(blocks, nodes, counts, level)
    best, page = _candidate(blocks, nodes, counts), np.empty(PAGE, np.float32)
    _page(blocks, nodes, counts, sums, best, page)
    since = np.array([0, 0, -1], np.int32)
    for i in range(len(blocks)):
        node, row = blocks[i, B_NODE], table[i]
        _since(nodes[node, N_TAG], since)
        at = _own(i, blocks, counts, repeats, row)
        at += _elements(node, nodes, above, named, sums, row[at:], blocks[i, B_INLINE])
        at += _near(i, blocks, nodes, counts, row[at:])
        at += _place(i, node, best, since, nodes, sums, row[at:])
        at = _copy(groups[0, i], row, at)
        at = _copy(groups[1, i], row, at)
        _copy(page, row, at)
    return table
