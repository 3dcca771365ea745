import pyarrow as pa

from stages.compact import Compact, keep


def test_keeps_every_row_in_its_place() -> None:
    out = keep(pa.table({"id": ["a", "b", "c"]}), Compact())
    assert out["parent"].to_pylist() == [0, 1, 2]
    assert out.schema == pa.schema([("parent", pa.int64())])
    assert keep(pa.table({"id": pa.array([], pa.string())}), Compact()).num_rows == 0


def test_stores_columns_only_when_asked() -> None:
    assert keep.copies(Compact(copies=True))
    assert not keep.copies(Compact())
