import pyarrow as pa

from stages.sample import Sample, by_hash

IDS = pa.table({"id": [f"{n:032x}" for n in range(4000)]})


def kept(share: float, seed: int = 0, ids: pa.Table = IDS) -> set[str]:
    reasons = by_hash(ids, Sample(share=share, seed=seed))["drop_reason"]
    return {i for i, r in zip(ids["id"].to_pylist(), reasons.to_pylist(), strict=True) if r is None}


def test_keeps_about_the_share_and_a_larger_share_holds_the_smaller() -> None:
    tenth, half = kept(0.1), kept(0.5)
    assert abs(len(tenth) - 400) < 80
    assert abs(len(half) - 2000) < 130
    assert tenth < half


def test_a_row_is_chosen_by_its_id_alone() -> None:
    parts = [kept(0.3, ids=IDS.slice(start, 7)) for start in range(0, 4000, 7)]
    assert set().union(*parts) == kept(0.3)
    assert kept(0.3, seed=1) != kept(0.3)


def test_all_and_nothing() -> None:
    assert len(kept(1.0)) == 4000
    assert not kept(0.0)
    assert set(by_hash(IDS, Sample(share=0.0))["drop_reason"].to_pylist()) == {"not_sampled"}
