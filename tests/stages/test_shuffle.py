import numpy as np
import pyarrow as pa

from stages.contract import CORE, TEXT
from stages.sample import Sample
from stages.sample import by_hash as sampled
from stages.shuffle import Shuffle, by_hash

N = 2000


def frame() -> pa.Table:
    empty = {name: pa.nulls(N, kind) for name, kind in CORE.items()}
    ids = [f"{n:032x}" for n in range(N)]
    return pa.table(
        {**empty, "id": ids, "text": pa.array([f"text {n}" for n in range(N)], TEXT), "tokens": pa.array(range(N), pa.int32())}
    )


PARAMS = Shuffle(shards=4, columns={"tokens": "int32"})


def settled(emitted: pa.Table, params: Shuffle) -> pa.Table:
    return pa.concat_tables(by_hash.settle(iter([emitted.sort_by("key")]), params))


def test_emits_what_it_declares_with_keys_spread_evenly() -> None:
    out = by_hash.emit(frame(), PARAMS)
    assert {f.name: f.type for f in out.schema} == by_hash.emits_of(PARAMS)
    counts = np.bincount((out["key"].to_numpy() >> np.uint64(62)).astype(int), minlength=4)
    assert counts.min() > N / 4 * 0.8


def test_rows_come_back_whole_in_an_order_that_input_order_and_batches_do_not_touch() -> None:
    rows = frame()
    straight = settled(by_hash.emit(rows, PARAMS), PARAMS)
    turned = rows.take(np.arange(N)[::-1])
    parts = pa.concat_tables(by_hash.emit(turned.slice(start, 300), PARAMS) for start in range(0, N, 300))
    assert settled(parts, PARAMS).equals(straight)
    assert {f.name: f.type for f in straight.schema} == by_hash.writes_of(PARAMS)
    assert sorted(straight["tokens"].to_pylist()) == list(range(N))
    order = straight["tokens"].to_numpy()
    assert abs(np.corrcoef(order, np.arange(N))[0, 1]) < 0.08
    other = settled(by_hash.emit(rows, Shuffle(shards=4, seed=1, columns=PARAMS.columns)), PARAMS)
    assert other["id"].to_pylist() != straight["id"].to_pylist()


def test_rows_with_one_key_stand_by_id() -> None:
    emitted = by_hash.emit(frame(), PARAMS).slice(0, 3)
    same = emitted.set_column(0, "key", pa.array([5, 5, 5], pa.uint64())).take([2, 0, 1])
    ids = settled(same, PARAMS)["id"].to_pylist()
    assert ids == sorted(ids)


def test_a_sample_under_the_same_seed_does_not_crowd_the_first_shards() -> None:
    rows = frame()
    few = rows.filter(sampled(rows, Sample(share=0.25))["drop_reason"].is_null())
    keys = by_hash.emit(few, PARAMS)["key"].to_numpy()
    assert np.bincount((keys >> np.uint64(62)).astype(int), minlength=4).min() > few.num_rows / 4 * 0.7
