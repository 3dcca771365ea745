"""The band join: from spill files on disk to edges and components, as the engine's settle tasks do it, and DuckDB beside it."""

import shutil
import time
from pathlib import Path

from benchmarks.signing import BANDS, CACHE

PARTITIONS, UNIT = 16, 20_000
"""Parts of the exchange, and documents of a unit: each spill holds 25,000 rows of each part."""
REPEATS = 3


def matrix(documents):
    """Band hashes: a quarter of the documents are copies that share three bands in five with another."""
    import numpy as np

    rng = np.random.default_rng(1)
    bands = rng.integers(0, 2**64, (documents, BANDS), dtype=np.uint64)
    copies = np.flatnonzero(rng.random(documents) < 0.25)
    originals = rng.integers(0, documents, len(copies))
    bands[copies] = np.where(rng.random((len(copies), BANDS)) < 0.6, bands[originals], bands[copies])
    return bands


def spilled(folder, tables, partitions):
    """Keys of spills of these tables, and the CPU seconds of writing them."""
    from manifests.shard import PartDraft
    from manifests.spill import write_spill

    keys, seconds = [], 0.0
    for number, table in enumerate(tables):
        begin = time.process_time()
        with PartDraft(folder, f"u{number}") as draft:
            write_spill(draft.open(".spill"), table, partitions)
            draft.commit()
        seconds += time.process_time() - begin
        keys.append(f"u{number}")
    return tuple(keys), seconds


def settle(root, stage, params, spill, keys):
    """The work of settling a Reduce whose spills lie in `spill`."""
    from pipelines.program import Call, Settle

    call = Call(spill, stage.name, params.model_dump(mode="json"), stage.reads_of(params), stage.writes_of(params))
    return Settle(call, str(root), "", f"{spill}-done", spill, keys, stage.emits_of(params), stage.result == "verdict")


def timed(work, part):
    """CPU seconds of one settle task (the fastest of several: other load only ever adds) and its receipt."""
    from pipelines.program import FrameUnit, Task
    from pipelines.settle import run_settle

    taken = []
    for _ in range(REPEATS):
        begin = time.process_time()
        receipt = run_settle(work, Task("", FrameUnit(f"part-{part}", ""), part))
        taken.append(time.process_time() - begin)
    return min(taken), receipt


def peak(reset=False):
    """The highest resident memory since the last reset, in bytes."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


def through_the_engine(bands):
    """CPU seconds of each step for all rows, and what they made."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from stages.dedup.minhash import clusters, pairs

    root = CACHE / "dedup-join"
    shutil.rmtree(root, ignore_errors=True)
    tables = []
    for unit, start in enumerate(range(0, len(bands), UNIT)):
        piece = bands[start : start + UNIT]
        rows = np.repeat((unit << 32) + np.arange(len(piece)), BANDS)
        tables.append(pa.table({"key": piece.reshape(-1), "row": rows, "survivor": pa.nulls(piece.size, pa.string())}))
    params, found = pairs.params(partitions=PARTITIONS), {}
    keys, found["written"] = spilled(root / "spills" / "pairs", tables, PARTITIONS)
    del tables
    work = settle(root, pairs, params, "pairs", keys)
    before = peak(reset=True)
    settled = [timed(work, part) for part in range(PARTITIONS)]
    found["memory"] = (peak() - before) * PARTITIONS / bands.size
    found["joined"], found["edges"] = sum(seconds for seconds, _ in settled), sum(r.rows for _, r in settled)
    begin, made = time.process_time(), []
    for part in sorted((root / "objects" / "pairs-done" / "parts").glob("*.parquet")):
        table = pq.read_table(part, columns=["row", "other", "survivor"], use_threads=False)
        made.append(clusters.emit(table, clusters.params()).select(list(clusters.emits_of(clusters.params()))))
    found["between"] = time.process_time() - begin
    keys, seconds = spilled(root / "spills" / "clusters", made, 1)
    found["between"] += seconds
    timed(settle(root, clusters, clusters.params(), "clusters", keys), 0)  # kernels are loaded once a process
    found["united"], receipt = timed(settle(root, clusters, clusters.params(), "clusters", keys), 0)
    return found | {"nodes": receipt.rows}


def in_memory(bands):
    """CPU seconds of the same without files: order the keys of each part, edges of equal keys, components."""
    import numpy as np

    from manifests.spill import partition_of, stable_order
    from stages.dedup.components import Components, Room

    keys, rows = bands.reshape(-1), np.repeat(np.arange(len(bands)), BANDS)
    places = partition_of(keys, PARTITIONS)
    parts = [(keys[places == p], rows[places == p]) for p in range(PARTITIONS)]

    def run():
        with Room(1 << 40) as room:
            components = Components(room)
            for key, row in parts:
                order, placed = stable_order(key, alone=False)
                member = np.append(False, placed[1:] == placed[:-1])
                first = np.maximum.accumulate(np.where(member, 0, np.arange(len(placed))))[member]
                at = row[order]
                components.add(at[member], at[first])
            return len(components.solve()[0])

    run()
    taken = []
    for _ in range(REPEATS):
        begin = time.process_time()
        nodes = run()
        taken.append(time.process_time() - begin)
    return min(taken), nodes


def duckdb_join(bands):
    """CPU seconds of DuckDB (one thread, rows in memory) to edges."""
    import duckdb
    import numpy as np
    import pyarrow as pa

    table = pa.table({"key": bands.reshape(-1), "row": np.repeat(np.arange(len(bands)), BANDS)})
    connection = duckdb.connect(config={"threads": 1})
    connection.register("bands", table)
    query = """select b.row, s.first from bands b join
               (select key, min(row) as first from bands group by key having count(*) > 1) s using (key) where b.row > s.first"""
    begin = time.process_time()
    connection.sql(query).to_arrow_table()
    return time.process_time() - begin


def join(documents, lines):
    """The headline and rows of the report."""
    bands = matrix(documents)
    found, (alone, nodes) = through_the_engine(bands), in_memory(bands)
    duck = duckdb_join(bands)
    if nodes != found["nodes"]:
        raise RuntimeError(f"{nodes} rows have a twin in memory, {found['nodes']} through the engine")
    size = bands.size
    ns = {name: found[name] / size * 1e9 for name in ("written", "joined", "between", "united")}
    rate = size / (found["joined"] + found["united"])
    steps = f"{ns['joined']:.0f} ns a row to edges, {ns['united']:.0f} to components"
    more = f"the pass between them {ns['between']:.0f}, writing the spills {ns['written']:.0f}"
    made = f"{size:,} rows, {found['edges']:,} edges, {nodes:,} clustered"
    what = "band join and union-find, spill files to components"
    remark = f"{made}; {steps} ({more})"
    lines.append(f"| {what} | {rate / 1e6:.1f} million rows/s a core | {remark} |")
    remark = f"DuckDB to edges alone, one thread, in memory: {size / duck / 1e6:.1f}"
    lines.append(f"| the same in memory, without files | {size / alone / 1e6:.1f} million rows/s | {remark} |")
    remark = "peak of the process over what it held before"
    lines.append(f"| memory of a `pairs` settle | {found['memory']:.0f} bytes a row of its part | {remark} |")
    return {"rows_per_s_join": rate, "rows_per_s_kernel": size / alone, "rows_per_s_duckdb": size / duck}
