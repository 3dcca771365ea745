"""Near duplicates: signatures against datatrove and rensa, the band join, a whole job at three sizes, and accuracy.

    .venv/bin/python benchmarks/dedup.py [--quick] [--sizes 10000,100000,1000000]

The peers (datatrove 0.10.1 with spaCy, rensa 0.5.0) get an environment of their own under .cache/bench and run this same
file in a subprocess on the same documents. Rates are documents by process CPU time of one core; the whole job is wall time
of `gristmill run dedup` with two workers and the peak of the memory that it and its workers share and own (summed PSS).
The report goes between its markers in benchmarks/RESULTS.md; the last line printed is JSON.
"""

import argparse
import json
import platform
import random
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.results import machine, write_section
from benchmarks.signing import BANDS, CACHE, ROWS, band_rows, best, frame, jaccard, probability, real_texts

PEER = CACHE / "peer-dedup-1"
PINS = ["datatrove[io]==0.10.1", "spacy==3.8.18", "nltk==3.10.4", "xxhash<4", "rensa==0.5.0", "tokenizers==0.22.1"]


# -- signatures -------------------------------------------------------------------------------------------------------


def peer_python():
    python = PEER / "bin" / "python"
    if not (PEER / "ready").exists():
        print("making the peers' environment ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", PEER], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PINS], check=True)
        (PEER / "ready").touch()
    return python


def peer_main(source, target):
    """In the peers' environment: their signatures of the documents, timed, and datatrove's pairs."""
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
    from datatrove.utils.hashing import HashConfig
    from rensa import RMinHash

    job = json.loads(Path(source).read_text())
    texts, twins = job["texts"], job["twins"]
    config = MinhashConfig(n_grams=5, num_buckets=BANDS, hashes_per_bucket=ROWS, hash_config=HashConfig(precision=64))
    block = MinhashDedupSignature(str(Path(target).parent / "signatures"), config)
    block.get_signature(block.get_shingles("warm up " * 40))
    found = {}

    def datatrove():
        for text in texts[: job["slow"]]:
            block.get_signature(block.get_shingles(text))

    def shingles(text):
        words = text.lower().split()
        return [" ".join(words[i : i + 5]) for i in range(max(len(words) - 4, 1))]

    def rensa():
        for text in texts:
            mine = RMinHash(num_perm=BANDS * ROWS, seed=42)
            mine.update(shingles(text))
            mine.digest()

    cut = [shingles(text) for text in texts]

    def rensa_hashing():
        RMinHash.digest_matrix_from_token_sets(cut, BANDS * ROWS, 42)

    found["datatrove"] = best(2, datatrove) / job["slow"]
    found["rensa"] = best(2, rensa) / len(texts)
    found["rensa_hashing"] = best(2, rensa_hashing) / len(texts)
    pairs = []
    for one, two in twins:
        a, b = (block.get_signature(block.get_shingles(t)) for t in (one, two))
        pairs.append(any(x == y for x, y in zip(a, b, strict=True)))
    found["pairs"] = pairs
    Path(target).write_text(json.dumps(found))


def ask_peers(texts, twins, slow):
    folder = CACHE / "dedup-peer"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(json.dumps({"texts": texts, "twins": twins, "slow": slow}))
    command = [peer_python(), __file__, "--peer", folder / "job.json", folder / "found.json"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return json.loads((folder / "found.json").read_text())


def own_signatures(texts, repeats, **params):
    """Seconds a document, in batches of the engine's size, analysis included."""
    from stages.analysis import Words, words
    from stages.dedup.minhash import signatures

    chosen = signatures.params(bands=BANDS, rows=ROWS, **params)
    batches = [frame(texts[i : i + 2048]) for i in range(0, len(texts), 2048)]

    def sign():
        for batch in batches:
            signatures(words(batch, Words()) if chosen.unit == "words" else batch, chosen)

    sign()
    return best(repeats, sign) / len(texts)


# -- planted pairs ------------------------------------------------------------------------------------------------------


def planted(texts, similarity, count, seed):
    """Pairs of real texts of which the second keeps the share 2J/(1+J) of the first and continues with another text."""
    rng = random.Random(seed)
    long = [t for t in texts if len(t) > 4000]
    found = []
    for _ in range(count):
        one, other = rng.sample(long, 2)
        start, kept = rng.randrange(len(one) - 3999), round(3000 * 2 * similarity / (1 + similarity))
        first = one[start : start + 3000]
        found.append((first, first[:kept] + other[: 3000 - kept]))
    return found


def curve(texts, count):
    """Share of planted pairs that share a band against the theory, for similarities from 0.5 to 1."""
    found = []
    for step in range(50, 101, 5):
        pairs = planted(texts, step / 100, count, step)
        true = [jaccard(*pair) for pair in pairs]
        matrix = band_rows([t for pair in pairs for t in pair]).reshape(-1, 2, BANDS)
        hit = (matrix[:, 0] == matrix[:, 1]).any(axis=1)
        found += list(zip(true, hit.tolist(), strict=True))
    return found


def giants(size):
    """Seconds for one document of `size` bytes and the growth of this process beyond the document itself."""
    import psutil

    from stages.dedup.minhash import signatures

    batch = frame(["The quick brown fox jumps over the lazy dog. " * (size // 45)])
    before = psutil.Process().memory_info().rss
    begin = time.process_time()
    signatures(batch, signatures.params())
    return time.process_time() - begin, psutil.Process().memory_info().rss - before


def identical(count):
    """Seconds to join a million equal documents: one bucket a band."""
    import numpy as np
    import pyarrow as pa

    from stages.dedup.minhash import pairs

    none = pa.nulls(count, pa.string())
    bands = pa.array([bytes(range(8 * BANDS))] * count, pa.binary())
    table = pa.table({"bands": bands, "survivor": none, "row": np.arange(count)})
    begin, edges = time.process_time(), 0
    emitted = pairs.emit(table, pairs.params())
    keys = emitted["key"].to_numpy()
    for key in np.unique(keys[:BANDS]):
        part = emitted.filter(pa.array(keys == key))
        edges += sum(out.num_rows for out in pairs.settle(iter([part]), pairs.params()))
    return time.process_time() - begin, edges


# -- report --------------------------------------------------------------------------------------------------------------


def report(lines, quick):
    head = f"`.venv/bin/python benchmarks/dedup.py{' --quick' if quick else ''}`, {machine()}, Python {platform.python_version()}."
    write_section("dedup", "\n".join(["## Deduplication", "", head, "", "| what | measured | remarks |", "|---|---|---|", *lines]))


def agreement(pairs, theirs):
    """Pairs that only one of the two finds, and how many the two hash families should differ in by chance."""
    matrix = band_rows([t for pair in pairs for t in pair], unit="words", size=5).reshape(-1, 2, BANDS)
    ours = (matrix[:, 0] == matrix[:, 1]).any(axis=1).tolist()
    chance = [probability(jaccard(*pair, unit="words", size=5)) for pair in pairs]
    expected = sum(2 * p * (1 - p) for p in chance)
    return sum(a != b for a, b in zip(ours, theirs, strict=True)), expected, sum(ours), sum(theirs), sum(chance)


def accuracy(texts, count, lines):
    points = curve(texts, count)
    bins = {}
    for true, hit in points:
        bins.setdefault(round(true * 20) / 20, []).append((probability(true), hit))
    shown = ", ".join(
        f"{k:.2f}: {statistics.mean(h for _, h in v):.3f} ({statistics.mean(p for p, _ in v):.3f})" for k, v in sorted(bins.items())
    )
    worst = max(
        abs(statistics.mean(h for _, h in v) - statistics.mean(p for p, _ in v)) for v in bins.values() if len(v) >= count // 2
    )
    lines.append(
        f"| pairs found by true Jaccard similarity (theory) | {shown} | {len(points)} planted pairs; largest gap {worst:.3f} |"
    )
    return statistics.mean(hit for true, hit in points if true >= 0.8)


def speeds(sample, twins, quick, lines):
    peers = ask_peers(sample, twins, 120 if quick else 600)
    words, chars = own_signatures(sample, 3, unit="words", size=5), own_signatures(sample, 3)
    mean = statistics.mean(len(t.encode()) for t in sample)
    keys = {"signatures_vs_datatrove": peers["datatrove"] / words, "signatures_vs_rensa": peers["rensa"] / words}
    kind, each = "5 words, 260 permutations", "documents/s"
    about = f"{len(sample)} real documents of {mean:,.0f} bytes; word analysis included"
    lines.append(f"| signatures, {kind} | {1 / words:,.0f} {each} | {about} |")
    rate = f"{1 / chars:,.0f} {each}, {mean / chars / 1e6:.0f} MB/s"
    lines.append(f"| signatures, 24 characters, 260 permutations | {rate} | the default |")
    times = f"ours is {keys['signatures_vs_datatrove']:,.0f} times as fast"
    lines.append(f"| datatrove, {kind} | {1 / peers['datatrove']:,.0f} {each} | {times} |")
    times = f"ours is {keys['signatures_vs_rensa']:.1f} times as fast; with shingles given {1 / peers['rensa_hashing']:,.0f}"
    lines.append(f"| rensa, shingles cut in Python | {1 / peers['rensa']:,.0f} {each} | {times} |")
    differ, expected, ours, theirs, theory = agreement(twins, peers["pairs"])
    remark = f"theory {theory:.1f}; {differ} found by one alone, by chance {expected:.1f}"
    lines.append(f"| pairs found, datatrove / ours | {theirs} / {ours} of {len(twins)} | {remark} |")
    return keys


def hostile(quick, lines):
    size, count = (20, 100_000) if quick else (100, 1_000_000)
    seconds, growth = giants(size << 20)
    lines.append(f"| one document of {size} MiB | {seconds:.1f} s | memory grew by {growth / 2**20:.1f} MiB |")
    seconds, edges = identical(count)
    lines.append(f"| {count:,} identical documents | {seconds:.1f} s | {edges:,} edges out of {BANDS} buckets |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="at most two minutes; 10,000 documents in the whole job")
    parser.add_argument("--sizes", default="10000,100000,1000000")
    parser.add_argument("--peer", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        return peer_main(*args.peer)
    from benchmarks.dedup_jobs import jobs, repeated
    from benchmarks.dedup_join import join
    from benchmarks.dedup_labels import labelled

    texts, lines = real_texts(), []
    sample, count = texts[:: 4 if args.quick else 1], 60 if args.quick else 300
    twins = [p for s in (0.6, 0.7, 0.8, 0.9) for p in planted(texts, s, count // 6, round(s * 10))]
    keys = speeds(sample, twins, args.quick, lines)
    keys |= join(100_000 if args.quick else 400_000, lines)
    keys["recall_j80"] = accuracy(texts, count, lines)
    labelled(args.quick, lines)
    hostile(args.quick, lines)
    repeated(texts, args.quick, lines)
    jobs([10_000] if args.quick else [int(s) for s in args.sizes.split(",")], texts, keys, lines)
    report(lines, args.quick)
    print(json.dumps({k: round(v, 4) for k, v in keys.items()}))
    return None


if __name__ == "__main__":
    main()
