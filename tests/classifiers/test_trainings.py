"""fastText and linear heads: trained as steps, scored by the same recipe and from files, and what is refused."""

import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifiers import fasttext, linear, trained
from classifiers.fasttext_file import check
from classifiers.language import SHIPPED
from classifiers.trained import Training, auc, file_of, measures, trained_rows
from stages.contract import TEXT, Unusable

GOOD = [
    "the",
    "water",
    "of",
    "the",
    "river",
    "turns",
    "a",
    "wheel",
    "and",
    "the",
    "wheel",
    "drives",
    "stones",
    "that",
    "grind",
    "corn",
    "into",
    "flour",
]
POOR = [
    "buy",
    "cheap",
    "deal",
    "now",
    "click",
    "free",
    "shipping",
    "sale",
    "order",
    "today",
    "best",
    "price",
    "offer",
    "win",
    "cash",
]


def rows(count: int = 120) -> list[dict[str, Any]]:
    rng = random.Random(2)
    found = []
    for i in range(count):
        good = i % 2
        words = [rng.choice(GOOD if rng.random() < (0.8 if good else 0.2) else POOR) for _ in range(40)]
        vector = [float(good) + rng.gauss(0, 0.5), rng.gauss(0, 1), 1.0]
        found.append(
            {"id": f"{i:032x}", "text": " ".join(words), "label": good, "kind": "book" if good else "ad", "vector": vector}
        )
    return found


RECIPE = """
name: quality
steps:
  read:    {{uses: stages.ingest.jsonl.rows, with: {{paths: "{folder}/*.jsonl", columns: {{id: id}}, keep: {{label: float64, kind: string, vector: "list<float32>"}}}}}}
  bags:    {{uses: classifiers.fasttext.train, from: read, with: {{dim: 8, bucket: 1000, epochs: 25}}}}
  head:    {{uses: classifiers.linear.train, from: read, with: {{target: kind, positive: [book], vectors: vector}}}}
  grams:   {{uses: classifiers.linear.train, from: read, with: {{features: words, slots: 4096, strength: 10}}}}
  one:     {{uses: classifiers.fasttext.score_trained, from: read, given: {{trained: bags}}, with: {{column: bag}}}}
  two:     {{uses: classifiers.linear.score_trained, from: one, given: {{trained: head}}, with: {{vectors: vector, column: vec}}}}
  three:   {{uses: classifiers.linear.score_trained, from: two, given: {{trained: grams}}, with: {{features: words, column: gram}}}}
  files:   {{uses: classifiers.trained.saved, from: bags}}
  weights: {{uses: classifiers.trained.saved, from: grams}}
"""


def write(folder: Path, shards: int, reverse: bool = False) -> Path:
    folder.mkdir()
    everything = rows()
    for shard in range(shards):
        name = f"{shards - shard if reverse else shard}.jsonl"
        (folder / name).write_text("".join(json.dumps(r) + "\n" for r in everything[shard::shards]))
    return folder


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, engine_in: Any) -> Any:
    folder = tmp_path_factory.mktemp("trained")
    engine = engine_in(folder)
    result = engine.run(RECIPE.format(folder=write(folder / "a", 2)))
    assert result.code == 0, result.errors
    return engine


def by_id(engine: Any, step: str, column: str) -> dict[str, float]:
    return {r["id"]: s[column] for r, s in zip(engine.table("read"), engine.table(step), strict=True)}


def metrics(engine: Any, step: str) -> dict[str, float]:
    return {r["metric"]: r["value"] for r in engine.table(step) if r["metric"]}


def saved(engine: Any, step: str, suffix: str) -> Path:
    (found,) = (engine.store.root / "objects").glob(f"{step}-*/parts/*{suffix}")
    return Path(found)


@pytest.mark.parametrize(("train", "score", "column"), [("bags", "one", "bag"), ("head", "two", "vec"), ("grams", "three", "gram")])
def test_trained_scorers_tell_good_from_poor_and_say_how_well(done: Any, train: str, score: str, column: str) -> None:
    said = metrics(done, train)
    assert said["trained_documents"] + said["held_out_documents"] == 120
    assert 10 <= said["held_out_documents"] <= 40
    assert said["auc"] > 0.9
    scores = by_id(done, score, column)
    truth = np.array([int(i, 16) % 2 for i in scores], bool)
    assert auc(np.array(list(scores.values())), truth) > 0.9
    assert all(0 <= s <= 1 for s in scores.values())


def test_a_training_depends_on_documents_and_not_on_their_files(done: Any, engine: Any, tmp_path: Path) -> None:
    assert engine.run(RECIPE.format(folder=write(tmp_path / "b", 5, reverse=True))).code == 0
    for step in ("bags", "head", "grams"):
        assert engine.table(step) == done.table(step)


def test_saved_models_score_as_in_the_recipe_that_trained_them(done: Any) -> None:
    texts = [r["text"] for r in rows()]
    batch = pa.table({"text": pa.array([*texts, None, "  \n"], TEXT)})
    bag = fasttext.score.params(model=str(saved(done, "files", "model.bin")), column="bag")
    found = fasttext.score(batch, bag, model=fasttext.score.model(bag))["bag"].to_pylist()
    assert found[-2:] == [None, None]
    expected = by_id(done, "one", "bag")
    assert {r["id"]: s for r, s in zip(rows(), found, strict=False)} == expected
    gram = linear.score.params(model=str(saved(done, "weights", "head.npz")), features="words")
    scores = linear.score(batch.slice(0, 120), gram, model=linear.score.model(gram))["quality"].to_pylist()
    assert {r["id"]: s for r, s in zip(rows(), scores, strict=True)} == by_id(done, "three", "gram")
    said = json.loads(saved(done, "files", "metrics.json").read_text())
    assert said == metrics(done, "bags")


def test_the_logistic_head_is_the_one_that_scikit_learn_fits(done: Any) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    everything = rows()
    params = linear.train.params(vectors="vector")
    raw = np.array([r["vector"] for r in everything])
    good = np.array([r["label"] for r in everything], bool)
    head = linear.fit(raw, good.astype(float), good, params)
    assert linear.load(head.dump(), "x").dump() == head.dump()
    assert head.dump() == linear.fit(raw, good.astype(float), good, params).dump()
    scaled = StandardScaler().fit(raw)
    plain = LogisticRegression(C=0.1, max_iter=2000).fit(scaled.transform(raw), good)
    assert head.scores(raw) == pytest.approx(plain.predict_proba(scaled.transform(raw))[:, 1], abs=1e-5)
    level = linear.fit(raw, raw[:, 0], good, linear.train.params(vectors="vector", head="ridge", strength=100.0))
    assert np.corrcoef(level.scores(raw), raw[:, 0])[0, 1] > 0.99
    assert level.facts["low"] == raw[:, 0].min()


def test_a_published_fasttext_file_that_is_cut_off_or_of_another_kind_is_refused(done: Any, tmp_path: Path) -> None:
    content = saved(done, "files", "model.bin").read_bytes()
    place = tmp_path / "m.bin"
    for size in (0, 4, 30, 100, len(content) // 2, len(content) - 1):
        place.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"no fastText model there|not a fastText model|cut off"):
            fasttext.score.model(fasttext.score.params(model=str(place)))
    place.write_bytes(content + b"x")
    with pytest.raises(ValueError, match="1 bytes behind the end"):
        check(place)
    place.write_bytes(b"4 3\nword 0.1 0.2 0.3\n" * 9)
    with pytest.raises(ValueError, match="not a fastText model"):
        check(place)
    vectors = bytearray(content)
    struct.pack_into("<i", vectors, 8 + 7 * 4, 1)
    place.write_bytes(vectors)
    with pytest.raises(ValueError, match="trained for word vectors"):
        check(place)
    check(SHIPPED)
    with pytest.raises(ValueError, match="no label __label__hq; it has"):
        fasttext.score.model(fasttext.score.params(model=str(SHIPPED)))
    with pytest.raises(ValueError, match="no fastText model there"):
        check(tmp_path / "none.bin")


def test_a_quantized_model_in_the_published_format_is_read_by_path(tmp_path: Path) -> None:
    params = fasttext.score.params(model=str(SHIPPED), label="__label__en", column="english", max_chars=50)
    out = fasttext.score(
        pa.table({"text": pa.array(["The mill stands\nby the river", "Die Mühle am Fluss"], TEXT)}),
        params,
        model=fasttext.score.model(params),
    )
    found = out["english"].to_pylist()
    assert found[0] > 0.9
    assert found[1] < 0.1


def test_a_file_that_is_no_head_is_refused(done: Any, tmp_path: Path) -> None:
    content = saved(done, "weights", "head.npz").read_bytes()
    place = tmp_path / "h.npz"
    for wrong in (b"", content[: len(content) // 2], b"PK\x03\x04 nonsense", saved(done, "files", "model.bin").read_bytes()[:500]):
        place.write_bytes(wrong)
        with pytest.raises(ValueError, match="not a linear head"):
            linear.score.model(linear.score.params(model=str(place)))
    np.savez(place, facts=np.array([{"a": 1}], object))
    with pytest.raises(ValueError, match="not a linear head"):
        linear.score.model(linear.score.params(model=str(place)))
    place.write_bytes(content)
    wrong_kind = linear.score.params(model=str(place))
    batch = pa.table({"embedding": pa.array([[1.0, 2.0]], pa.list_(pa.float32()))})
    with pytest.raises(Unusable, match="trained on words, this step reads vectors"):
        linear.score(batch, wrong_kind, model=linear.score.model(wrong_kind))


def test_vectors_of_other_lengths_and_without_numbers_are_refused(done: Any) -> None:
    given = pa.Table.from_pylist(list(done.table("head")))
    params = linear.score_trained.params()

    def scored(*vectors: list[float] | None) -> Any:
        batch = pa.table({"embedding": pa.array(vectors, pa.list_(pa.float32()))})
        return linear.score_trained(batch, params, trained=given)["quality"].to_pylist()

    assert scored(None, [1.0, 0.0, 1.0])[0] is None
    with pytest.raises(Unusable, match="3 weights, the vectors 2 dimensions"):
        scored([1.0, 2.0])
    with pytest.raises(ValueError, match="2, 3"):
        scored([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="no number"):
        scored([1.0, float("nan"), 3.0])
    with pytest.raises(Unusable, match=r"holds \['head.npz'\] and not one .bin"):
        file_of(given, ".bin")


def test_one_kind_of_rows_is_nothing_to_learn(engine: Any, tmp_path: Path) -> None:
    text = RECIPE.replace("positive: [book]", "positive: [poem]")
    result = engine.run(text.format(folder=write(tmp_path / "b", 1)))
    assert result.code != 0
    assert "documents with a target, 0 of them good" in str(result.errors)


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=40))
def test_auc_is_the_share_of_pairs_in_order(pairs: list[tuple[int, bool]]) -> None:
    scores, good = np.array([s for s, _ in pairs], float), np.array([g for _, g in pairs], bool)
    wins = [(a > b) + (a == b) / 2 for a in scores[good] for b in scores[~good]]
    assert auc(scores, good) == pytest.approx(np.mean(wins) if wins else np.nan, nan_ok=True)


def test_measures_at_the_operating_point() -> None:
    found = measures(np.array([0.9, 0.6, 0.4, 0.2]), np.array([1.0, 0, 1, 0]), Training(), 0.5)
    assert (found["precision"], found["recall"], found["kept_share"], found["auc"]) == (0.5, 0.5, 0.5, 0.75)


def test_large_files_are_cut_into_pieces_and_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained, "PIECE", 7)
    content = bytes(range(50))
    table = trained_rows({"a.bin": content, "b.json": b""}, {"auc": 0.5})
    assert table.num_rows == 8 + 1 + 1
    assert file_of(table.take(list(range(table.num_rows))[::-1]), ".bin") == content
    assert file_of(table, ".json") == b""


UNION = """
name: union
steps:
  books: {{uses: stages.ingest.jsonl.rows, with: {{paths: {books}, columns: {{id: id}}}}}}
  crawl: {{uses: stages.ingest.jsonl.rows, with: {{paths: {crawl}, columns: {{id: id}}}}}}
  bags:  {{uses: classifiers.fasttext.train, from: [books, crawl], with: {{target: step, positive: [books], dim: 8, bucket: 1000, epochs: 25}}}}
"""


def test_where_a_row_came_from_may_be_its_target(engine: Any) -> None:
    books = engine.rows("books.jsonl", [{"id": r["id"], "text": r["text"]} for r in rows() if r["label"]])
    crawl = engine.rows("crawl.jsonl", [{"id": r["id"], "text": r["text"]} for r in rows() if not r["label"]])
    result = engine.run(UNION.format(books=books, crawl=crawl))
    assert result.code == 0, result.errors
    said = metrics(engine, "bags")
    assert said["trained_documents"] + said["held_out_documents"] == 120
    assert said["auc"] > 0.9
