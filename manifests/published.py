"""Published names: what one means, and its rows shard by shard."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import pyarrow as pa

from manifests.catalog import Catalog, CatalogError, plainly
from manifests.place import read_parquet
from manifests.step_views import AT, UNIT, RecipeViews, Step, quoted, steps_of
from manifests.store import Store


@dataclass(frozen=True, slots=True)
class Part:
    """A shard of a published dataset."""

    key: str
    """Its unit in the store."""
    name: str
    size: int
    """Bytes of the object that holds its rows' places."""
    witness: str
    """Another answer is another witness."""


class Dataset:
    """The rows behind a published name. A connection is open until `close`."""

    def __init__(self, store: Store, name: str) -> None:
        refs = store.existing().records("refs")
        if name not in refs:
            near = get_close_matches(name, list(refs), 1)
            known = f"did you mean {near[0]}?" if near else f"there are: {', '.join(sorted(refs)) or 'none'}"
            raise CatalogError(f"{store.url} has no published name '{name}'; {known}")
        self.ref, self.label = refs[name], f"published {name}"
        record = store.record_behind(name, self.ref)
        self._catalog = Catalog(store, recipes=(), threads=1)
        self._views = RecipeViews(self._catalog.files, record["name"], steps_of(record["name"], record), record["units"])
        self._step: Step = self._views.steps[self.ref["step"]]
        self._check()

    def _check(self) -> None:
        step = f"'{self._step.name}' of recipe '{self._step.recipe}'"
        if self._step.shape == "export":
            raise CatalogError(f"{self.label} is an export: files for other readers; publish the step before {step} as well")
        if not self._views.complete(self._step):
            raise CatalogError(f"{self.label}: the answer of {step} is not complete in {self._catalog.store.url}; run it again")

    def close(self) -> None:
        """Close the connection."""
        self._catalog.con.close()

    def column(self, name: str) -> str | None:
        """The Arrow type of a column, as a word; None where there is none. CatalogError for one that is not stored."""
        if name not in self._step.columns:
            return None
        hidden = self._views.hidden(self._step.frame, name, self._step.columns[name], self._step)
        if hidden is not None:
            raise CatalogError(f"{self.label} does not show '{name}': {hidden}")
        return self._step.types[name]

    def columns(self) -> list[str]:
        """Names of all columns that can be read."""
        return sorted(self._views.visible(self._step))

    def parts(self) -> list[Part]:
        """Its shards, in order."""
        frame = self._views.steps[self._step.frame]
        table = read_parquet(self._catalog.store.object(frame.object).table(frame.units), ["unit", "name", "bytes"])
        answer = [self.ref["object"], str(self.ref["member"]), *self.ref["objects"]]
        return [
            Part(row["unit"], f"{self._step.recipe}.{self._step.name}/{row['name']}", row["bytes"], _digest([*answer, row["unit"]]))
            for row in table.to_pylist()
        ]

    def check(self, where: str) -> None:
        """CatalogError for a condition that SQL does not understand; nothing is read."""
        keys = self._views.files.keys(self._views.steps[self._step.frame].object, self._views.units[self._step.frame])
        with plainly():
            self._catalog.con.execute(f"select 1 from ({self._rows(None, keys[:1])}) where ({where}) limit 0").fetchall()

    def _rows(self, columns: Sequence[str] | None, keys: Sequence[str]) -> str:
        return self._views.standing(self._step, columns, address=True, keys=keys)

    def count(self, key: str) -> int:
        """Rows of a shard that stand."""
        with plainly():
            (found,) = self._catalog.con.execute(f"select count(*) from ({self._rows((), [key])})").fetchall()
        return int(found[0])

    def read(self, key: str, columns: Sequence[str], where: str | None = None, rows: int = 512) -> Iterator[pa.RecordBatch]:
        """The rows of a shard that stand and meet the condition, in their order."""
        inner = self._rows(None if where else columns, [key])
        shown = ", ".join(map(quoted, columns))
        query = f"select {shown} from ({inner}) where ({where or 'true'}) order by {quoted(UNIT)}, {quoted(AT)}"
        with plainly():
            yield from self._catalog.con.sql(query).to_arrow_reader(rows)


def _digest(words: Sequence[str]) -> str:
    return "published:" + hashlib.blake2b("\0".join(words).encode(), digest_size=16).hexdigest()
