"""Receipts, the journal they are appended to, and the manifest that makes an answer complete.

An object of the store is a folder that names a function (its question). Its parts are addressed by source unit. The
journal holds a receipt for each committed part; a manifest is an ordered list of receipts, written last: its existence
means complete.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson
import pyarrow as pa

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Receipt:
    """One committed part: what it holds, the digest of each of its files, and its row accounting.

    `files` maps a suffix (".parquet") to (bytes, sha256). `counts` is the accounting that the worker checked.
    """

    unit: str
    name: str
    rows: int
    files: Mapping[str, tuple[int, str]]
    counts: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(size for size, _ in self.files.values())

    def to_json(self) -> bytes:
        """One line of the journal, without its newline."""
        return orjson.dumps(asdict(self), option=orjson.OPT_SORT_KEYS)

    @staticmethod
    def of(record: Mapping[str, Any]) -> Receipt:
        """The receipt that `to_json` wrote."""
        files = {suffix: (int(size), str(digest)) for suffix, (size, digest) in record["files"].items()}
        return Receipt(record["unit"], record["name"], record["rows"], files, record["counts"], record["seconds"])


@dataclass(frozen=True, slots=True)
class Manifest:
    """The answer of one object for one ordered list of units."""

    object: str
    units: str
    """Hash of the ordered unit keys: the manifest's name."""
    parts: tuple[Receipt, ...]

    @property
    def rows(self) -> int:
        """Rows of all parts."""
        return sum(part.rows for part in self.parts)

    @property
    def digest(self) -> str:
        """Hash over unit keys and file digests: equal digests mean equal bytes."""
        whole = hashlib.sha256()
        for part in self.parts:
            whole.update(f"{part.unit}:{sorted((s, d) for s, (_, d) in part.files.items())}\n".encode())
        return whole.hexdigest()


def units_hash(keys: Iterable[str]) -> str:
    """The name of a manifest: a hash of the ordered unit keys."""
    return hashlib.blake2b("\n".join(keys).encode(), digest_size=8).hexdigest()


def parse_journal(raw: bytes) -> tuple[dict[str, Receipt], int]:
    """Receipts by unit, and how many bytes of the journal are whole lines.

    A kill can tear the last line: it is left out, and its part is simply made again. A torn line elsewhere means damage.
    """
    whole = raw.rfind(b"\n") + 1
    receipts: dict[str, Receipt] = {}
    for number, line in enumerate(raw[:whole].splitlines(), 1):
        try:
            receipt = Receipt.of(orjson.loads(line))
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"journal line {number} is damaged ({error}); delete the journal to make its parts again") from error
        receipts[receipt.unit] = receipt
    return receipts, whole


PARTS = pa.schema(
    [("unit", pa.string()), ("name", pa.string()), ("rows", pa.int64()), ("bytes", pa.int64()), ("files", pa.string()),
     ("counts", pa.string()), ("seconds", pa.float64())]
)  # fmt: skip


def parts_table(parts: Sequence[Receipt]) -> pa.Table:
    """The receipts of a manifest as the table that SQL reads."""
    return pa.table(
        {
            "unit": [p.unit for p in parts],
            "name": [p.name for p in parts],
            "rows": [p.rows for p in parts],
            "bytes": [p.size for p in parts],
            "files": [orjson.dumps(p.files, option=orjson.OPT_SORT_KEYS).decode() for p in parts],
            "counts": [orjson.dumps(p.counts, option=orjson.OPT_SORT_KEYS).decode() for p in parts],
            "seconds": [p.seconds for p in parts],
        },
        schema=PARTS,
    )


def receipts_of(table: pa.Table) -> tuple[Receipt, ...]:
    """The receipts that `parts_table` wrote."""
    return tuple(
        Receipt.of({**row, "files": orjson.loads(row["files"]), "counts": orjson.loads(row["counts"])}) for row in table.to_pylist()
    )
