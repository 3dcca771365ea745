"""Trees of files as a code source sees them: git repositories at a commit, folders, tar archives.

A tree lists its files in order with sizes and reads their content. Nothing is unpacked or checked out, no link is followed,
no hook, filter or setting of a repository runs: git is asked for objects only, with system and user settings shut out.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from stages.ingest import files

ARCHIVE = re.compile(r"\.(?:tar(?:\.(?:gz|bz2|xz|zst|zstd))?|tgz|tbz2|txz)$", re.IGNORECASE)
BROKEN = (tarfile.TarError, EOFError, OSError)
"""What reading a damaged archive raises."""
GIT = ("git", "-c", "safe.directory=*", "-c", "core.quotepath=off", "-c", "protocol.allow=never")
GIT_ENVIRONMENT = {
    "PATH": os.environ.get("PATH", os.defpath), "HOME": "/nonexistent", "LC_ALL": "C", "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull, "GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a tree. `fault` says why it is no source file: symlink, submodule, special; or broken, where an archive ends."""

    path: str
    size: int
    where: str
    fault: str = ""


class Tree(Protocol):
    """What the three kinds share; `name` is the path under the source root, `commit` None outside git."""

    name: str
    path: str
    commit: str | None

    def entries(self) -> list[Entry]:
        """All files, in an order that depends on nothing but the tree."""
        ...

    def read(self, entries: Sequence[Entry], limit: int) -> Iterator[bytes]:
        """The first `limit` bytes of each of these files, which stand in the order of `entries()`."""
        ...

    def witness(self) -> str:
        """Equal while the content is."""
        ...


def find(patterns: list[str] | str, commit: str) -> list[Tree]:
    """The trees that patterns name, sorted by name: every match is a repository, a folder or a tar archive.

    ValueError for a pattern without a match, for a file that is no tar archive, and for two trees of one name.
    """
    found: dict[str, Tree] = {}
    for pattern in files.listed(patterns):
        matches = list(_matches(pattern))
        if not matches:
            raise ValueError(f"no folder, repository or tar archive matches {pattern!r}")
        for name, path in matches:
            tree = open_tree(name, path, commit)
            other = found.setdefault(tree.name, tree)
            if other.path != path:
                raise ValueError(f"two inputs are called {tree.name!r}: {other.path} and {path}; names are identities")
    return [found[name] for name in sorted(found)]


def _matches(pattern: str) -> Iterator[tuple[str, str]]:
    pattern = os.path.expanduser(pattern.rstrip("/") or "/")  # noqa: PTH111 - a pattern, not a path yet
    parts = pattern.split("/")
    plain = next((n for n, part in enumerate(parts) if files.WILD.search(part)), len(parts) - 1)
    root = Path("/".join(parts[:plain]) or ("/" if pattern.startswith("/") else "."))
    for path in sorted(root.glob("/".join(parts[plain:]))) if parts[plain:] != ["."] else [root]:
        name = path.relative_to(root).as_posix()
        yield path.resolve().name if name == "." else name, str(path)


def open_tree(name: str, path: str, commit: str) -> Tree:
    """The repository, folder or archive at a path. ValueError for what is none of them, and for a commit that is not there."""
    if not Path(path).is_dir():
        if ARCHIVE.search(path):
            return Archive(name, path)
        raise ValueError(f"{path} is neither a folder nor a tar archive; single files are read by stages.ingest.jsonl and .parquet")
    bare = all((Path(path) / part).exists() for part in ("HEAD", "objects", "refs"))
    if bare or (Path(path) / ".git").exists():
        return Repository(name, path, commit)
    return Folder(name, path)


class Repository:
    """A git repository, bare or checked out, at a commit. The working tree is never read: uncommitted files are not there."""

    def __init__(self, name: str, path: str, revision: str) -> None:
        self.name, self.path = name.removesuffix(".git"), path
        done = self._git("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
        self.commit: str | None = done.decode().strip()

    def _git(self, *words: str) -> bytes:
        done = subprocess.run([*GIT, "-C", self.path, *words], capture_output=True, check=False, env=GIT_ENVIRONMENT)
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise ValueError(f"{self.path}: git {words[0]} failed: {said[-1] if said else 'no message'}")
        return done.stdout

    def entries(self) -> list[Entry]:
        """Files of the commit, in git's own order."""
        found = []
        for line in self._git("ls-tree", "-r", "-z", "--long", "--full-tree", str(self.commit)).split(b"\0")[:-1]:
            facts, _, raw = line.partition(b"\t")
            mode, kind, oid, size = facts.split()
            fault = "submodule" if kind == b"commit" else "symlink" if mode == b"120000" else ""
            path = raw.decode("utf-8", "surrogateescape").encode("utf-8", "backslashreplace").decode()
            found.append(Entry(path, 0 if size == b"-" else int(size), oid.decode(), fault))
        return found

    def read(self, entries: Sequence[Entry], limit: int) -> Iterator[bytes]:
        """Contents, by one `git cat-file` process."""
        words = [*GIT, "-C", self.path, "cat-file", "--batch"]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=GIT_ENVIRONMENT) as process:
            ask, answer = cast("BinaryIO", process.stdin), cast("BinaryIO", process.stdout)
            for entry in entries:
                ask.write(entry.where.encode() + b"\n")
                ask.flush()
                head = answer.readline().split()
                if len(head) != 3:
                    raise OSError(f"{self.path}: git cannot read {entry.path} ({entry.where})")
                yield _first(answer, int(head[2]), limit)
                answer.read(1)
            ask.close()

    def witness(self) -> str:
        """The commit itself."""
        return f"git:{self.commit}"


def _first(file: BinaryIO, size: int, limit: int) -> bytes:
    """The first bytes of an object; the rest is read and forgotten."""
    head = file.read(min(size, limit))
    left = size - len(head)
    while left > 0 and (piece := file.read(min(left, 1 << 20))):
        left -= len(piece)
    return head


class Folder:
    """A folder of files. Links are listed and never followed, whether they lead out of the tree or not."""

    commit: str | None = None

    def __init__(self, name: str, path: str) -> None:
        self.name, self.path = name, path

    def entries(self) -> list[Entry]:
        """Files below the folder by path; `.git` is not entered."""
        return sorted(self._walk(self.path, ""), key=lambda entry: entry.path)

    def _walk(self, folder: str, prefix: str) -> Iterator[Entry]:
        with os.scandir(folder) as found:
            for item in found:
                path = f"{prefix}{item.name}".encode("utf-8", "backslashreplace").decode()
                if item.is_symlink():
                    yield Entry(path, 0, item.path, "symlink")
                elif item.is_dir(follow_symlinks=False):
                    if item.name != ".git":
                        yield from self._walk(item.path, f"{prefix}{item.name}/")
                elif item.is_file(follow_symlinks=False):
                    yield Entry(path, item.stat(follow_symlinks=False).st_size, item.path)
                else:
                    yield Entry(path, 0, item.path, "special")

    def read(self, entries: Sequence[Entry], limit: int) -> Iterator[bytes]:
        """Contents; OSError for a file that has gone or became a link."""
        for entry in entries:
            # A link that took the file's place since the listing is refused by the kernel.
            descriptor = os.open(entry.where, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as file:
                yield file.read(limit)

    def witness(self) -> str:
        """Of names, sizes and samples of the contents."""
        digest = hashlib.sha256()
        for entry in self.entries():
            known = entry.fault or files.witness_of(entry.where, entry.size)
            digest.update(f"{entry.path}\0{entry.size}\0{known}\n".encode("utf-8", "surrogateescape"))
        return "sha256:" + digest.hexdigest()


class Archive:
    """A tar archive, plain or compressed, read as a stream. Members are never written anywhere, so their names may be anything."""

    commit: str | None = None

    def __init__(self, name: str, path: str) -> None:
        self.name, self.path = ARCHIVE.sub("", name), path

    def _opened(self, file: BinaryIO) -> tarfile.TarFile:
        mode: Any = "r|bz2" if self.path.endswith(("bz2",)) else "r|xz" if self.path.endswith(("xz",)) else "r|"
        try:
            return tarfile.open(fileobj=file, mode=mode)
        except BROKEN as error:
            raise ValueError(f"{self.path} is no tar archive: {error}") from error

    def entries(self) -> list[Entry]:
        """Members in the order of the archive; a damaged one ends with an entry `broken`."""
        found = []
        with files.open_content(self.path) as file, self._opened(file) as archive:
            try:
                for number, member in enumerate(archive):
                    if not member.isdir():
                        fault = "" if member.isreg() else "symlink" if member.issym() or member.islnk() else "special"
                        found.append(Entry(_spelt(member.name), 0 if fault else member.size, str(number), fault))
            except BROKEN as error:
                found.append(Entry(str(error), 0, "", "broken"))
        return found

    def read(self, entries: Sequence[Entry], limit: int) -> Iterator[bytes]:
        """Contents in one pass over the archive; raises one of BROKEN where it is damaged."""
        wanted = iter(entries)
        following = next(wanted, None)
        with files.open_content(self.path) as file, self._opened(file) as archive:
            for number, member in enumerate(archive):
                if following is None:
                    return
                if str(number) == following.where:
                    content = archive.extractfile(member)
                    yield content.read(limit) if content is not None else b""
                    following = next(wanted, None)

    def witness(self) -> str:
        """Of the archive file."""
        return files.witness_of(self.path, Path(self.path).stat().st_size)


def _spelt(name: str) -> str:
    return name.removeprefix("./").encode("utf-8", "backslashreplace").decode()


def total(entries: Iterable[Entry]) -> int:
    """Bytes of these files."""
    return sum(entry.size for entry in entries)
