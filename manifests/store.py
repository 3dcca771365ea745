"""The store: a folder that holds every object, reference and run.

format.json                          version of this layout
objects/<label>-<question>/          one function; the label is for people, the question is the identity
    question.json                    what was asked: members, columns, frame, inputs
    journal.jsonl                    a receipt per committed part, appended by the driver
    parts/<unit><suffix>             the bytes
    manifests/<units>.json|.parquet  an answer: the ordered receipts for one list of units; written last
    lock                             held by the run that writes here
spills/<label>-<question>/           between emit and settle; removed when settle has committed
recipes/<name>.json                  where the steps of the last run of a recipe are
refs/<name>.json                     published names
runs/<id>/                           recipe, events, result
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson
import pyarrow.parquet as pq

from manifests.manifest import FORMAT, Manifest, Receipt, parse_journal, parts_table, receipts_of
from manifests.shard import replace_file


class StoreError(Exception):
    """The store cannot do what was asked; the message names the place, the fault and the way out."""


@dataclass(frozen=True, slots=True)
class Object:
    """The folder of one object."""

    path: Path

    @property
    def address(self) -> str:
        """`<label>-<question>`."""
        return self.path.name

    def part(self, unit: str, suffix: str = ".parquet") -> Path:
        """Where a part's file lies."""
        return self.path / "parts" / f"{unit}{suffix}"

    def question(self) -> dict[str, Any]:
        """What was asked."""
        record: dict[str, Any] = orjson.loads((self.path / "question.json").read_bytes())
        return record

    def ask(self, question: Mapping[str, Any]) -> None:
        """Write down what is asked, once."""
        path = self.path / "question.json"
        if not path.exists():
            replace_file(path, orjson.dumps(question, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2))

    def receipts(self) -> dict[str, Receipt]:
        """Receipts of all parts in the journal whose files are in place."""
        path = self.path / "journal.jsonl"
        if not path.exists():
            return {}
        try:
            found, _ = parse_journal(path.read_bytes())
        except ValueError as error:
            raise StoreError(f"{path}: {error}") from error
        present = set(os.listdir(self.path / "parts")) if (self.path / "parts").exists() else set()
        return {unit: r for unit, r in found.items() if all(f"{unit}{suffix}" in present for suffix in r.files)}

    def manifest(self, units: str) -> Manifest | None:
        """The answer for this list of units, or None while there is none."""
        table = self.path / "manifests" / f"{units}.parquet"
        if not self.answered(units):
            return None
        return Manifest(self.address, units, receipts_of(pq.read_table(table)))

    def answered(self, units: str) -> bool:
        """Whether the answer for this list of units is complete."""
        return (self.path / "manifests" / f"{units}.json").exists()

    def head(self, units: str) -> dict[str, Any]:
        """Totals of an answer: rows, bytes, digest, counts."""
        record: dict[str, Any] = orjson.loads((self.path / "manifests" / f"{units}.json").read_bytes())
        return record

    def answer(self, units: str, parts: Sequence[Receipt], totals: Mapping[str, Any]) -> Manifest:
        """Write the manifest: the table of parts first, its head last."""
        manifest = Manifest(self.address, units, tuple(parts))
        folder = self.path / "manifests"
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f".{units}.{os.getpid()}"
        pq.write_table(parts_table(manifest.parts), draft, compression="zstd")
        replace_file(folder / f"{units}.parquet", draft.read_bytes())
        draft.unlink()
        head = {
            "rows": manifest.rows, "bytes": sum(p.size for p in parts), "parts": len(parts), "digest": manifest.digest, **totals
        }  # fmt: skip
        replace_file(folder / f"{units}.json", orjson.dumps(head, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2))
        return manifest


class Journal:
    """Append receipts to an object; holds the object's lock, so that two runs never write the same object."""

    def __init__(self, target: Object) -> None:
        self.target = target
        target.path.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(target.path / "lock")
        path = target.path / "journal.jsonl"
        if path.exists():
            _, whole = parse_journal(path.read_bytes())
            os.truncate(path, whole)
        self._file = path.open("ab")

    def append(self, receipt: Receipt) -> None:
        """Durable when this returns."""
        self._file.write(receipt.to_json() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Release the object."""
        self._file.close()
        self._lock.close()


def _locked(path: Path) -> IO[str]:
    """An exclusive lock that the kernel drops with its holder, however it dies. Local disks and NFSv4; not object stores."""
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        raise StoreError(
            f"{path.parent}: another run (process {holder}) is writing here; wait for it, or stop it and run again"
        ) from error
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


class Store:
    """A store on a local disk. Guarantees used: rename within a folder is atomic, fsync is durable, flock is exclusive."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    @staticmethod
    def open(root: Path | str) -> Store:
        """Open or create; refuses a store of a newer layout and a folder that is something else."""
        store = Store(root)
        path = store.root / "format.json"
        if path.exists():
            version = orjson.loads(path.read_bytes()).get("version")
            if version != FORMAT:
                raise StoreError(
                    f"{path}: the store has layout {version}, this gristmill reads {FORMAT}; "
                    "use the gristmill that wrote it, or another --store"
                )
            return store
        if store.root.exists() and any(store.root.iterdir()):
            raise StoreError(f"{store.root}: not empty and not a gristmill store; name an empty or a new folder with --store")
        try:
            replace_file(path, orjson.dumps({"version": FORMAT}))
        except OSError as error:
            raise StoreError(f"{store.root}: cannot create a store here ({error.strerror}); name another with --store") from error
        return store

    def existing(self) -> Store:
        """This store, or an error when there is none."""
        if not (self.root / "format.json").exists():
            raise StoreError(f"{self.root}: there is no store here; run a recipe first, or name one with --store")
        return Store.open(self.root)

    def object(self, address: str) -> Object:
        """The object of this address, there or not."""
        return Object(self.root / "objects" / address)

    def objects(self) -> Iterator[Object]:
        """Every object, by name."""
        folder = self.root / "objects"
        if folder.exists():
            for name in sorted(os.listdir(folder)):
                yield Object(folder / name)

    def addresses(self) -> dict[str, str]:
        """Question to address, for all objects: one listing."""
        return {o.address.rsplit("-", 1)[-1]: o.address for o in self.objects()}

    def spill(self, address: str) -> Object:
        """Where the emits of a Reduce lie."""
        return Object(self.root / "spills" / address)

    def drop_spill(self, address: str) -> None:
        """Remove the emits of a Reduce whose settle has committed."""
        shutil.rmtree(self.root / "spills" / address, ignore_errors=True)

    def record(self, kind: str, name: str, content: Mapping[str, Any]) -> None:
        """Write a recipe or reference record whole."""
        path = self.root / kind / f"{name}.json"
        replace_file(path, orjson.dumps(content, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2))

    def records(self, kind: str) -> dict[str, dict[str, Any]]:
        """All records of a kind ("recipes" or "refs") by name."""
        folder = self.root / kind
        if not folder.exists():
            return {}
        return {p.stem: orjson.loads(p.read_bytes()) for p in sorted(folder.glob("*.json"))}

    def run_folder(self, run: str) -> Path:
        """Folder of one run."""
        path = self.root / "runs" / run
        path.mkdir(parents=True, exist_ok=True)
        return path
