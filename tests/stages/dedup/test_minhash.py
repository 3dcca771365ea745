import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages import characters
from stages.analysis import Words, words
from stages.contract import TEXT
from stages.dedup import shingles as sh
from stages.dedup.minhash import clusters, index, pairs, signatures, twins

MASK = (1 << 64) - 1
BASE, MIX, BAND = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 0xC2B2AE3D27D4EB4F


def mixed(value: int) -> int:
    for _ in range(2):
        value = (value ^ value >> 32) * MIX & MASK
    return value ^ value >> 32


def plain_shingles(units: list[int], size: int) -> list[int]:
    """Shingle hashes without rolling: a polynomial over the units, mixed, its upper half."""
    found = []
    for start in range(max(len(units) - size + 1, 1 if units else 0)):
        value = 0
        for unit in units[start : start + size]:
            value = (value * BASE + unit) & MASK
        found.append(mixed(value) >> 32)
    return found


def plain_bands(hashes: list[int], bands: int, rows: int, seed: int) -> bytes | None:
    if not hashes:
        return None
    masks, factors = (a.tolist() for a in sh.permutations(bands * rows, seed))
    minima = [min((h ^ m) * f & 0xFFFFFFFF for h in hashes) for m, f in zip(masks, factors, strict=True)]
    out = b""
    for band in range(bands):
        value = (band + 1) * BAND & MASK
        for minimum in minima[band * rows : (band + 1) * rows]:
            value = (value ^ minimum) * MIX & MASK
            value ^= value >> 29
        out += mixed(value).to_bytes(8, "little")
    return out


def folded(text: str) -> str:
    classes, lower = characters.tables()
    kept = "".join(
        chr(int(lower[c])) if c < len(lower) and classes[c] & (characters.ALNUM | characters.COMBINING) else "\0"
        for c in map(ord, text)
    )
    return " ".join(part for part in kept.split("\0") if part)


def frame(texts: list[str | None], ids: list[str] | None = None, frame_number: int = 0, **columns: Any) -> pa.Table:
    n = len(texts)
    rows = np.arange(n) + (frame_number << 56)
    ids = ids or [f"{i:032x}" for i in range(n)]
    return pa.table({"id": ids, "row": rows, "text": pa.array(texts, TEXT), "source": pa.array(["web"] * n), **columns})


def signed(table: pa.Table, **params: Any) -> pa.Table:
    made = signatures(words(table, Words()), signatures.params(**params))
    for name in ("bands", "survivor"):
        table = table.append_column(name, made[name])
    return table


def exchanged(stage: Any, tables: list[pa.Table], params: Any, parts: int = 1) -> pa.Table:
    """What settle gives, with the exchange played by a sort and cut into `parts` ranges of the key."""
    emitted = pa.concat_tables(
        stage.emit(t.select([n for n in t.column_names if n in stage.reads_of(params) or n == "id"]), params) for t in tables
    ).select(list(stage.emits_of(params)))
    assert {f.name: f.type for f in emitted.schema} == stage.emits_of(params)
    emitted = emitted.take(np.lexsort((emitted["row"].to_numpy(), emitted["key"].to_numpy())))
    places = (emitted["key"].to_numpy() >> np.uint64(32)) * np.uint64(parts) >> np.uint64(32)
    empty = pa.schema(list(stage.writes_of(params).items())).empty_table()
    out = [t for part in range(parts) for t in stage.settle(iter([emitted.filter(pa.array(places == part))]), params)]
    assert all({f.name: f.type for f in t.schema} == stage.writes_of(params) for t in out)
    return pa.concat_tables([empty, *out])


def clustered(tables: list[pa.Table], parts: int = 3) -> list[pa.Table]:
    """The documents of the first table with the columns that `clusters` writes."""
    edges = exchanged(pairs, tables, pairs.params(partitions=parts), parts)
    found = exchanged(clusters, [edges], clusters.params())
    place = {row: i for i, row in enumerate(found["row"].to_pylist())}
    assert len(place) == found.num_rows
    documents = tables[0]
    take = pa.array([place.get(row) for row in documents["row"].to_pylist()], pa.int64())
    for name in ("cluster", "cluster_size", "index_twin"):
        documents = documents.append_column(name, found[name].take(take))
    return [documents]


def dropped(tables: list[pa.Table], **params: Any) -> dict[str, str]:
    """id of each dropped document and of its survivor."""
    (documents,) = clustered(tables)
    out = exchanged(twins, [words(documents, Words())], twins.params(**params), 2)
    assert set(out["drop_reason"].to_pylist()) <= {"near_duplicate"}
    ids = dict(zip(documents["row"].to_pylist(), documents["id"].to_pylist(), strict=True))
    assert len(set(out["row"].to_pylist())) == out.num_rows
    return {ids[row]: twin for row, twin in zip(out["row"].to_pylist(), out["twin"].to_pylist(), strict=True)}


WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in ("n", "r", "sk", "lt", "m")]


def prose(rng: random.Random, count: int) -> list[str]:
    return [rng.choice(WORDS) for _ in range(count)]


TEXTS = st.text(st.sampled_from("aAbßéÉ 日𝒜İ-_9\n\u0301"), max_size=40)


@settings(deadline=None, max_examples=60)
@given(st.lists(TEXTS, max_size=4), st.integers(1, 9), st.sampled_from(["none", "folded"]))
def test_character_bands_equal_those_of_a_plain_twin(texts: list[str], size: int, normalize: str) -> None:
    made = signed(frame(list(texts)), size=size, normalize=normalize, bands=3, rows=2, seed=7)["bands"].to_pylist()
    cut = texts if normalize == "none" else [folded(t) for t in texts]
    expected = [plain_bands(plain_shingles([ord(c) + 1 for c in t], size), 3, 2, 7) for t in cut]
    assert made == expected


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.lists(st.sampled_from(["on", "ON", "the", "...", "x9", "日本", "-"]), max_size=12), max_size=4), st.integers(1, 5)
)
def test_word_bands_equal_those_of_a_plain_twin(texts: list[list[str]], size: int) -> None:
    table = frame([" ".join(t) for t in texts])
    made = signed(table, unit="words", size=size, bands=4, rows=3)["bands"].to_pylist()
    hashed = np.frombuffer(b"".join(words(table, Words())["analysis"].to_pylist()), np.uint64).reshape(-1, 4)
    lengths = [len(a) // 32 for a in words(table, Words())["analysis"].to_pylist()]
    expected, at = [], 0
    for length in lengths:
        rows = hashed[at : at + length]
        at += length
        units = [int(row[3]) for row in rows if int(row[1]) >> 32 & 2]
        expected.append(plain_bands(plain_shingles(units, size), 4, 3, 42))
    assert made == expected


def test_a_long_text_is_read_in_blocks_with_the_same_result() -> None:
    rng = random.Random(5)
    text = " ".join(prose(rng, 2000)) + " — ünd ß " + " ".join(prose(rng, 500))
    for normalize in ("none", "folded"):
        (made,) = signed(frame([text]), size=24, normalize=normalize, bands=2, rows=2)["bands"].to_pylist()
        cut = text if normalize == "none" else folded(text)
        assert made == plain_bands(plain_shingles([ord(c) + 1 for c in cut], 24), 2, 2, 42)


def test_texts_without_units_take_no_part_and_short_ones_are_one_shingle() -> None:
    table = signed(frame(["", None, "short", "short", "other", " \n"]), normalize="folded")
    assert [b is None for b in table["bands"].to_pylist()] == [True, True, False, False, False, True]
    assert dropped([table]) == {f"{3:032x}": f"{2:032x}"}


def test_detection_follows_the_theoretical_curve() -> None:
    """Pairs of known Jaccard similarity under 10 bands of 4 rows: 400 pairs a point, so three sigma is at most 0.075."""
    rng = random.Random(11)
    for share in (0.3, 0.5, 0.6, 0.7, 0.8, 0.95):
        texts, expected = [], []
        for _ in range(400):
            # Single characters of a large alphabet as shingles: the sets are exactly what we draw.
            pool = rng.sample(range(0x4E00, 0x9000), 300)
            both = round(2 * 150 * share / (1 + share))
            one, two = pool[:150], pool[150 - both : 300 - both]
            texts += ["".join(map(chr, one)), "".join(map(chr, two))]
            jaccard = both / (300 - both)
            expected.append(1 - (1 - jaccard**4) ** 10)
        matrix = np.frombuffer(b"".join(signed(frame(texts), size=1, bands=10, rows=4)["bands"].to_pylist()), "<u8").reshape(
            -1, 2, 10
        )
        seen = float((matrix[:, 0] == matrix[:, 1]).any(axis=1).mean())
        assert abs(seen - float(np.mean(expected))) < 0.075, (share, seen, np.mean(expected))


def edited(rng: random.Random, text: list[str], rate: float) -> list[str]:
    return [rng.choice(WORDS) if rng.random() < rate else w for w in text]


def corpus(seed: int, families: int = 60) -> list[str]:
    rng = random.Random(seed)
    texts: list[str] = []
    for number in range(families):
        original = prose(rng, 200)
        texts.append(" ".join(original))
        texts += [" ".join(edited(rng, original, 0.004)) for _ in range(number % 4)]
    return texts


def test_planted_near_duplicates_are_found_and_nothing_else() -> None:
    texts = corpus(3)
    families, sizes = [], [1 + n % 4 for n in range(60)]
    for number, size in enumerate(sizes):
        families += [number] * size
    found = dropped([signed(frame(list(texts)))])
    assert all(families[int(lost, 16)] == families[int(kept, 16)] for lost, kept in found.items())
    assert len(found) >= 0.97 * (len(texts) - 60)


def test_survivors_do_not_depend_on_order_shards_or_partitions() -> None:
    texts = corpus(4, 30)
    ids = [f"{(i * 2654435761) % 2**32:032x}" for i in range(len(texts))]
    score = np.arange(len(texts)) % 7 / 2
    table = frame(list(texts), ids, quality=score)
    expected = dropped([signed(table)], keep=["highest", "longest"], by="quality")
    assert len(expected) > 30
    order = list(range(len(texts)))
    for seed in range(3):
        random.Random(seed).shuffle(order)
        shuffled = table.take(order).set_column(1, "row", pa.array(np.arange(len(order)) + (seed << 32)))
        assert dropped([signed(shuffled)], keep=["highest", "longest"], by="quality") == expected


def test_the_survivor_is_the_declared_one() -> None:
    rng = random.Random(1)
    base = prose(rng, 300)
    texts = [" ".join(base), " ".join([*base, "tail"]), " ".join(base), " ".join(base[:-1])]
    table = signed(frame(list(texts), quality=[0.5, 0.5, 0.9, 0.9]))
    table = table.set_column(table.column_names.index("source"), "source", pa.array(["web", "web", "web", "wiki"]))

    def survivor(**params: Any) -> int:
        (kept,) = set(dropped([table], **params).values())
        return int(kept, 16)

    assert survivor() == 0
    assert survivor(keep="longest") == 1
    assert survivor(keep="highest", by="quality") == 2
    assert survivor(prefer=("wiki",)) == 3
    with pytest.raises(ValueError, match="belong together"):
        twins.params(keep=["longest", "highest"])


def test_a_bucket_of_many_equal_documents_gives_a_star() -> None:
    count = 200_000
    bands = pa.array([b"01234567abcdefgh"] * count, pa.binary())
    table = pa.table(
        {"id": pa.nulls(count, pa.string()), "row": np.arange(count), "bands": bands, "survivor": pa.nulls(count, pa.string())}
    )
    edges = exchanged(pairs, [table], pairs.params(), 1)
    assert edges.num_rows == 2 * (count - 1), "one star a band"
    assert set(edges["other"].to_pylist()) == {0}


def test_a_chain_of_pairs_is_one_cluster() -> None:
    rows = np.arange(1, 5000)
    edges = pa.table({"row": rows, "other": rows - 1, "survivor": pa.nulls(len(rows), pa.string())})
    found = exchanged(clusters, [edges], clusters.params())
    assert found["row"].to_pylist() == list(range(5000))
    assert set(found["cluster"].to_pylist()) == {0}
    assert set(found["cluster_size"].to_pylist()) == {5000}


def test_verification_splits_clusters_that_hold_by_chance_or_by_chain() -> None:
    rng = random.Random(2)
    one = prose(rng, 400)
    half = [*one[:200], *prose(rng, 200)]
    texts = [" ".join(one), " ".join(half), " ".join(one[:-1]), " ".join([*half, "end"])]
    loose: dict[str, Any] = {"bands": 120, "rows": 1}
    table = signed(frame(list(texts)), **loose)
    assert len(set(dropped([table]).values())) == 1
    split = dropped([table], min_jaccard=0.8)
    assert split == {f"{2:032x}": f"{0:032x}", f"{3:032x}": f"{1:032x}"}
    by_words = signed(frame(list(texts)), unit="words", size=3, **loose)
    assert dropped([by_words], min_jaccard=0.8, shingles={"unit": "words", "size": 3}) == split
    assert dropped([table], min_jaccard=0.8, keep="longest") == {f"{2:032x}": f"{0:032x}", f"{1:032x}": f"{3:032x}"}


def test_a_new_crawl_against_the_index_equals_from_scratch_with_old_survivors_pinned() -> None:
    texts = corpus(9, 40)
    rng = random.Random(0)
    order = list(range(len(texts)))
    rng.shuffle(order)
    cut = len(order) // 2
    old = signed(frame([texts[i] for i in order[:cut]], [f"{i:032x}" for i in order[:cut]]))
    fresh = signed(frame([texts[i] for i in order[cut:]], [f"{i:032x}" for i in order[cut:]], 0))
    (documents,) = clustered([old])
    verdicts_old = dropped([old])
    made = exchanged(index, [documents], index.params(), 2)
    assert dict(zip(made["id"].to_pylist(), made["survivor"].to_pylist(), strict=True)) == {
        i: verdicts_old.get(i, i) for i in old["id"].to_pylist()
    }
    beside = made.append_column("row", pa.array(np.arange(made.num_rows) + (1 << 56)))
    incremental = dropped([fresh, beside.select(fresh.select(["id", "row", "bands", "survivor"]).column_names)])
    # From scratch: all in one frame; a new document falls if its component holds an old one or a better new one.
    together = signed(frame([texts[i] for i in order], [f"{i:032x}" for i in order]))
    (all_documents,) = clustered([together])
    members: dict[int, list[str]] = {}
    for label, name in zip(all_documents["cluster"].to_pylist(), all_documents["id"].to_pylist(), strict=True):
        if label is not None:
            members.setdefault(label, []).append(name)
    known = set(old["id"].to_pylist())
    expected: dict[str, set[str]] = {}
    for names in members.values():
        pinned = {verdicts_old.get(n, n) for n in names if n in known}
        for name in (n for n in names if n not in known):
            if pinned or name != min(n for n in names if n not in known):
                expected[name] = pinned or {min(n for n in names if n not in known)}
    assert set(incremental) == set(expected)
    assert all(twin in expected[name] for name, twin in incremental.items())


def test_signatures_of_other_parameters_are_refused() -> None:
    table = pa.concat_tables([signed(frame(["a b c d"])), signed(frame(["a b c d"]), bands=5)])
    with pytest.raises(ValueError, match="different parameters"):
        pairs.emit(table, pairs.params())
