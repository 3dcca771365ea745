"""Forty prepared rewrites, each judged right; and nothing gets out of the cell."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from stages.code import sandbox, trial, verify
from stages.code.linter import Linter, Pylint
from stages.contract import TEXT

CASES = yaml.safe_load(Path(__file__).with_name("rewrites.yaml").read_text(encoding="utf-8"))["cases"]
QUICK = sandbox.Limits(seconds=6, cpu_seconds=6)
SYSTEM_PYTHON = Path("/usr/bin/python3")


@pytest.fixture(scope="module")
def linter() -> Iterator[Linter]:
    made = Linter(Pylint())
    yield made
    made.close()


@pytest.fixture(scope="module")
def cell() -> sandbox.Ran:
    """What the cell is here; tests that need it are skipped where the kernel gives none, and say what is missing."""
    ran = sandbox.run([*sandbox.python(), "main.py"], {"main.py": "print('in')"}, QUICK)
    if ran.status == "absent":
        pytest.skip(f"no safe cell here: {dict(ran.guards)}")
    assert (ran.status, ran.stdout) == ("ok", "in\n"), ran
    return ran


def test_there_are_forty_of_them() -> None:
    assert len(CASES) == 40
    assert sum(case["expected"] is None for case in CASES) >= 8


@pytest.mark.parametrize("case", [c for c in CASES if "needs" not in c], ids=lambda c: c["name"])
def test_a_prepared_rewrite_is_judged_right_without_running_it(linter: Linter, case: dict[str, Any]) -> None:
    if case.get("language") == "C++" and verify.compiler() is None:
        pytest.skip("g++ is not installed")
    found = verify.judge(case["text"], case["source"], verify.Verify(language=case.get("language", "Python")), linter)
    assert found.reason == case["expected"], found


@pytest.mark.parametrize("case", [c for c in CASES if "needs" in c], ids=lambda c: c["name"])
def test_a_prepared_rewrite_is_judged_right_by_running_it(linter: Linter, cell: sandbox.Ran, case: dict[str, Any]) -> None:
    if case.get("language") == "C++" and verify.compiler() is None:
        pytest.skip("g++ is not installed")
    params = verify.Verify(language=case.get("language", "Python"), execute="when_possible", limits=QUICK, not_below_source=False)
    found = verify.judge(case["text"], case["source"], params, linter)
    assert found.reason == case["expected"], found
    assert (found.compared > 0) == (found.reason is None)


def frame(*pairs: tuple[str, str]) -> pa.Table:
    return pa.table({"text": pa.array([p[0] for p in pairs], TEXT), "source_text": pa.array([p[1] for p in pairs], TEXT)})


def test_rejected_rewrites_keep_their_source_and_name_the_reason(linter: Linter) -> None:
    by_name = {case["name"]: case for case in CASES}
    good, bad = by_name["documented and typed"], by_name["another package"]
    rows = frame((good["text"], good["source"]), (bad["text"], bad["source"]))
    kept = verify.rewrites(rows, verify.Verify(), model=linter).to_pylist()
    assert [(row["text"], row["accepted"], row["rejected"], row["drop_reason"]) for row in kept] == [
        (good["text"], True, None, None), (bad["source"], False, "new_imports", None),
    ]  # fmt: skip
    assert kept[1]["rejected_because"] == "numpy"
    assert kept[0]["score_rewrite"] == 10
    assert kept[0]["score_source"] < 10
    dropped = verify.rewrites(rows, verify.Verify(rejected="drop"), model=linter).to_pylist()
    assert [row["drop_reason"] for row in dropped] == [None, "new_imports"]
    allowed = verify.rewrites(rows, verify.Verify(packages=("numpy",)), model=linter).to_pylist()
    assert allowed[1]["rejected"] is None


def test_a_minimum_may_be_asked_for(linter: Linter) -> None:
    rows = frame(("def f(a):\n    return undefined_thing(a) + 1\n", "def f(a): return undefined_thing(a)\n"))
    assert verify.rewrites(rows, verify.Verify(), model=linter)["rejected"].to_pylist() == [None]
    assert verify.rewrites(rows, verify.Verify(min_score=7.0), model=linter)["rejected"].to_pylist() == ["lint_below_minimum"]


def test_what_cannot_be_checked_is_reported_as_absent(linter: Linter, monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(c for c in CASES if c["name"] == "a good translation")
    monkeypatch.setattr(verify, "compiler", lambda: None)
    found = verify.judge(case["text"], case["source"], verify.Verify(language="C++"), linter)
    assert (found.reason, found.absent) == (None, ("g++: not on the PATH",))
    case = next(c for c in CASES if c["name"] == "by a counter")
    gone = sandbox.Ran("absent", None, "", "", {"network": "PermissionError: [Errno 1] Operation not permitted", "cpu": ""})
    monkeypatch.setattr(sandbox, "run", lambda *_: gone)
    found = verify.judge(case["text"], case["source"], verify.Verify(execute="when_possible"), linter)
    assert (found.reason, found.absent) == (None, ("execution: a guard of the cell does not hold (network)",))


SAYS_LITTLE = {
    "nothing is done": "def f(a):\n    pass\n",
    "always the same value": "def f(a):\n    return 7\n",
    "always the same words": "def f(a):\n    print('hello')\n",
}
SAYS_MUCH = {
    "a value": "def f(a):\n    return [a]\n",
    "printed words": "def f(a):\n    print(a)\n",
    "work on its argument": "def f(a: list):\n    a.append(1)\n",
    "a constant that nothing is given to": "def f():\n    return 7\n",
}


@pytest.mark.parametrize("name", [*SAYS_LITTLE, *SAYS_MUCH])
def test_equal_is_what_does_something_and_does_it_again(cell: sandbox.Ran, name: str) -> None:
    source = SAYS_LITTLE.get(name) or SAYS_MUCH[name]
    found = trial.compare(source, "# the same\n" + source, QUICK)
    assert (found.verdict, found.compared > 0) == (("nothing", False) if name in SAYS_LITTLE else ("equal", True)), found


@pytest.mark.parametrize("name", SAYS_LITTLE)
def test_what_says_little_still_tells_a_difference(cell: sandbox.Ran, name: str) -> None:
    found = trial.compare(SAYS_LITTLE[name], "def f(a):\n    return [a]\n", QUICK)
    assert found.verdict == "different", found


ESCAPES = {
    "write outside": "open('{victim}/new', 'w')",
    "overwrite": "open('{victim}/kept.txt', 'w')",
    "remove": "import os; os.unlink('{victim}/kept.txt')",
    "rename": "import os; os.rename('{victim}', '/tmp/{mark}')",
    "change rights": "import os; os.chmod('{victim}', 0o777)",
    "read": "print(open('{victim}/kept.txt').read())",
    "read accounts": "print(open('/etc/shadow').read())",
    "list": "import os; print(os.listdir('{victim}'))",
    "connect": "import socket; socket.create_connection(('127.0.0.1', {port}), 2)",
    "unix socket": "import socket; socket.socket(socket.AF_UNIX).connect('/run/x')",
    "kill the parent": "import os; os.kill(os.getppid(), 9); os.kill(-1, 9); raise SystemExit(3)",
    "become root": "import os; os.setuid(0)",
    "mount": "import ctypes; l = ctypes.CDLL(None); raise SystemExit(3 if l.mount(b'x', b'/tmp', b'tmpfs', 0, 0) else 0)",
    "new namespace": "import ctypes; l = ctypes.CDLL(None); raise SystemExit(3 if l.unshare(0x10000000) else 0)",
    "trace": "import ctypes; l = ctypes.CDLL(None); raise SystemExit(3 if l.ptrace(16, 1, 0, 0) else 0)",
    "raise a limit": "import resource; resource.setrlimit(resource.RLIMIT_NPROC, (99, 99))",
    "fill the disk": "for n in range(50): open(f'{mark}-{{n}}', 'wb').write(bytes(7_000_000))",
    "large file": "open('{mark}', 'wb').write(bytes(20_000_000))",
    "memory": "x = bytearray(2_000_000_000)",
    "processes": "import os\nfor n in range(40):\n    if not os.fork():\n        import time; time.sleep(30)",
}


@pytest.mark.parametrize("name", ESCAPES)
def test_nothing_gets_out_of_the_cell(cell: sandbox.Ran, tmp_path: Path, name: str) -> None:
    (tmp_path / "kept.txt").write_text("kept")
    tmp_path.chmod(0o755)
    mark = f"escaped-{os.getpid()}"
    code = ESCAPES[name].format(victim=tmp_path, port=9, mark=mark)
    ran = sandbox.run([*sandbox.python(), "main.py"], {"main.py": code}, QUICK)
    assert ran.status in ("failed", "timeout"), ran
    assert "kept" not in ran.stdout
    assert (tmp_path / "kept.txt").read_text() == "kept"
    assert sorted(os.listdir(tmp_path)) == ["kept.txt"]
    assert not [name for name in os.listdir("/tmp") if name.startswith(mark)], "the room of the cell is not our /tmp"


def test_a_server_outside_hears_nothing(cell: sandbox.Ran) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        code = ESCAPES["connect"].format(port=server.getsockname()[1])
        assert sandbox.run([*sandbox.python(), "main.py"], {"main.py": code}, QUICK).status == "failed"
        with pytest.raises(TimeoutError):
            server.accept()


def test_processes_end_with_their_cell(cell: sandbox.Ran) -> None:
    mark = f"left-behind-{os.getpid()}"
    code = f"import os, sys, time\nif not os.fork():\n    os.setsid()\n    os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(60)', '{mark}'])\ntime.sleep(0.3)\nprint('done')"
    assert sandbox.run([*sandbox.python(), "main.py"], {"main.py": code}, QUICK).stdout == "done\n"
    time.sleep(0.2)
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [c for c in commands if mark.encode() in c and b"-c" in c]


def test_output_and_time_are_bounded(cell: sandbox.Ran) -> None:
    loop = sandbox.run(
        [*sandbox.python(), "main.py"], {"main.py": "while True: print('x' * 1000)"}, sandbox.Limits(seconds=3, cpu_seconds=3)
    )
    assert loop.status in ("failed", "timeout")
    assert len(loop.stdout) <= 1 << 20
    stdin = sandbox.run([*sandbox.python(), "main.py"], {"main.py": "print(input()[::-1])"}, QUICK, "abc\n")
    assert stdin.stdout == "cba\n"


def test_a_plain_user_gets_the_same_cell(cell: sandbox.Ran, tmp_path: Path) -> None:
    """User namespaces stand in for privilege. Where they are forbidden the report says so and nothing runs."""
    if os.geteuid() or not SYSTEM_PYTHON.exists() or shutil.which("setpriv") is None:
        pytest.skip("needs root, setpriv and a Python of the system to become somebody else")
    program = Path("/var/tmp") / f"cell-{os.getpid()}.py"
    program.write_bytes(sandbox.CELL.read_bytes())
    program.chmod(0o755)
    code = "import os, socket\nprint(os.getuid(), os.listdir('/tmp'))\ntry:\n    socket.socket()\nexcept OSError as error:\n    print(error)\nopen('/var/tmp/escaped', 'w')"
    job = {
        "words": [str(SYSTEM_PYTHON), "-I", "-S", "main.py"], "files": {"main.py": code}, "stdin": "", "brought": None,
        "readable": [p for p in sandbox.SYSTEM if Path(p).exists()], "limits": QUICK.model_dump(),
    }  # fmt: skip
    try:
        words = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", str(SYSTEM_PYTHON), "-I", "-S", "-B", str(program)]
        done = subprocess.run(words, input=json.dumps(job).encode(), capture_output=True, check=True)
    finally:
        program.unlink()
    found = json.loads(done.stdout)
    if found["status"] == "absent":
        assert any(found["guards"].values()), "a missing guard is named"
        return
    assert found["stdout"].startswith("1000 ['.stdin', 'main.py']\n[Errno 1] Operation not permitted")
    assert found["status"] == "failed"
    assert not Path("/var/tmp/escaped").exists()


def test_without_a_needed_guard_nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Under a filter that forbids namespaces, as many containers have: the report names the guards."""
    wrapper = (
        "import ctypes, json, runpy, struct, sys\n"
        "code = struct.pack('<HBBI', 0x20, 0, 0, 0) + struct.pack('<HBBI', 0x15, 0, 1, 272) + struct.pack('<HBBI', 6, 0, 0, 0x50001)"
        " + struct.pack('<HBBI', 6, 0, 0, 0x7fff0000)\n"
        "buffer = ctypes.create_string_buffer(code)\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.prctl(38, 1, 0, 0, 0)\n"
        "assert libc.prctl(22, 2, struct.pack('<HxxxxxxQ', 4, ctypes.addressof(buffer)), 0, 0) == 0\n"
        f"runpy.run_path({str(sandbox.CELL)!r}, run_name='__main__')\n"
    )
    if os.uname().machine != "x86_64":
        pytest.skip("the filter is written for x86_64")
    (tmp_path / "wrapped.py").write_text(wrapper)
    monkeypatch.setattr(sandbox, "CELL", tmp_path / "wrapped.py")
    ran = sandbox.run([*sandbox.python(), "main.py"], {"main.py": "print('ran')"}, QUICK)
    assert ran.status == "absent"
    assert "network" in ran.absent
    assert ran.stdout == ""
    assert trial.compare("def f(a):\n    return a\n", "def f(a):\n    return a + 0\n", QUICK).verdict == "absent"


def test_inputs_follow_annotations_and_are_always_the_same() -> None:
    import ast

    (node,) = ast.parse("def f(a: list[int], b: str, c=3):\n    return a").body
    assert isinstance(node, ast.FunctionDef)
    drawn = trial.inputs(node, "seed")
    assert drawn == trial.inputs(node, "seed")
    assert all(len(given) == 2 and isinstance(given[0], list) and isinstance(given[1], str) for given in drawn)
    assert len(drawn) > 10
    assert sys.version_info >= (3, 11)
