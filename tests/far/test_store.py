"""Sources, store, output, SQL, status, verify and gc in an object store: the same digests as on a disk."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import Inline

from manifests.catalog import Catalog
from manifests.place import place_of
from manifests.store import Store
from pipelines.executors.local import Local
from pipelines.graph import build
from pipelines.plan import make_plan
from pipelines.recipe import load
from pipelines.run import Run
from pipelines.targets import lay_out
from pipelines.upkeep import collect, status_lines, status_record, verify_store

pytestmark = pytest.mark.far
ROOT = Path(__file__).parents[2]
RECIPE = Path(__file__).with_name("small.yaml")


def inputs(folder: Path) -> Path:
    words = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "it", "rains"]
    for unit in range(3):
        rows = [{"id": f"u{unit}r{i}", "text": " ".join(words[(i * unit) % 7 : 5 + i % 6])} for i in range(20)]
        (folder / f"rows{unit}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.yaml").write_bytes(RECIPE.read_bytes())
    return folder / "recipe.yaml"


def run(recipe: Path, root: str, executor=None, **settings):
    loaded = load(recipe, settings)
    plan = make_plan(lay_out(loaded, build(loaded), Store.open(root)))
    return plan, Run(plan, executor or Inline(), lambda _: None, 0.0).go()


def digests(root: str) -> dict[str, str]:
    place = place_of(root)
    keys = [k for k in place.sizes("objects") if "/parts/" in k]
    return {k: hashlib.sha256(place.read(k)).hexdigest() for k in sorted(keys)}


def test_a_recipe_gives_the_same_bytes_in_an_object_store(s3, tmp_path):
    recipe, root = inputs(tmp_path), s3.root()
    assert run(recipe, str(tmp_path / "store"))[1].code == 0
    assert run(recipe, root)[1].code == 0
    assert digests(root) == digests(str(tmp_path / "store"))
    place = place_of(root)
    assert place.names("spills") == [], "spills are gone when their settle has committed"
    assert place.names("leases") == []
    assert run(recipe, root)[0].actions == (), "a second run does nothing"
    store = Store(root)
    assert verify_store(store, lambda _: None) == 0
    assert any("shards" in line and "done" in line for line in status_lines(status_record(store)))
    assert collect(store, lambda _: None, really=True) == 0
    assert digests(root) == digests(str(tmp_path / "store")), "gc removes nothing that a recipe needs"


def test_a_run_lists_nothing_but_names_of_steps(s3, tmp_path):
    recipe, root = inputs(tmp_path), s3.root()
    before = s3.counts()
    plan, _ = run(recipe, root)
    after = s3.counts()
    spills = 2 + 1  # of twins (emits and verdicts) and shuffled: listed once, to be removed
    assert after.get("LIST", 0) - before.get("LIST", 0) <= spills + 8
    tasks = plan.tasks
    assert after["PUT"] - before["PUT"] < 6 * tasks


def test_sources_are_read_from_an_object_store(s3, tmp_path):
    recipe, root = inputs(tmp_path), s3.root()
    place = place_of(f"{s3.root()}/in")
    for path in tmp_path.glob("rows*.jsonl"):
        place.put(path.name, path.read_bytes())
    plan, result = run(recipe, root, rows=f"{place.root}/rows*.jsonl")
    assert result.code == 0
    target, _ = plan.layout.holder["lines"]
    assert plan.layout.object(target).head(plan.layout.units["lines"])["rows"] == 60
    assert run(recipe, root, rows=f"{place.root}/rows*.jsonl")[0].actions == ()


def test_two_workers_on_an_object_store_that_misbehaves(s3, tmp_path, monkeypatch):
    monkeypatch.setenv("GRISTMILL_STORE_TIMEOUT", "4")  # of the workers
    recipe, root = inputs(tmp_path), s3.root()
    assert run(recipe, str(tmp_path / "store"))[1].code == 0
    s3.faults(rate=0.1, seed=5, kinds=["503", "429", "half", "lost", "slow"], slow=6.0)
    executor = Local(2)
    try:
        _, result = run(recipe, root, executor)
    finally:
        executor.close()
        s3.faults()
    assert result.code == 0, result.errors
    assert digests(root) == digests(str(tmp_path / "store"))


def test_sql_reads_the_store_where_it_is_and_nothing_else(s3, tmp_path):
    recipe, root = inputs(tmp_path), s3.root()
    other = place_of(f"{s3.root()}/private")
    other.put("secret.csv", b"a,b\n1,2\n")
    run(recipe, root)
    run(recipe, str(tmp_path / "store"))
    query = "select count(*), sum(length(text)), min(id) from small.kept"
    far, near = Catalog(Store(root)), Catalog(Store(tmp_path / "store"))
    assert far.run(query).fetchall() == near.run(query).fetchall()
    query = "select step, drop_reason, id from dropped order by all"
    assert far.run(query).fetchall() == near.run(query).fetchall() != []
    query = "select step, unit, rows from shards order by all"
    assert far.run(query).fetchall() == near.run(query).fetchall()
    with pytest.raises(Exception, match="disabled by configuration"):
        far.run(f"select * from read_csv('{other.url('secret.csv')}')").fetchall()


def gristmill(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "pipelines.cli", *words], cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command_runs_there_and_no_key_of_the_user_is_written_anywhere(s3, tmp_path):
    recipe, root = inputs(tmp_path), s3.root()
    done = gristmill("run", str(recipe), "--store", root, "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert f"{root}/objects/shards-" in done.stdout
    status = gristmill("status", "--store", root)
    assert "exit 0" in status.stdout
    assert "20" in gristmill("sql", "--store", root, "select count(*) from small.lines where id like 'u0%'").stdout
    place = place_of(root)
    for key in place.sizes(""):
        assert b"nobody-may-see" not in place.read(key), key
    assert "nobody-may-see" not in done.stdout + done.stderr + status.stdout
