"""The kernel of the stop-word share. Imported only where it runs (see `stages.splitting`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from stages.compiled import kernel
from stages.splitting import SOLID


@kernel
def listed_words(tokens: Any, starts: Any, tables: Any, lists: Any, out: Any) -> None:
    """Fill out[row] with words that are more than symbols, and those in tables[lists[row]] by lower-cased hash (-1: none)."""
    mask, one = np.uint64(tables.shape[1] - 1), np.uint64(1)
    for r in range(starts.shape[0] - 1):
        words, listed, which = 0, 0, lists[r]
        for t in range(starts[r], starts[r + 1]):
            if (tokens[t, 1] >> np.uint64(32)) & np.uint64(SOLID) == 0:
                continue
            words += 1
            key = tokens[t, 3]
            at = key & mask
            while which >= 0 and tables[which, at] != 0:
                if tables[which, at] == key:
                    listed += 1
                    break
                at = (at + one) & mask
        out[r, 0], out[r, 1] = words, listed
