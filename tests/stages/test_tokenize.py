import pyarrow as pa

from stages.contract import TEXT
from stages.tokenize import Count, count


def test_counts_tokens_as_the_export_writes_them() -> None:
    params = Count()
    model = count.model(params)
    batch = pa.table({"text": pa.array(["hello world", "", None, "a"], TEXT)})
    assert count(batch, params, model=model)["tokens"].to_pylist() == [3, 0, 0, 2]
    assert count(batch, Count(eod=False), model=model)["tokens"].to_pylist() == [2, 0, 0, 1]
    assert count(batch, params, model=model).schema == pa.schema(count.writes_of(params))
