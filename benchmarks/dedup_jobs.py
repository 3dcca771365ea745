"""Whole jobs of the deduplication benchmark: a made corpus through the shipped recipes, with two workers."""

import random
import shutil
import subprocess
import sys
import threading
import time

from benchmarks.signing import CACHE, ROOT, best, frame

SHARD = 20_000


def corpus(folder, size, texts):
    """Parquet shards: a quarter of the documents are copies, word for word or with edits, of others; the rest are new.

    A new document is some real paragraphs in random order with one word in ten replaced, or (one in fifty) a real document.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if (folder / "ready").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rng = random.Random(size)
    pieces = [p.split() for t in texts for p in t.split("\n") if 20 <= len(p.split()) <= 120]
    vocabulary = sorted({w for p in pieces[:3000] for w in p})

    def fresh():
        if rng.random() < 0.02:
            return rng.choice(texts).split()
        return replaced([w for p in rng.choices(pieces, k=rng.randint(3, 6)) for w in p], 0.1)

    def replaced(words, rate):
        count, words = round(len(words) * rate), list(words)
        for place, word in zip(rng.choices(range(len(words)), k=count), rng.choices(vocabulary, k=count), strict=True):
            words[place] = word
        return words

    # A real document that is drawn twice is one family.
    recent, first = [], {}
    for start in range(0, size, SHARD):
        made = []
        for number in range(start, min(start + SHARD, size)):
            copy = bool(recent) and rng.random() < 0.25
            family, words = rng.choice(recent) if copy else (number, fresh())
            words = replaced(words, rng.choice((0, 0, 0.003, 0.01, 0.03))) if copy else words
            made.append({"id": f"{number:032x}", "text": " ".join(words), "family": family})
            if not copy:
                family = made[-1]["family"] = first.setdefault(hash(tuple(words)), number)
                recent.append((family, words))
                if len(recent) > 2000:
                    recent[rng.randrange(2000)] = recent.pop()
        pq.write_table(pa.Table.from_pylist(made), folder / f"{start:09d}.parquet", compression="zstd")
    (folder / "ready").touch()


def tree_memory(process):
    """PSS of a process and its descendants: shared pages count once."""
    import psutil

    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            total += one.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def whole_job(size, texts, partitions):
    found = recipe_run("dedup", size, texts, partitions)
    return found | verdicts(CACHE / "dedup-store", CACHE / f"dedup-corpus-{size}")


def recipe_run(recipe, size, texts, partitions):
    """Seconds, memory and store of a shipped recipe on a made corpus, with two workers."""
    import psutil
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    source, store = CACHE / f"dedup-corpus-{size}", CACHE / "dedup-store"
    corpus(source, size, texts)
    shutil.rmtree(store, ignore_errors=True)
    command = [sys.executable, "-m", "pipelines.cli", "run", recipe, "--store", store, "--workers", "2"]
    command += ["--set", f"paths={source}/*.parquet", "--set", f"partitions={partitions}"]
    begin, peak, over = time.monotonic(), [0], threading.Event()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as run:

        def watch():
            while not over.wait(0.5):
                peak[0] = max(peak[0], tree_memory(psutil.Process(run.pid)))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        _, errors = run.communicate()
        over.set()
        watcher.join()
    if run.returncode:
        raise RuntimeError(errors.decode()[-2000:])
    used = sum(f.stat().st_size for f in store.rglob("*") if f.is_file())
    seconds = time.monotonic() - begin
    texts_in = (pq.read_table(path, columns=["text"])["text"] for path in source.glob("*.parquet"))
    size = sum(pc.sum(pc.binary_length(column)).as_py() for column in texts_in)
    return {"seconds": seconds, "peak": peak[0], "store": used, "bytes": size}


def columns(store, step, names):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder,) = list((store / "objects").glob(f"{step}-*"))
    parts = json_parts(folder)
    return pa.concat_tables(pq.read_table(path, columns=names) for path in parts)


def json_parts(folder):
    return sorted(p for p in (folder / "parts").glob("*.parquet") if "quarantine" not in p.name)


def verdicts(store, source):
    """Of the dropped rows, how many lie in the family of their twin."""
    import pyarrow.parquet as pq

    family = {}
    for path in source.glob("*.parquet"):
        table = pq.read_table(path, columns=["id", "family"])
        family |= dict(zip(table["id"].to_pylist(), table["family"].to_pylist(), strict=True))
    found = {"dropped": 0, "right": 0}
    for step in ("same", "near"):
        (owner,) = list((store / "objects").glob(f"{step}-*"))
        base = next((store / "objects").glob("texts-*"))
        for part in json_parts(owner):
            ids = pq.read_table(base / "parts" / part.name, columns=["id"])["id"].to_pylist()
            twins = pq.read_table(part, columns=["twin"])["twin"].to_pylist()
            for one, two in zip(ids, twins, strict=True):
                if two is not None:
                    found["dropped"] += 1
                    found["right"] += family[one] == family[two]
    return found


# -- bad input ----------------------------------------------------------------------------------------------------------


def repeated(texts, quick, lines):
    """Rates of the first steps of line and of substring dedup, and the whole recipe on the documents of the smallest job."""
    import numpy as np

    from stages.dedup.lines import repeats as line_repeats
    from stages.dedup.substrings import anchors

    batches = []
    for start in range(0, len(texts), 2048):
        table = frame(texts[start : start + 2048])
        ids = [f"{start + i:032x}" for i in range(table.num_rows)]
        batches.append(table.append_column("id", [ids]).append_column("row", [np.arange(start, start + len(ids))]))
    size = sum(len(t.encode()) for t in texts)
    for name, stage, params in (
        ("lines", line_repeats, line_repeats.params()),
        ("substrings of 100 bytes", anchors, anchors.params()),
    ):
        made = [stage.emit(b, params).num_rows for b in batches]
        rate = size / best(3, lambda stage=stage, params=params: [stage.emit(b, params) for b in batches]) / 1e6
        about = f"{sum(made) / len(texts):.0f} rows a document of {size / len(texts):,.0f} bytes"
        lines.append(f"| repeated {name}, emitted | {rate:,.0f} MB/s a core | {about} |")
    count = 2_000 if quick else 10_000
    found = recipe_run("dedup-substrings", count, texts, 16)
    whole = found["bytes"]
    text = f"{found['seconds']:.0f} s ({whole / found['seconds'] / 1e6:.1f} MB/s), {found['peak'] / 1e9:.2f} GB at its peak"
    repeats = "made of the same paragraphs, so that much of it repeats"
    about = f"{whole / 1e6:,.0f} MB of text {repeats}; store {found['store'] / 1e6:,.0f} MB"
    lines.append(f"| repeated lines and substrings, whole recipe, {count:,} documents | {text} | {about} |")


def jobs(sizes, texts, keys, lines):
    for size in sizes:
        found = whole_job(size, texts, 16)
        label = f"{size // 1000}k" if size < 1_000_000 else f"{size // 1_000_000}m"
        keys[f"seconds_{label}"], keys[f"peak_gb_{label}"] = found["seconds"], found["peak"] / 1e9
        keys["precision"] = found["right"] / found["dropped"]
        measured = f"{found['seconds']:.0f} s, {found['peak'] / 1e9:.2f} GB at its peak"
        remark = f"{found['dropped']:,} dropped, {keys['precision']:.4f} of them with a twin of their own family"
        lines.append(f"| whole job, {size:,} documents | {measured} | {remark}; store {found['store'] / 1e6:,.0f} MB |")
        print(lines[-1], flush=True)
