import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from classifiers import suel
from classifiers.ensemble import Weights, correlation_of, score, weigh, weights
from classifiers.trained import auc
from stages.contract import Unusable


def simulated(qualities: list[float], shared: dict[tuple[int, int], float], count: int = 40_000) -> tuple[np.ndarray, np.ndarray]:
    """Scores that know a hidden label as well as told, with extra correlation of pairs that share their mistakes."""
    rng = np.random.default_rng(3)
    label = rng.integers(0, 2, count) * 2.0 - 1
    mistakes = rng.normal(size=(count, len(qualities)))
    for (i, j), share in shared.items():
        mistakes[:, j] = share * mistakes[:, i] + np.sqrt(1 - share**2) * mistakes[:, j]
    q = np.array(qualities)
    return label > 0, q * label[:, None] + np.sqrt(1 - q**2) * mistakes


def names(count: int) -> list[str]:
    return [f"s{i}" for i in range(count)]


def test_qualities_of_independent_scorers_are_found_without_a_label() -> None:
    truth = [0.8, 0.6, 0.4, 0.3]
    label, scores = simulated(truth, {})
    found = suel.fit(np.corrcoef(scores.T), names(4), names(4))
    assert found.quality == pytest.approx(truth, abs=0.03)
    assert found.weights.sum() == pytest.approx(1, abs=1e-5)
    assert found.residual < 0.01
    best = auc(scores @ found.weights, label)
    assert best > max(auc(scores[:, i], label) for i in range(4)) + 0.01
    assert suel.spectral(np.corrcoef(scores.T)).quality == pytest.approx(truth, abs=0.03)


def test_scorers_of_one_group_share_their_weight_where_the_spectral_method_is_misled() -> None:
    truth = [0.45, 0.45, 0.45, 0.6, 0.55]
    label, scores = simulated(truth, {(0, 1): 0.97, (0, 2): 0.97})
    correlation = np.corrcoef(scores.T)
    groups = ["edu", "edu", "edu", "web", "form"]
    found = suel.fit(correlation, groups, names(5))
    plain = suel.spectral(correlation)
    assert found.quality == pytest.approx(truth, abs=0.05)
    assert plain.quality[0] > plain.quality[3], "three copies vote for each other"
    assert found.weights[:3].sum() < found.weights[3]
    assert auc(scores @ found.weights, label) > auc(scores @ plain.weights, label) + 0.01


@pytest.mark.parametrize(
    ("groups", "said"),
    [(["edu", "edu", "web"], "3 scorers in 2 groups .edu, web.: .* three are needed"), (["a", "a", "a"], "in 1 group ")],
)
def test_two_groups_are_refused_with_the_reason_and_the_way_out(groups: list[str], said: str) -> None:
    _, scores = simulated([0.8, 0.6, 0.4], {})
    with pytest.raises(suel.UnidentifiableError, match=said):
        suel.fit(np.corrcoef(scores.T), groups, names(3))


def test_a_scorer_that_agrees_with_nobody_is_named() -> None:
    _, scores = simulated([0.8, 0.6, 0.5, 0.0], {})
    with pytest.raises(suel.UnidentifiableError, match="'s3' agrees with no scorer of another group"):
        suel.fit(np.corrcoef(scores.T), names(4), names(4))
    scores[:, 3] = -scores[:, 0]
    with pytest.raises(suel.UnidentifiableError, match="wrong way round"):
        suel.fit(np.corrcoef(scores.T), names(4), names(4))


def test_a_graph_without_an_odd_circle_determines_nothing() -> None:
    correlation = np.eye(4)
    for i, j in ((0, 1), (1, 2), (2, 3), (3, 0)):
        correlation[i, j] = correlation[j, i] = 0.3
    with pytest.raises(suel.UnidentifiableError, match="circle"):
        suel.fit(correlation, names(4), names(4))


def test_fallbacks_are_chosen_and_named() -> None:
    _, scores = simulated([0.8, 0.6, 0.4], {})
    correlation = np.corrcoef(scores.T)
    groups = {"a": "x", "b": "x"}
    with pytest.raises(Unusable, match="weights cannot be estimated: 3 scorers in 2 groups"):
        weigh(correlation, Weights(columns=("a", "b", "c"), groups=groups))
    method, found = weigh(correlation, Weights(columns=("a", "b", "c"), groups=groups, fallback="spectral"))
    assert method == "spectral"
    assert found.weights[0] > found.weights[1] > found.weights[2]
    method, found = weigh(correlation, Weights(columns=("a", "b", "c"), groups=groups, fallback="equal"))
    assert (method, found.weights.tolist()) == ("equal", [0.333333] * 3)
    assert weigh(correlation, Weights(columns=("a", "b", "c")))[0] == "suel"
    with pytest.raises(ValueError, match="are no columns"):
        Weights(columns=("a", "b"), groups={"z": "x"})


def test_correlations_are_exact_integers_beyond_64_bits() -> None:
    ranks = np.random.default_rng(1).integers(0, 20, (500, 3))
    big = 10**8
    found = correlation_of(500 * big, ranks.sum(axis=0) * big, (ranks.T @ ranks).ravel() * big, names(3))
    assert found == pytest.approx(np.corrcoef(ranks.T))
    still = ranks * np.array([1, 0, 1])
    with pytest.raises(Unusable, match=r"ranks of \['s1'\] are the same"):
        correlation_of(500, still.sum(axis=0), (still.T @ still).ravel(), names(3))


def cuts(columns: list[str], size: int = 20) -> pa.Table:
    rows = [{"column": c, "bucket": b, "above": None if b == 0 else b / size} for c in columns for b in range(size)]
    return pa.Table.from_pylist(rows, schema=pa.schema([("column", pa.string()), ("bucket", pa.int32()), ("above", pa.float32())]))


def test_the_ensemble_is_the_weighed_mean_of_ranks_over_the_scores_there_are() -> None:
    batch = pa.table({"a": pa.array([1.0, 0.52, None, None], pa.float32()), "b": pa.array([1.0, 0.01, 0.26, None], pa.float32())})
    given = pa.table({"column": ["b", "a"], "weight": [0.25, 0.75]})
    params = score.params(columns=["a", "b"])
    assert score(batch, params, cuts=cuts(["a", "b"]), weights=given)["ensemble"].to_pylist() == pytest.approx(
        [1.0, 0.75 * 10 / 19, 5 / 19, None], abs=1e-6
    )
    with pytest.raises(Unusable, match=r"hold \['a'\] and nothing for \['b'\]"):
        score(batch, params, cuts=cuts(["a", "b"]), weights=given.slice(1, 1))


RECIPE = """
name: weighed
steps:
  read:    {{uses: stages.ingest.jsonl.rows, with: {{paths: "{folder}/*.jsonl", columns: {{id: id}}, keep: {{a: float32, b: float32, c: float32}}}}}}
  fine:    {{uses: classifiers.buckets.cut_points, from: read, with: {{columns: [a, b, c], buckets: 100}}}}
  weighed: {{uses: classifiers.ensemble.weights, from: read, given: {{cuts: fine}}, with: {{columns: [a, b, c]}}}}
  one:     {{uses: classifiers.ensemble.score, from: read, given: {{cuts: fine, weights: weighed}}, with: {{columns: [a, b, c]}}}}
  cuts:    {{uses: classifiers.buckets.cut_points, from: one, with: {{columns: [ensemble]}}}}
  ranked:  {{uses: classifiers.buckets.label, from: one, given: {{cuts: cuts}}, with: {{columns: [ensemble]}}}}
"""


def test_an_ensemble_through_a_recipe_beats_its_members_and_depends_on_no_order(engines: Any, tmp_path: Path) -> None:
    label, scores = simulated([0.7, 0.6, 0.5], {}, 1500)
    rows = [
        {"id": f"{i:032x}", "text": "x", **dict(zip("abc", np.round(s, 4).tolist(), strict=True))} for i, s in enumerate(scores)
    ]
    found = {}
    for name, shards in (("one", 2), ("other", 5)):
        random.Random(shards).shuffle(rows)
        folder = tmp_path / f"rows-{name}"
        folder.mkdir()
        for shard in range(shards):
            (folder / f"{shard}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows[shard::shards]))
        engine = engines(name)
        assert engine.run(RECIPE.format(folder=folder)).code == 0
        ids = [r["id"] for r in engine.table("read")]
        found[name] = (engine.table("weighed"), {i: r["bucket"] for i, r in zip(ids, engine.table("ranked"), strict=True)})
    assert found["one"] == found["other"]
    told, buckets = found["one"]
    assert [r["method"] for r in told] == ["suel"] * 3
    assert told[0]["quality"] > told[1]["quality"] > told[2]["quality"]
    assert weights.name == "classifiers.ensemble.weights"
    truth = np.array([label[int(i, 16)] for i in buckets])
    best = max(auc(scores[:, j], label) for j in range(3))
    assert auc(np.array(list(buckets.values())), truth) > best + 0.02
    counts = np.bincount(list(buckets.values()), minlength=20)
    assert counts.min() > 40
    assert counts.max() < 110
