"""Phrase lists as arrays for the kernels: compared without ASCII case, found by their first two bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Phrases(NamedTuple):
    """`heads[first, second]` tells where a phrase may begin; phrase p is data[ends[p]:ends[p + 1]] and sets groups[p]."""

    heads: NDArray[np.bool_]
    data: NDArray[np.uint8]
    ends: NDArray[np.int64]
    groups: NDArray[np.int64]


def compiled(groups: Mapping[int, Sequence[str]]) -> Phrases:
    """Arrays for phrases by the bits that they set. A phrase shorter than two bytes is refused: it would match anything."""
    heads = np.zeros((256, 256), np.bool_)
    found: list[tuple[bytes, int]] = [(phrase.lower().encode(), bits) for bits, listed in groups.items() for phrase in listed]
    for phrase, _ in found:
        if len(phrase) < 2:
            raise ValueError(f"phrase {phrase.decode()!r} is too short: at least two characters")
        for first, second in product(*({byte, *chr(byte).upper().encode("latin-1", "ignore")[:1]} for byte in phrase[:2])):
            heads[first, second] = True
    ends = np.cumsum([0] + [len(phrase) for phrase, _ in found])
    data: NDArray[Any] = np.array(list(b"".join(phrase for phrase, _ in found)), np.uint8)
    return Phrases(heads, data, ends, np.array([bits for _, bits in found], np.int64))
