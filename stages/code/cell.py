"""The locked cell in which foreign programs run. Started as a program by `stages.code.sandbox`, never imported.

In (JSON on stdin): `files` (name to text, laid into the cell), `words` (the command), `stdin`, `limits`, `readable` and `brought`
(folders). Out (JSON on
stdout): `status`, `code`, `stdout`, `stderr`, `guards`. Namespaces cut the network, other processes and all file systems off;
an empty tmpfs over /tmp is the only place that can be written, and goes with the cell; limits, Landlock and a filter of system
calls lie over that. A guard that the kernel refuses is reported, and without the guards in NEEDED nothing is run.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import platform
import resource
import signal
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NEEDED = ("network", "files", "processes", "memory", "cpu", "identity")
NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
SPACES = NEWNS | NEWUTS | NEWIPC | NEWPID | NEWNET
REC, PRIVATE, NOSUID, NODEV, BIND = 0x4000, 1 << 18, 2, 4, 0x1000
ROOM = "/tmp"  # noqa: S108 - inside the cell it is an empty file system of its own
SHELF = "/mnt/python"
INSIDE = 1000
LIBC = ctypes.CDLL(None, use_errno=True)

NEWER = (425, 426, 427, 428, 429, 430, 431, 432, 433, 438, 442)
"""Newer system calls, from io_uring_setup on, have one number on every machine."""
# System calls that a program which computes does not need; numbers of x86_64 and aarch64.
DENIED = {
    "x86_64": (
        41, 42, 49, 50, 101, 155, 161, 163, 165, 166, 167, 168, 169, 170, 171, 172, 173, 175, 176, 179, 246, 248, 249,
        250, 272, 298, 303, 304, 308, 310, 311, 312, 313, 320, 321, 323,
        *NEWER,
    ),
    "aarch64": (
        198, 200, 203, 201, 117, 41, 51, 89, 40, 39, 224, 225, 142, 161, 162, 105, 106, 60, 104, 217, 218, 219, 97,
        241, 264, 265, 268, 270, 271, 272, 273, 294, 280, 282,
        *NEWER,
    ),
}  # fmt: skip
"""socket, connect, bind, listen, ptrace, pivot_root, chroot, acct, mount, umount2, swapon, swapoff, reboot, sethostname,
setdomainname, iopl, ioperm, init_module, delete_module, quotactl, kexec_load, add_key, request_key, keyctl, unshare,
perf_event_open, name_to_handle_at, open_by_handle_at, setns, process_vm_readv, process_vm_writev, kcmp, finit_module,
kexec_file_load, bpf, userfaultfd, io_uring, mount API, pidfd_getfd, mount_setattr."""
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CLONE = {"x86_64": (56, 435), "aarch64": (220, 435)}
LANDLOCK_READ = 1 | 4 | 8
"""Execute, read a file, read a folder."""


def check(value: int) -> None:
    """Raise what a C call left in errno."""
    if value < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def mount(source: bytes | None, target: bytes, kind: bytes | None, flags: int, options: bytes | None = None) -> None:
    """The system call of that name."""
    check(LIBC.mount(source, target, kind, flags, options))


def separate() -> bool:
    """Leave all namespaces; whether that was done by privilege and not through a user namespace of our own."""
    if os.geteuid() == 0 and LIBC.unshare(SPACES) == 0:
        return True
    user, group = os.geteuid(), os.getegid()
    check(LIBC.unshare(SPACES | NEWUSER))
    with contextlib.suppress(FileNotFoundError):
        Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{INSIDE} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{INSIDE} {group} 1")
    return False


def furnish(user: int, room_mb: int, brought: str | None) -> None:
    """Everything becomes read-only; an empty room that belongs to `user` lies over /tmp.

    A folder that is brought along can be read under SHELF, wherever it lies: a Python in root's home, for one.
    """
    mount(None, b"/", None, REC | PRIVATE)
    attributes = struct.pack("<QQQQ", 1 | NOSUID, 0, 0, 0)  # MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID
    check(LIBC.syscall(442, -100, b"/", 0x8000, attributes, len(attributes)))
    options = f"size={room_mb}m,nr_inodes=2000,mode=0700,uid={user},gid={user}".encode()
    if brought:
        mount(b"tmpfs", os.path.dirname(SHELF).encode(), b"tmpfs", NOSUID | NODEV, b"size=4k,mode=0755")  # noqa: PTH120
        os.mkdir(SHELF, 0o755)  # noqa: PTH102
        mount(brought.encode(), SHELF.encode(), None, BIND)
    mount(b"tmpfs", ROOM.encode(), b"tmpfs", NOSUID | NODEV, options)


def hide_processes() -> None:
    """A /proc of this cell alone, or none where the kernel will not give one."""
    try:
        mount(b"proc", b"/proc", b"proc", NOSUID | NODEV | 8)
    except OSError:
        mount(b"tmpfs", b"/proc", b"tmpfs", NOSUID | NODEV | 1, b"size=4k")


def become(user: int) -> None:
    """Give up all privileges for good."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def limit(limits: dict[str, int]) -> None:
    """Hard limits; they are inherited and can never be raised again."""
    room = limits["memory_mb"] << 20
    wanted = {
        resource.RLIMIT_AS: room, resource.RLIMIT_CPU: limits["cpu_seconds"], resource.RLIMIT_NPROC: limits["processes"],
        resource.RLIMIT_FSIZE: limits["file_mb"] << 20, resource.RLIMIT_NOFILE: 128, resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0, resource.RLIMIT_MSGQUEUE: 0,
    }  # fmt: skip
    for kind, value in wanted.items():
        resource.setrlimit(kind, (value, value))


def landlock(readable: list[str]) -> None:
    """No file but those below the readable folders and in the room can be opened; no TCP, no signals to others."""
    abi = LIBC.syscall(444, None, 0, 1)
    check(abi)
    every = (1 << {1: 13, 2: 14}.get(abi, 15 if abi < 5 else 16)) - 1
    rules = struct.pack("<QQQ", every, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    rules = rules[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
    ruleset = LIBC.syscall(444, rules, len(rules), 0)
    check(ruleset)
    files = every & ~0b11111111111000  # what only folders can have: reading, making, removing, renaming entries
    allowed = dict.fromkeys(readable, LANDLOCK_READ) | {ROOM: every, "/dev/null": files, "/dev/urandom": 4, "/dev/zero": 4}
    for path, rights in allowed.items():
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
            rights = rights if os.path.isdir(path) else rights & files  # noqa: PTH112, PLW2901
            check(LIBC.syscall(445, ruleset, 1, struct.pack("<QI", rights, descriptor), 0))
            os.close(descriptor)
    check(LIBC.syscall(446, ruleset, 0))
    os.close(ruleset)


def filter_calls() -> None:
    """A seccomp filter: DENIED gives EPERM, clone3 ENOSYS (libraries then take clone), new user namespaces EPERM."""
    machine = platform.machine()
    clone, clone3 = CLONE[machine]
    deny, missing, allow = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS, 0x7FFF0000

    def step(code: int, k: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("<HBBI", code, yes, no, k)

    program = [step(0x20, 4), step(0x15, AUDIT[machine], 1, 0), step(0x06, 0x80000000), step(0x20, 0)]
    program += [step(0x35, 0x40000000, 0, 1), step(0x06, deny)]
    program += [step(0x15, clone3, 0, 1), step(0x06, missing)]
    for number in DENIED[machine]:
        program += [step(0x15, number, 0, 1), step(0x06, deny)]
    program += [step(0x15, clone, 0, 3), step(0x20, 16), step(0x45, NEWUSER | SPACES, 0, 1), step(0x06, deny), step(0x06, allow)]
    code = ctypes.create_string_buffer(b"".join(program))
    check(LIBC.prctl(22, 2, struct.pack("<HxxxxxxQ", len(program), ctypes.addressof(code)), 0, 0))


def attempt(guards: dict[str, str], name: str, act: Callable[[], Any]) -> Any:
    """Do it, and note under `name` whether it was done: "" or the fault."""
    try:
        value = act()
    except (OSError, KeyError, ValueError) as error:
        guards[name] = guards.get(name) or f"{type(error).__name__}: {error}"
        return None
    guards.setdefault(name, "")
    return value


def program(job: dict[str, Any], guards: dict[str, str], user: int | None, report: int, output: tuple[int, int]) -> None:
    """The last steps before the command takes over this process; never returns."""
    check(LIBC.prctl(1, signal.SIGKILL, 0, 0, 0))
    os.setsid()
    if user is not None:
        attempt(guards, "identity", lambda: become(user))
    attempt(guards, "memory", lambda: limit(job["limits"]))
    guards["cpu"] = guards["memory"]
    check(LIBC.prctl(38, 1, 0, 0, 0))
    attempt(guards, "landlock", lambda: landlock(job["readable"]))
    attempt(guards, "syscalls", filter_calls)
    os.write(report, json.dumps(guards).encode())
    if any(guards.get(name, "not tried") for name in NEEDED):
        os._exit(125)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0) if not job["stdin"] else os.dup2(os.open(f"{ROOM}/.stdin", os.O_RDONLY), 0)
    os.dup2(output[0], 1)
    os.dup2(output[1], 2)
    os.closerange(3, 128)
    os.chdir(ROOM)
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": ROOM, "TMPDIR": ROOM, "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0"}
    os.execve(job["words"][0], job["words"], environment)  # noqa: S606 - no shell is wanted


def first(job: dict[str, Any], guards: dict[str, str], user: int | None, report: int, output: tuple[int, int]) -> None:
    """Process number one of the cell: when it ends, the kernel ends everything in the cell."""
    check(LIBC.prctl(1, signal.SIGKILL, 0, 0, 0))
    hide_processes()
    child = os.fork()
    if child == 0:
        try:
            program(job, guards, user, report, output)
        except BaseException as error:
            os.write(output[1], f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(126)
    os.close(report)
    while True:
        pid, status = os.wait()
        if pid == child:
            os._exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


def await_end(pid: int, seconds: float) -> int | None:
    """The exit code; None when it did not come in time and the cell was ended."""
    end = time.monotonic() + seconds
    pause = 0.001
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(pause)
        pause = min(0.02, pause * 1.5)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def lay(job: dict[str, Any], user: int | None) -> None:
    """The files of the job in the room."""
    for name, text in {**job["files"], ".stdin": job["stdin"]}.items():
        path = Path(ROOM) / name
        path.write_text(text, encoding="utf-8", errors="replace")
        if user is not None:
            os.chown(path, user, user)


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Run one job; nothing of it is left afterwards."""
    guards: dict[str, str] = {}
    # A number that nobody has: systemd keeps this range free for services without a name.
    user = 61184 + os.getpid() % 4000
    privileged = attempt(guards, "network", separate)
    guards["processes"] = guards["network"]
    if not privileged:
        guards["identity"] = guards["network"]
    if privileged is not None:
        attempt(guards, "files", lambda: furnish(user if privileged else INSIDE, job["limits"]["room_mb"], job["brought"]))
    if guards.get("files", "not tried") or guards["network"]:
        return {"status": "absent", "code": None, "stdout": "", "stderr": "", "guards": guards}
    lay(job, user if privileged else None)
    output = tuple(os.open(f"{ROOM}/.out{n}", os.O_RDWR | os.O_CREAT | os.O_EXCL) for n in (1, 2))
    for n in (1, 2):
        os.unlink(f"{ROOM}/.out{n}")  # noqa: PTH108
    reading, report = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            first(job, guards, user if privileged else None, report, (output[0], output[1]))
        finally:
            os._exit(127)
    os.close(report)
    code = await_end(pid, job["limits"]["seconds"])
    said = os.read(reading, 1 << 16)
    texts = [os.pread(number, 1 << 20, 0).decode("utf-8", "replace") for number in output]
    status = "timeout" if code is None else "absent" if code == 125 else "ok" if code == 0 else "failed"
    return {"status": status, "code": code, "stdout": texts[0], "stderr": texts[1], "guards": json.loads(said) if said else guards}


if __name__ == "__main__":
    json.dump(run(json.load(sys.stdin)), sys.stdout)
