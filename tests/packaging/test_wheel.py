"""What a user gets: the built wheel, in an environment and a folder that know nothing of the repository."""

import json
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = {"pipelines", "stages", "classifiers", "synthetic", "manifests"}
LIGHT = ("pyarrow", "numpy", "duckdb", "numba", "fasttext", "torch", "pydantic")


def run(*command: str | Path, cwd: Path, expect: int = 0) -> str:
    """Output of a command that has to end with this exit code."""
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == expect, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (found,) = folder.glob("gristmill-*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds the wheel, and its dependencies from the environment of the tests.

    A line in a .pth file adds that folder without reading the .pth files in it: the editable install of the repository
    stays out of sight.
    """
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel, cwd=folder)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_the_wheel_holds_code_recipes_sample_model_prompts_and_types(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    files = [
        p.relative_to(ROOT) for room in ROOMS for p in (ROOT / room).rglob("*") if p.is_file() and "__pycache__" not in p.parts
    ]
    assert not {str(p) for p in files} - held
    assert {f"{room}/py.typed" for room in ROOMS} <= held
    assert {"pipelines/recipes/quickstart.yaml", "pipelines/recipes/web.yaml", "pipelines/recipes/sample/sample.warc.gz"} <= held
    assert "classifiers/models/lid.176.ftz" in held


def test_the_wheel_claims_the_five_names_and_no_other(wheel: Path, python: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == ROOMS
    code = "import importlib.metadata as m, json; print(json.dumps(m.packages_distributions()))"
    owners = json.loads(run(python, "-P", "-c", code, cwd=python.parent))
    assert {room: set(owners[room]) for room in ROOMS} == {room: {"gristmill"} for room in ROOMS}


def test_quickstart_runs_from_the_wheel_in_a_foreign_folder_and_a_second_time_for_nothing(python: Path, tmp_path: Path) -> None:
    gristmill = (python, "-P", python.with_name("gristmill"))
    place = run(python, "-P", "-c", "import pipelines; print(pipelines.__file__)", cwd=tmp_path)
    assert not Path(place.strip()).is_relative_to(ROOT)
    first = json.loads(
        run(*gristmill, "run", "quickstart", "--store", "made", "--workers", "2", "--json", cwd=tmp_path).splitlines()[-1]
    )
    again = json.loads(
        run(*gristmill, "run", "quickstart", "--store", "made", "--workers", "1", "--json", cwd=tmp_path).splitlines()[-1]
    )
    assert first["tasks"] > 0
    assert again["tasks"] == 0
    run(*gristmill, "verify", "--store", "made", cwd=tmp_path)
    shards = list((tmp_path / "made" / "objects").glob("shards-*/parts/*.bin"))
    assert shards
    assert all(s.stat().st_size for s in shards)


def test_help_answers_without_importing_anything_heavy() -> None:
    code = (
        "import sys\n"
        "from pipelines.cli import main\n"
        "sys.argv = ['gristmill', '--help']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "print([name for name in LIGHT if name in sys.modules])\n"
    ).replace("LIGHT", repr(LIGHT))
    out = run(sys.executable, "-c", code, cwd=ROOT)
    assert "run" in out
    assert out.splitlines()[-1] == "[]"
