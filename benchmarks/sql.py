"""SQL latency: our views against plain DuckDB on the same files.

    python benchmarks/sql.py [--quick] [--rows N] [--keep FOLDER]

Makes a store in the engine's layout (same writer, same row groups): a compacted step `big.web` with a copy of every column,
and the frame behind it with four layers (text, quality, twins, buckets) of as many rows, joined by part and row number.
For each question: seconds and CPU seconds of our view and of DuckDB over the same files written by hand, best of three
after one warm-up, and the bytes that a fresh process reads. Then `why` for one document.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import duckdb  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.compute as pc  # noqa: E402

from benchmarks.results import machine, write_section  # noqa: E402
from manifests.catalog import Catalog  # noqa: E402
from manifests.manifest import Receipt, units_hash  # noqa: E402
from manifests.shard import PartDraft, TableWriter  # noqa: E402
from manifests.store import Store  # noqa: E402

PART_ROWS = 500_000
BASE = {"id": "string", "url": "string", "language": "string", "words": "int32", "text": "large_string"}
LAYERS = {"text": BASE, "quality": {"score": "double"}, "twins": {"twin": "string"}, "buckets": {"bucket": "int8"}}
MADE = """
    select md5(i::varchar) as id, 'https://site' || (hash(i) % 5000) || '.example/' || i as url,
        ['en', 'de', 'fr', 'zh', 'ru'][1 + (hash(i + 1) % 5)::int] as language, (40 + hash(i + 2) % 2000)::int as words,
        'document ' || i || ' says ' || repeat(md5((i * 7)::varchar), 2) as text,
        round((hash(i + 3) % 1000000) / 1e6, 6)::double as score,
        case when hash(i + 4) % 10 = 0 then md5((i + 5)::varchar) end as twin, (hash(i + 5) % 20)::tinyint as bucket,
        case when hash(i + 4) % 10 = 0 then 0 end::smallint as twin_drop,
        case when hash(i + 4) % 10 = 0 then -1 end::smallint as gone_before
    from range({low}, {high}) t(i)
"""
SCHEMAS = {"int32": pa.int32(), "double": pa.float64(), "int8": pa.int8(), "string": pa.string(), "large_string": pa.large_string()}
DROPS = [("drop_step", pa.int16()), ("drop_reason", pa.string())]
MARKS = {"twins": "twin_drop", "buckets": "gone_before"}
"""Layers that have to say which rows do not stand: the one that drops them, and the one after it."""


def build(root: Path, rows: int) -> None:
    """Write the store part by part."""
    store = Store.open(root)
    objects = {"web": {**BASE, "score": "double", "bucket": "int8"}, **LAYERS}
    receipts: dict[str, list[Receipt]] = {name: [] for name in objects}
    for number, low in enumerate(range(0, rows, PART_ROWS)):
        made = duckdb.sql(MADE.format(low=low, high=min(low + PART_ROWS, rows))).to_arrow_table()
        for name, columns in objects.items():
            receipts[name].append(_part(store, name, number, made, columns))
    for name, columns in objects.items():
        target = store.object(address(name))
        standing = sum(r.counts["members"][0]["standing"] for r in receipts[name])
        total = {"in": rows, "standing": standing, **({"dropped": {"duplicate": rows - standing}} if name == "twins" else {})}
        writes = dict(columns)
        shape = "base" if name in ("text", "web") else "layer"
        if shape == "base":
            total["records"] = rows
        target.ask({"members": [{"step": name, "writes": writes, "facts": {}}], "shape": shape})
        target.answer(units_hash([r.unit for r in receipts[name]]), receipts[name], {"members": [total], "steps": [name]})
    store.record("recipes", "big", _record(objects, units_hash([r.unit for r in receipts["web"]])))


def address(name: str) -> str:
    """Folder name of an object."""
    return f"{name}-{'0' * 24}"


def _part(store: Store, name: str, number: int, made: pa.Table, columns: dict[str, str]) -> Receipt:
    fell = made[MARKS[name]] if name in MARKS else pa.nulls(made.num_rows, pa.int16())
    table = made.select(list(columns)).append_column("drop_step", fell)
    reason = pa.scalar("duplicate" if name == "twins" else None, pa.string())
    table = table.append_column("drop_reason", pc.if_else(pc.is_valid(fell), reason, pa.scalar(None, pa.string())))
    schema = pa.schema([*((n, SCHEMAS[t]) for n, t in columns.items()), *DROPS])
    unit = f"{number:016x}"
    with PartDraft(store.object(address(name)).path, unit) as draft:
        writer = TableWriter(draft.open(".parquet"), schema)
        writer.write(table)
        writer.close()
        files = draft.commit()
    gone = made.num_rows - fell.null_count
    return Receipt(unit, unit, made.num_rows, files, {"members": [{"standing": made.num_rows - gone}]})


def _record(objects: dict[str, dict[str, str]], units: str) -> dict[str, Any]:
    steps, before, columns = {}, None, {}
    for name in ("web", *LAYERS):
        own = {n: {"type": t, "owner": name} for n, t in objects[name].items()}
        columns = own if name in ("web", "text") else {**columns, **own}
        frame = "web" if name == "web" else "text"
        steps[name] = {
            "uses": f"bench.{name}", "shape": "base" if name in ("web", "text") else "layer", "frame": frame,
            "parents": [before] if name not in ("web", "text") else [], "given": {}, "object": address(name), "member": 0,
            "units": units, "columns": dict(columns), "stored": list(objects[name]), "inputs": None,
        }  # fmt: skip
        before = name
    return {"name": "big", "order": list(steps), "steps": steps, "units": {"web": units, "text": units}}


def glob(root: Path, name: str) -> str:
    """All parts of an object for DuckDB."""
    return f"read_parquet('{root}/objects/{address(name)}/parts/*.parquet')"


def by_hand(root: Path, *names: str) -> str:
    """Layers joined by hand as our views do it: part and row number."""
    tables = f"{glob(root, names[0])} {names[0]}"
    for name in names[1:]:
        same = f"{name}.file_index = {names[0]}.file_index and {name}.file_row_number = {names[0]}.file_row_number"
        tables += f" join {glob(root, name)} {name} on {same}"
    return tables


def questions(root: Path) -> list[tuple[str, str, str, str]]:
    """Group, what is asked, our query, the same for plain DuckDB."""
    web = glob(root, "web")
    four = by_hand(root, "buckets", "quality", "text", "twins")
    three = by_hand(root, "buckets", "quality", "text")
    return [
        ("compacted", "rows by language", "select language, count(*), avg(words) from big.web group by all",
         f"select language, count(*), avg(words) from {web} group by all"),
        ("compacted", "top 20 by score", "select id, url, score from big.web order by score desc, id limit 20",
         f"select id, url, score from {web} order by score desc, id limit 20"),
        ("compacted", "by bucket, filtered", "select bucket, count(*), avg(score) from big.web where words > 500 group by 1",
         f"select bucket, count(*), avg(score) from {web} where words > 500 group by all"),
        ("compacted", "one document", "select id, url, score from big.web where url = 'https://site1.example/12345'",
         f"select id, url, score from {web} where url = 'https://site1.example/12345'"),
        ("compacted", "count", "select count(*) from big.web", f"select count(*) from {web}"),
        ("compacted", "text of some", "select id, text from big.web where score > 0.9999",
         f"select id, text from {web} where score > 0.9999"),
        ("layers", "filter on one, count by another", "select language, count(*) from big.quality where score > 0.9 group by all",
         f"select language, count(*) from {by_hand(root, 'text', 'quality')} where score > 0.9 group by all"),
        ("layers", "filter on one, text from another", "select id, text from big.quality where score > 0.9999",
         f"select id, text from {by_hand(root, 'text', 'quality')} where score > 0.9999"),
        ("layers", "three layers, standing rows", "select bucket, count(*), avg(score), avg(words) from big.buckets group by all",
         f"select bucket, count(*), avg(score), avg(words) from {three} where buckets.drop_step is null group by all"),
        ("layers", "four layers, dropped and standing",
         "select bucket, drop_reason, count(*), avg(score), avg(words) from big.buckets_all group by all",
         f"select bucket, twins.drop_reason, count(*), avg(score), avg(words) from {four} group by all"),
        ("layers", "three layers, lowest of one", "select id, url, score from big.buckets where bucket = 18 order by 3 limit 20",
         f"select id, url, score from {three} where buckets.drop_step is null and bucket = 18 order by score limit 20"),
    ]  # fmt: skip


def ours(root: Path, query: str) -> list[Any]:
    """The answer as `gristmill sql` gets it: the store's records are read anew."""
    return Catalog(Store(root)).run(query).fetchall()


def plain(_root: Path, query: str) -> list[Any]:
    """The answer of DuckDB as it comes."""
    con = duckdb.connect()
    con.execute("set enable_progress_bar = false").fetchall()
    return con.execute(query).fetchall()


def timed(work: Callable[[], list[Any]]) -> tuple[float, float, list[Any]]:
    """Wall and CPU seconds, best of three after a warm-up; and the answer."""
    answer, best, cpu = work(), float("inf"), float("inf")
    for _ in range(3):
        wall, busy = time.perf_counter(), time.process_time()
        work()
        best, cpu = min(best, time.perf_counter() - wall), min(cpu, time.process_time() - busy)
    return best, cpu, answer


def bytes_read(who: str, root: Path, query: str) -> int:
    """Bytes that a process reads for this query; the second time, so that imports do not count."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from benchmarks.sql import ours, plain; from pathlib import Path\n"
        "def read(): return int(open('/proc/self/io').readline().split()[1])\n"
        f"go = lambda: {who}(Path({str(root)!r}), {query!r}); go(); a = read(); go(); print(read() - a)"
    )
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()[-1])


def compared(root: Path) -> list[dict[str, Any]]:
    """Every question asked twice; the answers must agree."""
    found = []
    for group, name, mine, theirs in questions(root):
        wall, cpu, answer = timed(lambda q=mine: ours(root, q))
        other, other_cpu, expected = timed(lambda q=theirs: plain(root, q))
        if _rounded(answer) != _rounded(expected):
            raise SystemExit(f"{name}: the answers differ")
        read = (bytes_read("ours", root, mine), bytes_read("plain", root, theirs))
        found.append({"group": group, "name": name, "wall": wall, "plain": other, "cpu": cpu, "plain_cpu": other_cpu, "read": read})
        print(f"{group:9} {name:34} {wall:6.2f} s against {other:6.2f} s; CPU {cpu:6.2f} / {other_cpu:6.2f}; "
              f"{read[0] / 1e6:,.0f} / {read[1] / 1e6:,.0f} MB", file=sys.stderr)  # fmt: skip
    return found


def _rounded(rows: list[Any]) -> list[str]:
    return sorted(str([round(v, 6) if isinstance(v, float) else v for v in row]) for row in rows)


def why_ms(root: Path, rows: int) -> float:
    """Milliseconds of `why` for one dropped document among all."""
    number = next(i for i in range(rows // 2, rows) if duckdb.sql(f"select hash({i}::bigint + 4) % 10 = 0").fetchall()[0][0])
    document = duckdb.sql(f"select md5('{number}')").fetchall()[0][0]
    wall, _, answer = timed(lambda: ours(root, f"select step, reason from why('{document}')"))
    if [tuple(map(str, row)) for row in answer] != [("twins", "duplicate")]:
        raise SystemExit(f"why({document}): {answer}")
    return wall * 1000


def report_s(folder: Path) -> float:
    """Seconds in which the report of the packaged recipe is written; the scripts that it carries are in the cache."""
    command = [sys.executable, "-m", "pipelines.cli"]
    where = ["--store", str(folder / "quickstart")]
    subprocess.run([*command, "run", "quickstart", *where], cwd=ROOT, capture_output=True, check=True)
    best = float("inf")
    for _ in range(2):
        started = time.perf_counter()
        subprocess.run([*command, "report", "quickstart", "--out", str(folder / "report.html"), *where], cwd=ROOT, check=True)
        best = min(best, time.perf_counter() - started)
    return best


def section(rows: int, found: list[dict[str, Any]], why: float, report: float, size: int) -> str:
    """The section of RESULTS.md."""
    lines = [f"| {f['group']} | {f['name']} | {f['wall']:.2f} | {f['plain']:.2f} | {f['cpu'] / f['plain_cpu']:.2f} "
             f"| {f['read'][0] / 1e6:,.1f} | {f['read'][1] / 1e6:,.1f} |" for f in found]  # fmt: skip
    return "\n".join(
        [
            f"## SQL over {rows:,} rows",
            "",
            f"`python benchmarks/sql.py --rows {rows}`. {machine()}. Store: {size / 1e9:.2f} GB.",
            (
                "Seconds: best of three, files in the page cache, the store's records read anew each time (`Catalog` to last row). "
                "Compacted: one object with every column. Layers: four objects of as many rows, joined by part and row number; "
                "plain DuckDB joins the same files with the same condition, written by hand. The ratio is of CPU seconds."
            ),
            "",
            "| data | question | ours, s | plain DuckDB, s | ratio (CPU) | MB read, ours | MB read, plain |",
            "|---|---|--:|--:|--:|--:|--:|",
            *lines,
            "",
            f"`why` over all layers: {why:,.0f} ms. `gristmill report` of the packaged recipe, from the shell: {report:.1f} s.",
        ]
    )


def main() -> None:
    """Build, ask, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a million rows")
    parser.add_argument("--rows", type=int, help="rows of the frame; default ten million")
    parser.add_argument("--keep", type=Path, help="make the store here, or use the one that is here")
    words = parser.parse_args()
    rows = words.rows or (1_000_000 if words.quick else 10_000_000)
    with tempfile.TemporaryDirectory(prefix="gristmill-sql-") as folder:
        root = (words.keep or Path(folder) / "store").absolute()
        if not (root / "recipes").exists():
            build(root, rows)
        found = compared(root)
        why = why_ms(root, rows)
        size = sum(p.stat().st_size for p in root.rglob("*.parquet"))
        report = report_s(Path(folder))
        write_section("sql", section(rows, found, why, report, size))
    ratio = {g: sum(f["cpu"] for f in found if f["group"] == g) / sum(f["plain_cpu"] for f in found if f["group"] == g)
             for g in ("compacted", "layers")}  # fmt: skip
    slowest = max(f["wall"] for f in found)
    print(json.dumps({"sql_vs_plain_duckdb": round(ratio["compacted"], 2), "sql_layers_vs_plain_duckdb": round(ratio["layers"], 2),
                      "sql_slowest_s": round(slowest, 2), "why_ms": round(why), "report_s": round(report, 1),
                      "rows": rows}))  # fmt: skip


if __name__ == "__main__":
    main()
