"""The ledger: every answer that was ever paid for, keyed by its request.

A writer appends lines to a file of its own; other processes follow it. A line is with the kernel before its answer is
used, so that a killed process loses only what was in the air, and on the disk within a second. Of two answers to one
request the smallest line wins, whoever reads and in whatever order.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from stages.prompt import Reply
from synthetic.asking import Rejected
from synthetic.ledger_index import Place, Run, covered, merge, redundant, to_merge, write_run
from synthetic.shelf import Shelf

TAIL = 16_384
"""Answers of a writer that are kept in memory (about 200 bytes each) before they go into an index file."""
SETTLED_NS = 100_000_000
"""A folder that changed more recently than this is listed again: the clock of the file system ticks every few milliseconds."""
OPEN_FILES = 64

Answer = Reply | Rejected


def _line(key: str, answer: Answer) -> bytes:
    record: dict[str, Any] = {"key": key}
    if isinstance(answer, Rejected):
        record["rejected"] = str(answer)
    else:
        record |= {
            "text": answer.text, "finish": answer.finish, "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
        }  # fmt: skip
    return orjson.dumps(record) + b"\n"


def _record(line: bytes) -> dict[str, Any] | None:
    """A line as a record; None for one that was torn or damaged."""
    try:
        record = orjson.loads(line)
        int(record["key"], 16)
    except (ValueError, KeyError, TypeError):
        return None
    return record if "text" in record or "rejected" in record else None


def _answer(record: dict[str, Any]) -> Answer:
    if "rejected" in record:
        return Rejected(record["rejected"])
    return Reply(record["text"], record["finish"], record["prompt_tokens"], record["completion_tokens"])


@dataclass
class Tail:
    """What is known of an answer file beyond its index: bytes `start` to `stop`."""

    name: str
    file: int
    start: int = 0
    stop: int = 0
    rows: list[tuple[int, int, int]] = field(default_factory=list)
    places: dict[int, list[int]] = field(default_factory=dict)
    tokens: tuple[int, int] = (0, 0)
    damaged: int = 0

    def note(self, line: bytes) -> None:
        """Take in one line that stands at `stop`."""
        record = _record(line)
        if record is None:
            self.damaged += 1
        else:
            key = int(record["key"][:16], 16)
            self.places.setdefault(key, []).append(len(self.rows))
            self.rows.append((key, self.stop, len(line)))
            spent = record.get("prompt_tokens", 0), record.get("completion_tokens", 0)
            self.tokens = self.tokens[0] + spent[0], self.tokens[1] + spent[1]
        self.stop += len(line)

    def follow(self) -> None:
        """Take in the whole lines that were appended since."""
        size = os.fstat(self.file).st_size
        rest = b""
        at = self.stop
        while at < size:
            data = os.pread(self.file, min(1 << 22, size - at), at)
            if not data:
                break
            at += len(data)
            lines = (rest + data).split(b"\n")
            rest = lines.pop()
            for line in lines:
                self.note(line + b"\n")

    def forget(self, start: int) -> None:
        """An index covers everything before `start`: begin again behind it."""
        self.start = self.stop = start
        self.rows, self.places, self.tokens = [], {}, (0, 0)

    def find(self, key: int) -> Iterator[Place]:
        """Where lines of this key lie."""
        for at in self.places.get(key, ()):
            _, offset, length = self.rows[at]
            yield self.name, offset, length


class Ledger:
    """The ledger of one model, open in one process. Not for two threads at once."""

    def __init__(self, shelf: Shelf, model: str, revision: str) -> None:
        self.shelf = shelf
        self._who = (model, revision)
        self._stamp: tuple[int, int] = (-1, -1)
        self._runs: dict[str, Run] = {}
        self._tails: dict[str, Tail] = {}
        self._spare: list[Path] = []
        self._closed: set[str] = set()
        self._own: Tail | None = None
        self._unsynced = False
        self._files: OrderedDict[str, int] = OrderedDict()
        shelf.check(model, revision)
        self.refresh()
        self._index_orphans()

    @staticmethod
    def open(store_root: str | Path, model: str, revision: str = "") -> Ledger:
        """The ledger of this model in a store. LedgerError when what lies there belongs to another model."""
        return Ledger(Shelf.of(store_root, model, revision), model, revision)

    @property
    def spent(self) -> tuple[int, int]:
        """Prompt and completion tokens of all answers in the ledger."""
        parts = [*(run.tokens for run in self._runs.values()), *(tail.tokens for tail in self._tails.values())]
        return sum(p[0] for p in parts), sum(p[1] for p in parts)

    @property
    def damaged(self) -> int:
        """Lines that could not be read, beyond the index."""
        return sum(tail.damaged for tail in self._tails.values())

    def find(self, key: str) -> Answer | None:
        """The answer to a request as far as this process knows; `refresh` takes in what others wrote."""
        start = int(key[:16], 16)
        places = [place for run in self._runs.values() for place in run.find(start)]
        places += [place for tail in self._tails.values() for place in tail.find(start)]
        lines = sorted(self._read(place) for place in places)
        records = [r for r in map(_record, lines) if r is not None and r["key"] == key]
        # An answer wins over a rejection: whoever was refused may have asked a smaller server.
        best = next((r for r in records if "text" in r), records[0] if records else None)
        return _answer(best) if best is not None else None

    def add(self, key: str, answer: Answer) -> None:
        """Append an answer: with the kernel when this returns, on the disk with the next `sync`."""
        own = self._own or self._begin()
        line = _line(key, answer)
        try:
            written = os.write(own.file, line)
            if written < len(line):
                raise OSError(28, "no space left on device", str(self.shelf.answers / own.name))  # noqa: TRY301
        except OSError:
            os.ftruncate(own.file, own.stop)
            raise
        own.note(line)
        self._unsynced = True
        if len(own.rows) >= TAIL:
            self._publish(own)
            self._merge()

    def sync(self) -> None:
        """Wait until everything that was added is on the disk."""
        if self._own is not None and self._unsynced:
            self._unsynced = False
            os.fsync(self._own.file)

    def refresh(self) -> None:
        """Take in what other processes have written since."""
        stamp = self.shelf.stamp()
        if stamp != self._stamp:
            settled = time.time_ns() - max(stamp) > SETTLED_NS
            self._list()
            self._stamp = stamp if settled else (-1, -1)
        for tail in self._tails.values():
            if tail is not self._own:
                tail.follow()

    def close(self) -> None:
        """Write everything to the disk and let go of it."""
        self.sync()
        if self._own is not None and self._own.rows:
            self._publish(self._own)
        for tail in self._tails.values():
            os.close(tail.file)
        for file in self._files.values():
            os.close(file)
        for run in self._runs.values():
            run.close()
        self._tails, self._runs, self._own = {}, {}, None
        self._files.clear()

    def _begin(self) -> Tail:
        """Make this process's own answer file; it is locked before it has its name, so that nobody takes it for a dead one."""
        self.shelf.make(*self._who)
        name = f"{self.shelf.new_name()}.jsonl"
        draft = self.shelf.answers / f".{name}"
        file = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o666)
        fcntl.flock(file, fcntl.LOCK_EX)
        draft.rename(self.shelf.answers / name)
        folder = os.open(self.shelf.answers, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        self._own = self._tails[name] = Tail(name, file)
        return self._own

    def _list(self) -> None:
        """Open the index files that are there, and follow the answer files beyond them."""
        while True:
            answers, indexes = self.shelf.listing()
            for name in set(self._runs) - set(indexes):
                self._runs.pop(name).close()
            try:
                for name in [n for n in indexes if n not in self._runs]:
                    self._runs[name] = Run(self.shelf.index / name)
                break
            except FileNotFoundError:  # merged away between the listing and the opening
                continue
        for run in redundant(list(self._runs.values())):
            self._spare.append(run.path)
            self._runs.pop(run.path.name).close()
        known = covered(self._runs.values())
        for name in answers:
            self._follow(name, known.get(name, 0))

    def _follow(self, name: str, start: int) -> None:
        tail = self._tails.get(name)
        if tail is not None:
            if tail.start != start:  # an index covers more, or was removed
                tail.forget(start)
                tail.follow()
            return
        if name in self._closed and self._size(name) == start:
            return
        tail = Tail(name, os.open(self.shelf.answers / name, os.O_RDONLY | os.O_CLOEXEC))
        tail.forget(start)
        dead = _dead(tail.file)
        tail.follow()
        if dead:
            self._closed.add(name)
        if dead and not tail.rows:
            os.close(tail.file)
        else:
            self._tails[name] = tail

    def _size(self, name: str) -> int:
        return (self.shelf.answers / name).stat().st_size

    def _index_orphans(self) -> None:
        """Index the answer files of writers that are gone."""
        orphans = [tail for name, tail in self._tails.items() if name in self._closed and tail.rows]
        if not orphans or not os.access(self.shelf.path, os.W_OK):
            return
        with _lock(self.shelf.path / "lock") as held:
            if held:
                for tail in orphans:
                    self._publish(tail)
                self._merge_locked()
        self.refresh()

    def _publish(self, tail: Tail) -> None:
        write_run(self.shelf.index, tail.name, tail.rows, (tail.name, tail.start, tail.stop), tail.tokens)
        self._stamp = (-1, -1)
        self.refresh()

    def _merge(self) -> None:
        with _lock(self.shelf.path / "lock") as held:
            if held:
                self._merge_locked()

    def _merge_locked(self) -> None:
        while self._spare:
            self._spare.pop().unlink(missing_ok=True)
        while group := to_merge(self._runs.values()):
            merge(self.shelf.index, group)
            self._list()

    def _read(self, place: Place) -> bytes:
        name, offset, length = place
        tail = self._tails.get(name)
        return os.pread(tail.file if tail is not None else self._file(name), length, offset)

    def _file(self, name: str) -> int:
        """An answer file opened for reading; the least recently used one is closed when there are too many."""
        if name not in self._files:
            if len(self._files) >= OPEN_FILES:
                os.close(self._files.popitem(last=False)[1])
            self._files[name] = os.open(self.shelf.answers / name, os.O_RDONLY | os.O_CLOEXEC)
        self._files.move_to_end(name)
        return self._files[name]


def _dead(file: int) -> bool:
    """Whether the writer of an answer file is gone: it holds a lock as long as it lives."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(file, fcntl.LOCK_UN)
    return True


class _lock:  # noqa: N801
    """A lock that is taken or not, never waited for."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)

    def __enter__(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def __exit__(self, *_: object) -> None:
        os.close(self._file)
