"""The choice of blocks without learned weights: sentences outside of boilerplate elements, and what stands among them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.compiled import making
from stages.extract.blocks import B_LINKED, B_NODE, N_BLOCK0, N_BLOCK1, N_MASK, N_PARENT, N_TAG
from stages.extract.tags import ID, ROLES
from stages.extract.wording import W_BYTES, W_ENDS, W_WORDS

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]

_BOILERPLATE = ("hidden", "navigation", "edge", "side", "related", "share", "promotion", "consent")
_BAD = sum(1 << list(ROLES).index(name) for name in _BOILERPLATE)
_OUTSIDE = np.zeros(max(ID.values()) + 1, np.bool_)
_OUTSIDE[[ID[name] for name in ("nav", "footer", "aside", "form", "button", "menu", "dialog", "noscript")]] = True
LINKED = 0.5
"""Share of linked bytes above which a block is navigation (the usual value since Kohlschuetter et al., WSDM 2010)."""
MUCH = 0.4
"""Share of a page's unlinked words above which an element is not boilerplate."""
LONG, SHORT = 15, 1
"""Words of a block that stands by itself, and of one in the company of sentences."""


@making
def _outside(nodes: Ints, sums: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Boilerplate elements, and all below them. One that holds much of the page is none, whatever its class says."""
    found = np.zeros(len(nodes), np.bool_)
    for n in range(1, len(nodes)):
        held = sums[nodes[n, N_BLOCK1]] - sums[nodes[n, N_BLOCK0]]
        named = _OUTSIDE[nodes[n, N_TAG]] or (nodes[n, N_MASK] & _BAD) != 0
        found[n] = found[nodes[n, N_PARENT]] or (named and held < MUCH * sums[-1])
    return found


@making
def _plain(blocks: Ints, nodes: Ints, counts: Floats) -> NDArray[np.bool_]:
    """Blocks outside of boilerplate elements that are not mostly links."""
    sums = np.zeros(len(blocks) + 1, np.float64)
    for i in range(len(blocks)):
        linked = blocks[i, B_LINKED] > LINKED * counts[i, W_BYTES]
        sums[i + 1] = sums[i] + (0 if linked else counts[i, W_WORDS])
    outside, found = _outside(nodes, sums), np.zeros(len(blocks), np.bool_)
    for i in range(len(blocks)):
        found[i] = sums[i + 1] > sums[i] and not outside[blocks[i, B_NODE]]
    return found


@making
def _home(blocks: Ints, nodes: Ints, counts: Floats, plain: NDArray[np.bool_]) -> int:
    """The deepest element that holds three quarters of the words of all plain sentences."""
    sums = np.zeros(len(blocks) + 1, np.float64)
    for i in range(len(blocks)):
        good = plain[i] and counts[i, W_WORDS] >= LONG and counts[i, W_ENDS] > 0
        sums[i + 1] = sums[i] + (counts[i, W_WORDS] if good else 0)
    home = 0
    for n in range(len(nodes)):
        held = sums[nodes[n, N_BLOCK1]] - sums[nodes[n, N_BLOCK0]]
        if held >= 0.75 * sums[-1] and nodes[n, N_BLOCK1] - nodes[n, N_BLOCK0] <= nodes[home, N_BLOCK1] - nodes[home, N_BLOCK0]:
            home = n
    return home


@making
def keep(blocks: Ints, nodes: Ints, counts: Floats) -> NDArray[np.bool_]:
    """Which blocks are main text: plain ones inside the home of the page's sentences, and long sentences outside of it."""
    plain = _plain(blocks, nodes, counts)
    home = _home(blocks, nodes, counts, plain)
    found = np.zeros(len(blocks), np.bool_)
    for i in range(len(blocks)):
        inside = nodes[home, N_BLOCK0] <= i < nodes[home, N_BLOCK1]
        enough = counts[i, W_WORDS] >= (SHORT if inside else LONG)
        found[i] = plain[i] and enough and (inside or counts[i, W_ENDS] > 0)
    return found
