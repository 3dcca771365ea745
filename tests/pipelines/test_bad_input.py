"""Bad input, by name: one clear line that names place, fault and way out; the right exit code; no traceback; nothing lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from manifests.store import Journal, Store, StoreError

ROOT = Path(__file__).parents[2]
GOOD = """name: small
steps:
  lines: {uses: stages.ingest.jsonl.rows, with: {paths: "${here}/rows.jsonl", columns: {id: id, text: text}}}
  fixed: {uses: stages.clean.unicode.repair, from: lines}
"""
BROKEN = {
    "unknown stage": (GOOD.replace("unicode.repair", "unicode.repar"), "recipe.yaml:4: unknown stage", "did you mean stages.clean.unicode.repair?"),
    "unknown module": (GOOD.replace("clean.unicode", "clean.unicod"), "recipe.yaml:4: unknown stage", "did you mean stages.clean.unicode.repair?"),
    "unknown key": (GOOD.replace("from: lines", "form: lines"), "recipe.yaml:4: step 'fixed': unknown key 'form'", "did you mean 'from'?"),
    "unknown top key": (GOOD + "pubish: {}\n", "recipe.yaml:5", "did you mean 'publish'?"),
    "unknown parameter": (GOOD.replace("from: lines", "from: lines, with: {normalize: x}"), "has no parameter 'normalize'", "did you mean 'normalization'?"),
    "unknown parent": (GOOD.replace("from: lines", "from: line"), "from names unknown step 'line'", "did you mean 'lines'?"),
    "itself": (GOOD.replace("from: lines", "from: fixed"), "from names itself", "lines"),
    "cycle": (
        GOOD.replace("from: lines", "from: again") + "  again: {uses: stages.clean.unicode.repair, from: fixed}\n",
        "the steps form a circle: fixed -> again -> fixed", "take one 'from' out",
    ),
    "missing column": (
        GOOD + "  text: {uses: stages.extract.resiliparse.main_text, from: fixed}\n", "reads the column 'html'", "which no step before it writes",
    ),
    "wrong type": (
        GOOD + "  some: {uses: stages.sample.by_hash, from: fixed, with: {share: much}}\n", "step 'some': share: Input should be a valid number",
        "got 'much'",
    ),
    "key twice": (GOOD.replace("from: lines", "from: lines, from: lines"), "the key 'from' is there twice", "line 4"),
    "not yaml": ("name: [small\n", "recipe.yaml:", "not valid YAML"),
    "empty": ("", "the recipe is empty", "it needs at least 'name' and 'steps'"),
    "bad name": (GOOD.replace("name: small", "name: Small-1"), "'Small-1' must match", "[a-z]"),
    "missing file": (GOOD.replace("rows.jsonl", "gone.jsonl"), "recipe.yaml:3: step 'lines'", "gone.jsonl"),
    "empty glob": (GOOD.replace("rows.jsonl", "*.parquet"), "recipe.yaml:3: step 'lines'", "*.parquet"),
    "no environment": (GOOD.replace("${here}/rows.jsonl", "${env:NO_SUCH_THING}"), "the environment variable NO_SUCH_THING is not set", ":3"),
    "unknown reference": (GOOD.replace("${here}", "${heer}"), "${heer} is not in 'params'", "here"),
    "missing json field": (GOOD.replace("text: text", "text: body"), "", "body"),
    "source with from": (GOOD.replace("rows, with", "rows, from: fixed, with"), "", "circle"),
    "no from": (GOOD.replace(", from: lines", ""), "step 'fixed' has no 'from'", "reads the rows of another step"),
    "publish nothing": (GOOD + "publish: {out: fixd}\n", "publish 'out' names step 'fixd'", "did you mean 'fixed'?"),
    "executor": (GOOD + "run: {executor: slurm}\n", "run.executor is 'slurm'", "local"),
    "bad where": (GOOD.replace("from: lines", "from: lines, where: 'text ='"), "where: expected a value at 'the end'", "recipe.yaml:4"),
}  # fmt: skip


def command(*words: str, cwd: Path, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *words], cwd=cwd, capture_output=True, text=True, check=False, timeout=timeout,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"id": "r{i}", "text": "text number {i}"}}\n' for i in range(20)))
    return tmp_path


@pytest.fixture
def verb():
    """The command in this process: what the shell sees, without starting Python for each case."""
    from typer.testing import CliRunner

    from pipelines.cli import app

    return lambda *words: CliRunner().invoke(app, list(words))


@pytest.mark.parametrize("case", [c for c in BROKEN if c != "missing json field"])
def test_a_broken_recipe_is_refused_before_anything_runs(folder, verb, case):
    text, fault, way_out = BROKEN[case]
    (folder / "recipe.yaml").write_text(text)
    done = verb("run", str(folder / "recipe.yaml"), "--store", str(folder / "store"))
    assert done.exit_code == 2, done.output
    assert fault in done.output
    assert way_out in done.output
    assert "Traceback" not in done.output
    assert done.output.strip().count("\n") == 0, "one line"
    assert not (folder / "store" / "objects").exists()


def test_a_missing_field_names_those_present(folder, verb):
    (folder / "recipe.yaml").write_text(BROKEN["missing json field"][0])
    done = verb("run", str(folder / "recipe.yaml"), "--store", str(folder / "store"))
    assert done.exit_code in (1, 2, 3)
    assert "body" in done.output
    assert "Traceback" not in done.output


def test_a_setting_that_the_recipe_does_not_have_is_refused(folder, verb):
    (folder / "recipe.yaml").write_text("name: small\nparams: {dump: x}\n" + GOOD.split("\n", 1)[1])
    done = verb("plan", str(folder / "recipe.yaml"), "--store", str(folder / "s"), "--set", "dmp=y")
    assert done.exit_code == 2
    assert "did you mean 'dump'?" in done.output


def test_a_store_of_a_newer_layout_is_refused(folder, verb):
    (folder / "recipe.yaml").write_text(GOOD)
    store = folder / "store"
    store.mkdir()
    (store / "format.json").write_text('{"version": 99}')
    done = verb("run", str(folder / "recipe.yaml"), "--store", str(store))
    assert done.exit_code == 1
    assert "layout 99" in done.output
    assert "use the gristmill that wrote it" in done.output


def test_a_folder_that_is_something_else_is_not_taken_for_a_store(folder, verb):
    (folder / "recipe.yaml").write_text(GOOD)
    done = verb("run", str(folder / "recipe.yaml"), "--store", str(folder))
    assert done.exit_code == 1
    assert "not empty and not a gristmill store" in done.output


def test_a_bucket_that_cannot_be_read_is_named(folder, verb, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    (folder / "recipe.yaml").write_text(GOOD.replace("${here}/rows.jsonl", "memory://no-such-bucket/rows*.jsonl"))
    done = verb("plan", str(folder / "recipe.yaml"), "--store", str(folder / "s"))
    assert done.exit_code == 2
    assert "no-such-bucket" in done.output
    assert "Traceback" not in done.output


def test_an_input_without_a_single_record_is_said_out_loud(folder, verb):
    (folder / "rows.jsonl").write_text("")
    (folder / "recipe.yaml").write_text(GOOD)
    done = verb("run", str(folder / "recipe.yaml"), "--store", str(folder / "store"))
    assert "step 'lines': its input holds no records at all; check its paths" in done.output


def test_two_runs_never_write_the_same_object(folder, verb):
    recipe = folder / "recipe.yaml"
    recipe.write_text(GOOD)
    assert verb("run", str(recipe), "--store", str(folder / "other")).exit_code == 0
    address = next((folder / "other" / "objects").iterdir()).name
    store = Store.open(folder / "store")
    held = Journal(store.object(address))
    with pytest.raises(StoreError, match="another run"):
        Journal(store.object(address))
    done = verb("run", str(recipe), "--store", str(folder / "store"))
    assert done.exit_code == 1
    assert f"another run (process {os.getpid()}) is writing here" in done.output
    held.close()
    assert verb("run", str(recipe), "--store", str(folder / "store")).exit_code == 0


def test_a_full_disk_stops_the_run_with_a_way_on(folder, verb, monkeypatch):
    import shutil
    from types import SimpleNamespace

    (folder / "recipe.yaml").write_text(GOOD)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(total=100, used=99, free=1 << 20))
    done = verb("run", str(folder / "recipe.yaml"), "--store", str(folder / "store"))
    assert done.exit_code == 1
    assert "free some space" in done.output
    monkeypatch.undo()
    assert verb("run", str(folder / "recipe.yaml"), "--store", str(folder / "store")).exit_code == 0


SLOW = """
import time, os, signal
import pyarrow as pa
from pydantic import Field
from stages.contract import TEXT, Params, map_stage

class How(Params):
    mode: str = Field("sleep", description="what to do on the poison row")

@map_stage(version=1, reads={"text": TEXT}, writes={"seen": pa.bool_()}, seconds_per_row=0.4)
def slow(batch, params: How):
    for text in batch["text"].to_pylist():
        if text == "text number 7" and params.mode == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if text == "text number 7" and params.mode == "hang":
            time.sleep(60)
        if text == "text number 7" and params.mode == "eat":
            hoard = [bytearray(64 << 20) for _ in range(64)]
            for block in hoard:
                block[::4096] = b"x" * len(block[::4096])
            time.sleep(2)
        if params.mode == "sleep":
            time.sleep(0.02)
    return pa.table({"seen": pa.array([True] * batch.num_rows)})
"""


@pytest.mark.parametrize(("mode", "why"), [("die", "crashed (SIGKILL)"), ("hang", "took longer than"), ("eat", "used")])
def test_a_row_that_breaks_its_worker_is_quarantined_and_the_rest_goes_on(folder, mode, why):
    (folder / "mine.py").write_text(SLOW if mode == "hang" else SLOW.replace("seconds_per_row=0.4", "seconds_per_row=30.0"))
    recipe = (
        GOOD
        + f"  slow: {{uses: mine.slow, from: fixed, with: {{mode: {mode}}}}}\nrun: {{max_error_rate: 0.1, memory_per_worker: 1500000000}}\n"
    )
    (folder / "recipe.yaml").write_text(recipe)
    done = command("run", str(folder / "recipe.yaml"), "--store", "store", "--workers", "1", cwd=folder, timeout=110)
    assert done.returncode == 0, done.stderr
    assert why in done.stderr
    assert "resource_limited" in done.stderr
    assert "tried again: " in done.stderr
    runs = json.loads(command("status", "--store", "store", "--json", cwd=folder).stdout)["runs"]
    assert runs[-1]["setbacks"][-1].endswith("in step 'slow' at row 7, batch of 1")
    asked = command("sql", "--store", "store", "--json", "select id, reason from quarantine", cwd=folder)
    assert '"r7"' in asked.stdout
    assert why in asked.stdout
    assert '"n": 19' in command("sql", "--store", "store", "--json", "select count(*) n from small.slow", cwd=folder).stdout


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_once_drains_and_twice_stops_and_both_resume(folder, times):
    (folder / "mine.py").write_text(SLOW)
    for i in range(12):
        (folder / f"part{i}.jsonl").write_text("".join(f'{{"id": "p{i}r{j}", "text": "{j} words"}}\n' for j in range(40)))
    recipe = GOOD.replace("rows.jsonl", "part*.jsonl") + "  slow: {uses: mine.slow, from: fixed}\n"
    (folder / "recipe.yaml").write_text(recipe)
    words = [sys.executable, "-m", "pipelines.cli", "run", str(folder / "recipe.yaml"), "--store", "store", "--workers", "2"]
    run = subprocess.Popen(words, cwd=folder, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    for _ in range(600):
        if list((folder / "store").glob("objects/*/parts/*")):
            break
        time.sleep(0.05)
    for _ in range(times):
        run.send_signal(signal.SIGINT)
        time.sleep(0.3)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 130, said
    assert "interrupted; what was finished is kept" in said
    assert "to go on:" in said
    assert "Traceback" not in said
    parts = len(list((folder / "store").glob("objects/*/parts/*.parquet")))
    assert 1 <= parts < 12
    again = command("run", str(folder / "recipe.yaml"), "--store", "store", cwd=folder)
    assert again.returncode == 0, again.stderr
    assert '"n": 480' in command("sql", "--store", "store", "--json", "select count(*) n from small.slow", cwd=folder).stdout


def test_a_stage_runs_on_files_without_a_recipe(folder):
    done = command("step", "stages.clean.unicode.repair", "rows.jsonl", "--out", "fixed.parquet", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "20 rows, 20 of them kept" in done.stderr
    wrong = command("step", "stages.clean.unicode.repair", "gone.jsonl", "--out", "x.parquet", cwd=folder)
    assert (wrong.returncode, "gone.jsonl: no such file" in wrong.stderr) == (2, True)
    column = command("step", "stages.extract.resiliparse.main_text", "rows.jsonl", "--out", "x.parquet", cwd=folder)
    assert column.returncode == 2
    assert "reads the column 'html'; there are: id, text" in column.stderr


def test_verify_finds_a_flipped_byte(folder, verb):
    (folder / "recipe.yaml").write_text(GOOD)
    store = folder / "store"
    assert verb("run", str(folder / "recipe.yaml"), "--store", str(store)).exit_code == 0
    assert verb("verify", "--store", str(store)).exit_code == 0
    part = next(store.glob("objects/*/parts/*.parquet"))
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(bytes(data))
    done = verb("verify", "--store", str(store))
    assert done.exit_code == 1
    assert "other content than was written" in done.output
