"""Where ledgers lie: every path of a ledger is made here.

<store>/ledger/<model>@<hash>/       one model and revision
    model.json                       which
    answers/<writer>.jsonl           one line per answer, append-only, one file per writer
    index/<n>.idx                    sorted keys of closed stretches of answer files; may be removed at any time
    claims  lock                     byte-range locks of requests in flight; the lock of whoever merges indexes
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from dataclasses import dataclass
from pathlib import Path

import orjson

from manifests.place import is_url, replace_file
from synthetic.asking import Deferred

FORMAT = 1


class LedgerError(Deferred):
    """A ledger that cannot be used; the message names the folder, the fault and the way out."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """The folder of one model's ledger."""

    path: Path

    @staticmethod
    def of(store_root: str | Path, model: str, revision: str) -> Shelf:
        """The ledger of this model in a store, there or not. LedgerError for a store that is no folder."""
        if is_url(str(store_root)):
            raise LedgerError(
                f"{store_root}: a ledger needs a store on a disk of this machine or NFSv4 (it is appended to line by line, and "
                "requests in flight are claimed by locks); run the steps that ask with --store FOLDER"
            )
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", model)[-60:]
        mark = hashlib.blake2b(f"{model}\0{revision}".encode(), digest_size=4).hexdigest()
        return Shelf(Path(store_root) / "ledger" / f"{name}@{mark}")

    @property
    def answers(self) -> Path:
        """Folder of the answer files."""
        return self.path / "answers"

    @property
    def index(self) -> Path:
        """Folder of the index files."""
        return self.path / "index"

    def check(self, model: str, revision: str) -> bool:
        """Whether there is a ledger; LedgerError when it belongs to another model."""
        path = self.path / "model.json"
        if not path.exists():
            return False
        try:
            found = orjson.loads(path.read_bytes())
            there, version = (found["model"], found["revision"]), found["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise LedgerError(f"{path}: not the head of a ledger ({error}); restore it, or move the folder away") from error
        if version != FORMAT:
            raise LedgerError(f"{path}: the ledger has layout {version}, this gristmill reads {FORMAT}; use another store")
        if there != (model, revision):
            raise LedgerError(
                f"{self.path}: this is the ledger of {_named(*there)}, not of {_named(model, revision)}; "
                "answers of one model are never taken for those of another: name its own ledger, or another store"
            )
        return True

    def make(self, model: str, revision: str) -> None:
        """Make the folders and the head, if they are not there."""
        self.answers.mkdir(parents=True, exist_ok=True)
        self.index.mkdir(parents=True, exist_ok=True)
        if not self.check(model, revision):
            head = {"model": model, "revision": revision, "format": FORMAT}
            replace_file(self.path / "model.json", orjson.dumps(head, option=orjson.OPT_INDENT_2))

    def new_name(self) -> str:
        """A name that no other writer has, on any machine."""
        return f"{os.getpid()}-{uuid.uuid4().hex[:16]}"

    def stamp(self) -> tuple[int, int]:
        """Changes when a file appears in or leaves the two folders; zeros while they are missing."""
        try:
            return self.answers.stat().st_mtime_ns, self.index.stat().st_mtime_ns
        except FileNotFoundError:
            return 0, 0

    def listing(self) -> tuple[list[str], list[str]]:
        """Names of the answer files and of the index files, sorted."""
        return _names(self.answers, ".jsonl"), _names(self.index, ".idx")


def _names(folder: Path, suffix: str) -> list[str]:
    try:
        return sorted(n for n in os.listdir(folder) if n.endswith(suffix) and not n.startswith("."))
    except FileNotFoundError:
        return []


def _named(model: str, revision: str) -> str:
    return f"'{model}'" + (f" at revision '{revision}'" if revision else "")
