"""Failures of other tools, one test each: what they lose, double, hide or cannot start must not happen here.

V1 dolma, V2 V3 V5 V6 datatrove, V4 NeMo Curator, V7 dolma, V8 V9 Data-Juicer, V10 the Nemotron-CC recipe, V11 DCLM.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pyarrow as pa
import pytest

from classifiers.buckets import cut_points
from pipelines.executors.local import Local

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
FIVE = ("pipelines", "stages", "classifiers", "synthetic", "manifests")
STAGES = """
import os
import pyarrow as pa
from pydantic import Field
from stages.contract import TEXT, Params, map_stage

class Fate(Params):
    gone: str = Field("", description="a file whose absence fails the unit that says 'bad'", json_schema_extra={"how": True})

@map_stage(version=1, reads={"text": TEXT}, writes={"seen": pa.bool_()})
def needs_a_file(batch, params: Fate):
    if any("bad" in t for t in batch["text"].to_pylist()) and not os.path.exists(params.gone):
        raise ImportError("the unit cannot be done today")
    return pa.table({"seen": pa.array([True] * batch.num_rows)})

@map_stage(version=1, reads={"text": TEXT}, writes={"seen": pa.bool_()})
def raises(batch, params: Fate):
    if any("bad" in t for t in batch["text"].to_pylist()):
        raise ValueError("met bad")
    return pa.table({"seen": pa.array([True] * batch.num_rows)})
"""
LINES = 'lines: {uses: stages.ingest.jsonl.rows, with: {paths: "${here}/rows*.jsonl", columns: {id: id, text: text}}}'


def small(engine, *steps, run="{}"):
    body = "\n".join(f"          {step}" for step in (LINES, *steps))
    return f"\n        name: small\n        steps:\n{body}\n        run: {run}\n"


def rows(engine, units=6, each=5):
    engine.write("mine.py", STAGES)
    for unit in range(units):
        engine.rows(
            f"rows{unit}.jsonl",
            [{"id": f"u{unit}r{i}", "text": f"text {i % 3} of many" if (unit, i) != (2, 3) else "bad"} for i in range(each)],
        )


def test_v1_dedup_run_twice_drops_nothing_more(engine):
    rows(engine)
    recipe = small(engine, "twins: {uses: stages.dedup.exact.documents, from: lines, with: {partitions: 2}}")
    assert engine.run(recipe).code == 0
    once, bytes_once = engine.head("twins")["counts"], engine.digests()
    for path in (engine.store.root / "objects").glob("twins-*/manifests/*"):
        path.unlink()  # as if it had died before its end: what it left behind must not make every document a double
    assert engine.run(recipe).code == 0
    assert engine.head("twins")["counts"] == once
    assert engine.digests() == bytes_once
    assert sum(once["dropped"].values()) == 30 - 4


def test_v2_one_task_that_fails_takes_no_other_with_it(engine, monkeypatch):
    monkeypatch.setattr("pipelines.executors.trials.PAUSE", 0.01)
    rows(engine)
    recipe = small(engine, "judged: {uses: mine.needs_a_file, from: lines}")
    executor = Local(2)
    try:
        result = engine.run(recipe, executor=executor)
    finally:
        executor.close()
    assert result.code == 1
    assert len(result.errors) == 1
    assert "rows2.jsonl" in result.errors[0]
    assert len(list((engine.store.root / "objects").glob("judged-*/parts/*.parquet"))) == 5, "five of six are done"


@pytest.fixture
def torn(engine):
    """Ten pages, a member each; the fourth is overwritten in the middle."""
    from inputs import page

    members = [page(n) for n in range(10)]
    broken = bytearray(members[3])
    broken[len(broken) // 2 : len(broken) // 2 + 40] = bytes(40)
    engine.write("pages.warc.gz", b"".join([*members[:3], bytes(broken), *members[4:]]))
    return '\n name: small\n steps:\n  crawl: {uses: stages.ingest.warc.pages, with: {paths: "${here}/pages.warc.gz"}}\n run: {max_error_rate: 0.2}\n'


def test_v3_a_bad_record_costs_itself_and_not_its_file(engine, torn):
    assert engine.run(torn).code == 0
    counts = engine.head("crawl")["counts"]
    assert (counts["standing"], counts["quarantined"]) == (9, 1)


def test_v4_the_records_behind_a_bad_one_are_read(engine, torn):
    assert engine.run(torn).code == 0
    urls = [row["url"] for row in engine.table("crawl")]
    assert urls == [f"https://mill.example/{n}" for n in range(10) if n != 3]


def test_v5_words_are_counted_once_for_all_filters(engine, monkeypatch):
    import stages.analysis

    seen: list[int] = []
    real = stages.analysis.words
    spy = type(real)(
        **{name: getattr(real, name) for name in real.__dataclass_fields__}
        | {"run": lambda b, p: seen.append(b.num_rows) or real.run(b, p)}
    )
    monkeypatch.setattr(stages.analysis, "words", spy)
    rows(engine)
    filters = ("gopher.quality", "gopher.repetition", "fineweb.quality")
    steps = [f"f{i}: {{uses: stages.filters.{name}, from: {f'f{i - 1}' if i else 'lines'}}}" for i, name in enumerate(filters)]
    assert engine.run(small(engine, *steps)).code == 0
    assert 0 < sum(seen) <= 30, "a document is cut into words at most once"


def declared():
    """Requirements of the project: of itself and of each extra, by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {name: list(found) for name, found in project["optional-dependencies"].items()}
    return project["dependencies"], extras


def plain(requirement):
    name = requirement.split(";")[0].split("[")[0]
    for sign in "=<>~! ":
        name = name.split(sign)[0]
    return name.strip().lower().replace("_", "-").replace(".", "-")


def imported():
    """Top-level modules that our code imports anywhere, also inside of functions, with a place for each."""
    found = {}
    for room in FIVE:
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
                found |= {name.split(".")[0]: f"{path.relative_to(ROOT)}:{node.lineno}" for name in names}
    return found


def test_v6_whatever_is_imported_is_declared():
    core, extras = declared()
    named = {plain(r) for r in [*core, *(r for found in extras.values() for r in found)]}
    owners = metadata.packages_distributions()
    ours = {*FIVE, *sys.stdlib_module_names}
    missing = {
        module: place for module, place in imported().items()
        if module not in ours and module in owners and not {plain(d) for d in owners[module]} & named
    }  # fmt: skip
    assert missing == {}, "importable here by luck: some other package brought it"


@pytest.mark.parametrize(
    "module", ["trafilatura", "justext", "resiliparse.extract.html2text", "fasttext", "fastwarc.warc", "tldextract"]
)
def test_v6_a_declared_library_can_be_imported(module):
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", f"import {module}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]


def test_v7_everything_that_make_test_installs_is_pinned_and_the_pins_agree():
    core, extras = declared()
    lock = {plain(line): line for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line}
    wanted = list(core)
    pending = ["dev"]
    while pending:
        for requirement in extras[pending.pop()]:
            if requirement.startswith("gristmill["):
                pending += requirement[len("gristmill[") : -1].split(",")
            else:
                wanted.append(requirement)
    assert [r for r in wanted if plain(r) not in lock] == [], "a resolver would have to search for these"
    from packaging.requirements import Requirement

    wrong = []
    for requirement in map(Requirement, wanted):
        version = lock[plain(str(requirement))].split("==")[1].split(";")[0].strip()
        wrong += [str(requirement)] if version not in requirement.specifier else []
    assert wrong == []


def test_v8_a_failing_batch_does_not_vanish(engine):
    rows(engine)
    result = engine.run(small(engine, "judged: {uses: mine.raises, from: lines}"))
    assert result.code == 3, "one of thirty is over the limit of 1 %, and the exit code says so"
    assert "1 of 30 rows are quarantined" in result.over_limit[0]
    assert engine.run(small(engine, "judged: {uses: mine.raises, from: lines}", run="{max_error_rate: 0.1}")).code == 0
    counts = engine.head("judged")["counts"]
    assert (counts["in"], counts["standing"], counts["quarantined"]) == (30, 29, 1)


def test_v9_no_public_stage_is_a_stub():
    stubs = []
    for room in FIVE:
        for path in (ROOT / room).rglob("*.py"):
            tree = ast.parse(path.read_text())
            if not tree.body and path.name != "__init__.py":
                stubs.append(f"{path}: empty")
            for node in ast.walk(tree):
                raised = node.exc if isinstance(node, ast.Raise) else None
                called = raised.func if isinstance(raised, ast.Call) else raised
                if isinstance(called, ast.Name) and called.id == "NotImplementedError":
                    stubs.append(f"{path}:{node.lineno}")
    assert stubs == []


def test_v10_cut_points_do_not_move_with_the_order_of_the_rows():
    params = cut_points.params(columns=["s"], buckets=20, weigh="tokens")
    schema = pa.schema(list(cut_points.emits_of(params).items()))
    table = pa.table(
        {
            "id": [str(i) for i in range(4000)],
            "s": pa.array([(i * 7919 % 4000) / 4000 for i in range(4000)], pa.float32()),
            "tokens": [i % 50 for i in range(4000)],
        }
    )

    def cuts(pieces):
        emitted = pa.concat_tables([cut_points.emit(piece, params).cast(schema) for piece in pieces])
        return pa.concat_tables(cut_points.settle(iter([emitted.sort_by("key")]), params)).to_pylist()

    backwards = table.take(pa.array(range(3999, -1, -1)))
    assert cuts([table]) == cuts([backwards]) == cuts([table.slice(i, 500) for i in range(0, 4000, 500)])


def test_v11_a_run_that_failed_is_resumed_and_ends_like_one_that_did_not(engine, engines):
    calm = engines("calm")
    for made in (engine, calm):
        rows(made)
    recipe = small(engine, 'judged: {uses: mine.needs_a_file, from: lines, with: {gone: "${here}/there"}}')
    assert engine.run(recipe).code == 1
    engine.write("there", b"")
    calm.write("there", b"")
    resumed = engine.run(recipe)
    assert (resumed.code, resumed.errors) == (0, [])
    assert calm.run(recipe).code == 0
    assert sorted(engine.digests().values()) == sorted(calm.digests().values()), "and in the same order"
