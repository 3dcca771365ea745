"""Run a foreign program in a locked cell: no network, no file but its own, little memory and time, and nothing left behind.

Guards, and what each needs: `network`, `processes`, `files` (namespaces: root, or user namespaces for a plain user),
`identity` (as root: a user number that nobody has; else a user namespace), `memory` and `cpu` (resource limits). These six must
hold or nothing runs: the status is then `absent` and names the guard. `landlock` (Linux 5.13) and `syscalls` (seccomp; x86_64
and aarch64) lie over them where the kernel has them, and `guards` says so.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field

from stages.contract import Params

CELL = Path(__file__).with_name("cell.py")
Status = Literal["ok", "failed", "timeout", "absent"]


class Limits(Params):
    """What a program may use."""

    seconds: float = Field(10.0, gt=0, le=600, description="Longest time on the clock.")
    cpu_seconds: int = Field(10, ge=1, description="CPU seconds of each process.")
    memory_mb: int = Field(512, ge=64, description="Address space of each process.")
    processes: int = Field(16, ge=1, description="Processes and threads at a time.")
    file_mb: int = Field(8, ge=1, description="Largest file, output included.")
    room_mb: int = Field(64, ge=1, description="Size of the only folder that can be written; it lies in memory.")


USUAL = Limits.model_validate({})


class Ran(NamedTuple):
    """What became of a program."""

    status: Status
    code: int | None
    stdout: str
    stderr: str
    guards: Mapping[str, str]
    """Guard to "" where it held, to the fault where the kernel refused it."""

    @property
    def absent(self) -> list[str]:
        """Guards that did not hold."""
        return sorted(name for name, fault in self.guards.items() if fault)


SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/etc/alternatives", "/etc/ld.so.cache")
SHELF = "/mnt/python"


@functools.cache
def brought() -> str | None:
    """This Python's own folder, where it does not belong to the system: it is shown in the cell under SHELF."""
    return None if Path(sys.base_prefix).is_relative_to("/usr") else sys.base_prefix


@functools.cache
def readable() -> tuple[str, ...]:
    """Folders that programs may read: the system's programs and libraries, and this Python."""
    return tuple(path for path in SYSTEM if Path(path).exists()) + ((SHELF,) if brought() else ())


def python() -> list[str]:
    """The command of a bare Python: standard library only, no site, no environment."""
    program = Path(sys.executable).resolve()
    home = brought()
    place = Path(SHELF) / program.relative_to(home) if home else program
    return [str(place), "-I", "-S", "-B"]


def run(words: Sequence[str], files: Mapping[str, str], limits: Limits, stdin: str = "") -> Ran:
    """Run a command with these files in its folder. Nothing that it does outlives the call."""
    job = {
        "words": list(words), "files": dict(files), "stdin": stdin, "limits": limits.model_dump(), "readable": readable(),
        "brought": brought(),
    }  # fmt: skip
    command = [sys.executable, "-I", "-S", "-B", str(CELL)]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(job).encode(),
            capture_output=True,
            timeout=limits.seconds + 30,
            check=False,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        # The cell dies with its keeper: process one of it asked the kernel to be killed then.
        return Ran("timeout", None, "", "", {})
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        return Ran("absent", None, "", "", {"cell": said[-1] if said else f"ended with {done.returncode}"})
    found = json.loads(done.stdout)
    return Ran(found["status"], found["code"], found["stdout"], found["stderr"], found["guards"])
