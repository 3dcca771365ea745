"""Is this file a whole fastText model? Its loader takes what it finds: a cut-off file gives garbage or takes the process along.

Layout (fastText 0.9, little-endian): magic and version; 12 int32 and a double of arguments; the dictionary; then the input
and the output matrix, each dense or quantized. Only sizes are read here, never the weights.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

MAGIC, VERSION = 793_712_314, (11, 12)
ARGUMENTS = struct.Struct("<12id")
DICTIONARY = struct.Struct("<iiiqq")


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 0

    def take(self, layout: struct.Struct) -> tuple[int, ...]:
        self.at += layout.size
        if self.at > len(self.data):
            raise EOFError
        return layout.unpack_from(self.data, self.at - layout.size)

    def skip(self, size: int) -> None:
        self.at += size
        if size < 0 or self.at > len(self.data):
            raise EOFError

    def words(self, count: int) -> None:
        for _ in range(count):
            end = self.data.find(b"\0", self.at)
            if end < 0:
                raise EOFError
            self.at = end + 1
            self.skip(9)  # int64 count, int8 kind

    def dense(self) -> None:
        rows, columns = self.take(struct.Struct("<qq"))
        self.skip(rows * columns * 4)

    def product_quantizer(self) -> None:
        dim, _, _, _ = self.take(struct.Struct("<4i"))
        self.skip(dim * 256 * 4)

    def quantized(self) -> None:
        normed, rows, _, codes = self.take(struct.Struct("<?qqi"))
        self.skip(codes)
        self.product_quantizer()
        if normed:
            self.skip(rows)
            self.product_quantizer()


def check(path: str | Path) -> None:
    """ValueError that says what is wrong with a file that is no whole fastText model; OSError where none can be read."""
    file = Path(path)
    if not file.is_file() or file.stat().st_size == 0:
        raise ValueError(f"{path}: no fastText model there; train one with classifiers.fasttext.train or give another path")
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        reader = _Reader(data)
        try:
            _walk(reader, path)
        except EOFError:
            raise ValueError(f"{path}: the fastText model is cut off at {len(data)} bytes; copy it again") from None
        if reader.at != len(data):
            raise ValueError(f"{path}: {len(data) - reader.at} bytes behind the end of the fastText model; copy it again")


def _walk(reader: _Reader, path: str | Path) -> None:
    magic, version = reader.take(struct.Struct("<ii")) if len(reader.data) >= 8 else (0, 0)
    if magic != MAGIC or version not in VERSION:
        raise ValueError(f"{path}: not a fastText model (.bin or .ftz); word vectors (.vec) and other kinds have no classifier")
    if reader.take(ARGUMENTS)[7] != 3:
        raise ValueError(f"{path}: this fastText model was trained for word vectors; a scorer needs a supervised one")
    size, _, _, _, pruned = reader.take(DICTIONARY)
    reader.words(size)
    reader.skip(max(pruned, 0) * 8)
    (quantized,) = reader.take(struct.Struct("<?"))
    (reader.quantized if quantized else reader.dense)()
    (output,) = reader.take(struct.Struct("<?"))
    (reader.quantized if quantized and output else reader.dense)()
