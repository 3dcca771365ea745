"""What the parts of the deduplication benchmark share: the data, band hashes and similarities of texts, CPU time."""

import gzip
import json
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / ".." / "shared" / "data" / "dev"
CACHE = ROOT / ".cache" / "bench"
BANDS, ROWS = 20, 13


def rows(path):
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def real_texts():
    return [row["text"] for row in rows(DATA / "quality.jsonl.gz")]


def best(repeats, call):
    """Smallest CPU time of several calls: other load only ever adds."""
    found = []
    for _ in range(repeats):
        begin = time.process_time()
        call()
        found.append(time.process_time() - begin)
    return min(found)


def frame(texts):
    import pyarrow as pa

    from stages.contract import TEXT

    return pa.table({"text": pa.array(texts, TEXT)})


def band_rows(texts, **params):
    import numpy as np

    from stages.analysis import Words, words
    from stages.dedup.minhash import signatures

    chosen = signatures.params(**{"bands": BANDS, "rows": ROWS, **params})
    made = signatures(words(frame(texts), Words()), chosen)
    return np.frombuffer(b"".join(made["bands"].to_pylist()), "<u8").reshape(-1, chosen.bands)


def jaccard(one, two, **kind):
    import numpy as np

    from stages.analysis import Words, words
    from stages.dedup.jaccard import shingle_sets
    from stages.dedup.minhash import Shingles

    sets = shingle_sets(words(frame([one, two]), Words()), Shingles(**kind))
    a, b = (np.frombuffer(s.as_py(), np.uint32) for s in sets)
    both = len(np.intersect1d(a, b))
    return both / (len(a) + len(b) - both)


def probability(similarity):
    return 1 - (1 - similarity**ROWS) ** BANDS
