"""A model trained by a recipe: the same as the plain function's, whatever the partitions, and read by KenLM."""

import io
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from classifiers.kneser_ney import train, write_arpa
from classifiers.ngram_model import Arpa, Counting, Estimate, arpa, counts, estimate
from classifiers.perplexity import WORST
from classifiers.sentences import sentences, tokens
from stages.contract import TEXT

LINES = [
    "The mill grinds corn by the river.\nThe wheel of the mill turns slowly.",
    "The miller sells flour and corn.\n\nA river runs by the old mill.",
    "",
    "Corn grows by the river, and the mill grinds it.\nThe mill by the river grinds slowly.",
    "The old wheel turns and the mill grinds.",
]
RECIPE = """\
name: trained
steps:
  page: {{uses: stages.ingest.jsonl.rows, with: {{paths: '{folder}/*.jsonl'}}}}
  grams: {{uses: classifiers.ngram_model.counts, from: page, with: {{order: 3, partitions: {partitions}}}}}
  model: {{uses: classifiers.ngram_model.estimate, from: grams}}
  file: {{uses: classifiers.ngram_model.arpa, from: model, with: {{compressed: {compressed}}}}}
"""


def files(engine: Any) -> list[Path]:
    return sorted(path for path in (engine.store.root / "objects").glob("file-*/**/*.arpa*") if path.is_file())


def trained(engine: Any, texts: list[str], *, partitions: int = 2, compressed: str = "false", halves: int = 2) -> Path:
    for half in range(halves):
        engine.rows(f"{half}.jsonl", [{"text": text} for text in texts[half::halves]])
    result = engine.run(RECIPE.format(folder=engine.folder, partitions=partitions, compressed=compressed))
    assert not result.errors
    (path,) = files(engine)
    return path


def by_hand(texts: list[str], order: int = 3) -> str:
    out = io.StringIO()
    write_arpa(train([line for text in texts for line in sentences(text)], order), out)
    return out.getvalue()


@pytest.mark.parametrize(("partitions", "halves"), [(1, 1), (3, 2)])
def test_the_steps_write_the_model_of_the_plain_function(engines: Any, partitions: int, halves: int) -> None:
    path = trained(engines(f"p{partitions}"), LINES, partitions=partitions, halves=halves)
    assert path.read_text() == by_hand(LINES)


def test_counts_and_model_are_tables(engine: Any) -> None:
    trained(engine, LINES)
    grams = {row["ngram"]: (row["order"], row["count"]) for row in engine.table("grams")}
    assert grams["the mill"] == (2, 5)
    assert grams["<s> the"] == (2, 5)
    assert grams["slowly . </s>"] == (3, 2)
    assert "<s>" not in grams
    model = engine.table("model")
    assert [row["order"] for row in model] == sorted(row["order"] for row in model)
    assert math.isclose(
        sum(10 ** float(r["line"].split("\t")[0]) for r in model if r["order"] == 1 and r["ngram"] != "<s>"), 1, abs_tol=1e-5
    )


def test_a_compressed_file_holds_the_same_model(engine: Any) -> None:
    import gzip

    path = trained(engine, LINES, compressed="true")
    assert path.suffixes[-2:] == [".arpa", ".gz"]
    assert gzip.decompress(path.read_bytes()).decode() == by_hand(LINES)


def test_a_corpus_without_a_line_is_refused() -> None:
    empty = counts.emit(pa.table({"text": pa.array([" \n", None], TEXT)}), Counting(), model=tokens)
    assert empty.num_rows == 0
    with pytest.raises(ValueError, match="no sentence to train on"):
        list(estimate.settle(iter([empty]), Estimate()))


def test_the_file_of_a_model_in_two_shards_is_refused() -> None:
    with pytest.raises(ValueError, match="a model is one shard"):
        arpa.finish([{"name": "a", "rows": 3}, {"name": "b", "rows": 2}], Arpa())


def test_a_second_recipe_scores_with_the_trained_file(engine: Any) -> None:
    pytest.importorskip("kenlm")
    path = trained(engine, LINES * 3)
    engine.rows("new/0.jsonl", [{"text": "The mill turns slowly."}, {"text": "zebra quantum 9 lines"}, {"text": ""}])
    engine.run(f"""\
        name: scored
        steps:
          page: {{uses: stages.ingest.jsonl.rows, with: {{paths: '{engine.folder}/new/*.jsonl'}}}}
          score: {{uses: classifiers.perplexity.score, from: page, with: {{model: '{path}', head: 40, tail: 200}}}}
        """)
    rows = engine.table("score")
    assert rows[0]["perplexity"] < rows[1]["perplexity"] / 2
    assert rows[2]["perplexity"] == WORST
    assert [row["perplexity_label"] for row in rows][2] == "tail"
