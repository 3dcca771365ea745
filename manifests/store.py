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

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq

from manifests.manifest import FORMAT, Manifest, Receipt, parse_journal, parts_table, receipts_of
from manifests.place import Place, StoreError, place_of

__all__ = ["Journal", "Object", "Store", "StoreError", "at_hand", "store_at_hand"]

_AT_HAND: ContextVar[Store | None] = ContextVar("store_at_hand", default=None)


def _pretty(content: Mapping[str, Any]) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2)


@dataclass(frozen=True, slots=True)
class Object:
    """The folder of one object."""

    place: Place
    folder: str

    @property
    def address(self) -> str:
        """`<label>-<question>`."""
        return self.folder.rsplit("/", 1)[-1]

    @property
    def url(self) -> str:
        """Where it is: a path, or the URL of an object store."""
        return self.place.url(self.folder)

    @property
    def path(self) -> Path:
        """The folder of an object of a store on a local disk."""
        assert self.place.local, f"{self.url} is no folder"
        return Path(self.url)

    def part(self, unit: str, suffix: str = ".parquet") -> str:
        """Where a part's file lies."""
        return self.place.url(f"{self.folder}/parts/{unit}{suffix}")

    def table(self, units: str) -> str:
        """Where the receipts of an answer lie."""
        return self.place.url(f"{self.folder}/manifests/{units}.parquet")

    def asked(self) -> bool:
        """Whether it is there: what is asked is written down before anything else."""
        return self.place.exists(f"{self.folder}/question.json")

    def question(self) -> dict[str, Any]:
        """What was asked."""
        record: dict[str, Any] = orjson.loads(self.place.read(f"{self.folder}/question.json"))
        return record

    def ask(self, question: Mapping[str, Any]) -> None:
        """Write down what is asked, once."""
        if not self.asked():
            self.place.put(f"{self.folder}/question.json", _pretty(question))

    def receipts(self) -> dict[str, Receipt]:
        """Receipts of all parts in the journal; on a disk, where a folder is cheap to list, of those whose files are in place."""
        try:
            found, _ = parse_journal(self.place.read_log(f"{self.folder}/journal"))
        except ValueError as error:
            raise StoreError(f"{self.url}/journal: {error}") from error
        if not found or not self.place.local:
            return found
        present = set(self.place.names(f"{self.folder}/parts"))
        return {unit: r for unit, r in found.items() if all(f"{unit}{suffix}" in present for suffix in r.files)}

    def manifest(self, units: str) -> Manifest | None:
        """The answer for this list of units, or None while there is none."""
        if not self.answered(units):
            return None
        table = pq.read_table(io.BytesIO(self.place.read(f"{self.folder}/manifests/{units}.parquet")))
        return Manifest(self.address, units, receipts_of(table))

    def answered(self, units: str) -> bool:
        """Whether the answer for this list of units is complete."""
        return self.place.exists(f"{self.folder}/manifests/{units}.json")

    def answers(self) -> list[str]:
        """Lists of units for which there is an answer."""
        return [n.removesuffix(".json") for n in self.place.names(f"{self.folder}/manifests") if n.endswith(".json")]

    def head(self, units: str) -> dict[str, Any]:
        """Totals of an answer: rows, bytes, digest, counts."""
        record: dict[str, Any] = orjson.loads(self.place.read(f"{self.folder}/manifests/{units}.json"))
        return record

    def answer(self, units: str, parts: Sequence[Receipt], totals: Mapping[str, Any]) -> Manifest:
        """Write the manifest: the table of parts first, its head last. StoreError where another answer stands."""
        manifest = Manifest(self.address, units, tuple(parts))
        table = io.BytesIO()
        pq.write_table(parts_table(manifest.parts), table, compression="zstd")
        self.place.put(f"{self.folder}/manifests/{units}.parquet", table.getvalue())
        head = {
            "rows": manifest.rows, "bytes": sum(p.size for p in parts), "parts": len(parts), "digest": manifest.digest, **totals
        }  # fmt: skip
        if not self.place.create(f"{self.folder}/manifests/{units}.json", _pretty(head)):
            stands = self.head(units)["digest"]
            if stands != manifest.digest:
                raise StoreError(
                    f"{self.url}: two runs gave different answers ({stands[:12]}, {manifest.digest[:12]}); a stage is not "
                    "deterministic: run `gristmill verify`, delete this object and run again"
                )
        return manifest


class Journal:
    """Append receipts to an object; holds the object's lock, so that two runs never write the same object."""

    def __init__(self, target: Object) -> None:
        self.target = target
        self._lock = target.place.lock(f"{target.folder}/lock")
        try:
            self._log = target.place.log(f"{target.folder}/journal")
            target.place.sweep(target.folder)
        except BaseException:
            self._lock.close()
            raise

    def append(self, receipt: Receipt) -> None:
        """On a disk durable when this returns; in an object store at the next flush."""
        self._log.append(receipt.to_json() + b"\n")

    def flush(self) -> None:
        """All receipts so far are durable when this returns."""
        self._log.flush()

    def close(self) -> None:
        """Release the object."""
        try:
            self._log.close()
        finally:
            self._lock.close()


class Store:
    """A store in a folder or in an object store; manifests/place.py says what is used of either."""

    def __init__(self, root: Path | str) -> None:
        self.place = place_of(str(root))

    @property
    def url(self) -> str:
        """Where it is: a path, or the URL of an object store."""
        return self.place.root

    @property
    def root(self) -> Path:
        """The folder of a store on a local disk."""
        if not self.place.local:
            raise StoreError(f"{self.url}: this needs a store on a local disk")
        return Path(self.place.root)

    @staticmethod
    def open(root: Path | str) -> Store:
        """Open or create; refuses a store of a newer layout and a folder that is something else."""
        store = Store(root)
        try:
            version = orjson.loads(store.place.read("format.json")).get("version")
        except FileNotFoundError:
            return store._create()
        if version != FORMAT:
            raise StoreError(
                f"{store.place.url('format.json')}: the store has layout {version}, this gristmill reads {FORMAT}; "
                "use the gristmill that wrote it, or another --store"
            )
        return store

    def _create(self) -> Store:
        if self.place.local and self.root.exists() and any(self.root.iterdir()):
            raise StoreError(f"{self.url}: not empty and not a gristmill store; name an empty or a new folder with --store")
        try:
            self.place.put("format.json", orjson.dumps({"version": FORMAT}))
        except OSError as error:
            raise StoreError(
                f"{self.url}: cannot create a store here ({error.strerror or error}); name another with --store"
            ) from error
        return self

    def existing(self) -> Store:
        """This store, or an error when there is none."""
        if not self.place.exists("format.json"):
            raise StoreError(f"{self.url}: there is no store here; run a recipe first, or name one with --store")
        return Store.open(self.url)

    def object(self, address: str) -> Object:
        """The object of this address, there or not."""
        return Object(self.place, f"objects/{address}")

    def objects(self) -> Iterator[Object]:
        """Every object, by name: one listing."""
        for name in self.place.names("objects"):
            yield self.object(name)

    def addresses(self) -> dict[str, str]:
        """Question to address, for all objects: one listing."""
        return {o.address.rsplit("-", 1)[-1]: o.address for o in self.objects()}

    def spill(self, address: str) -> Object:
        """Where the emits of a Reduce lie."""
        return Object(self.place, f"spills/{address}")

    def spills(self) -> Iterator[Object]:
        """What lies between emit and settle, by name: one listing."""
        for name in self.place.names("spills"):
            yield self.spill(name)

    def drop_spill(self, address: str) -> None:
        """Remove the emits of a Reduce whose settle has committed."""
        self.place.remove(f"spills/{address}")

    def record(self, kind: str, name: str, content: Mapping[str, Any]) -> None:
        """Write a recipe or reference record whole."""
        self.place.put(f"{kind}/{name}.json", _pretty(content))

    def records(self, kind: str) -> dict[str, dict[str, Any]]:
        """All records of a kind ("recipes" or "refs") by name."""
        names = [n for n in self.place.names(kind) if n.endswith(".json")]
        return {n.removesuffix(".json"): orjson.loads(self.place.read(f"{kind}/{n}")) for n in names}

    def runs(self) -> list[str]:
        """Ids of all runs, oldest first."""
        return self.place.names("runs")

    def result(self, run: str) -> dict[str, Any] | None:
        """How a run ended; None while it is at work, and when it was killed."""
        try:
            found: dict[str, Any] = orjson.loads(self.place.read(f"runs/{run}/result.json"))
        except FileNotFoundError:
            return None
        return found

    def run_record(self, run: str) -> dict[str, Any] | None:
        """Where the steps of a run are; None where no such run has begun here."""
        try:
            found: dict[str, Any] = orjson.loads(self.place.read(f"runs/{run}/record.json"))
        except FileNotFoundError:
            return None
        return found

    def run_records(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Id and record of every run that has one, the latest first."""
        for run in reversed(self.runs()):
            record = self.run_record(run)
            if record is not None:
                yield run, record

    def record_behind(self, name: str, ref: Mapping[str, Any]) -> dict[str, Any]:
        """The record of a run that made what the published `name` stands for; StoreError when none is left."""
        latest = self.records("recipes").get(ref["recipe"], {})
        for record in (latest, *(record for _, record in self.run_records())):
            step = record.get("steps", {}).get(ref["step"], {})
            if (step.get("object"), step.get("units")) == (ref["object"], ref["units"]):
                return record
        raise StoreError(f"published {name}: no run in {self.url} remembers how it was made; run its recipe again")


@contextmanager
def at_hand(store: Store) -> Iterator[None]:
    """Inside of this block a published name without a store means one of this store."""
    token = _AT_HAND.set(store)
    try:
        yield
    finally:
        _AT_HAND.reset(token)


def store_at_hand() -> Store | None:
    """The store that a recipe is being planned for."""
    return _AT_HAND.get()
