import gzip
import html
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages import characters
from stages.contract import TEXT
from stages.decontam.items import read_items
from stages.decontam.ngrams import mark, report
from stages.dedup.spans import cut

DATA = Path(__file__).parents[3] / ".." / "shared" / "data" / "dev" / "decontam"
QUESTION = "A farmer has seventeen sheep and all but nine of them run away, how many sheep does the farmer have left now?"
OTHER = "Which planet of the solar system has the largest number of known moons according to recent counts by astronomers?"


def written(folder: Path, items: list[dict[str, Any]], name: str = "riddles.jsonl") -> str:
    (folder / name).write_text("".join(json.dumps(i) + "\n" for i in items))
    return str(folder / name)


def frame(texts: list[str | None]) -> pa.Table:
    return pa.table({"text": pa.array(texts, TEXT)})


def marked(texts: list[str | None], benchmarks: str, **params: Any) -> pa.Table:
    chosen = mark.params(benchmarks=benchmarks, **params)
    return mark(frame(texts), chosen, model=mark.model(chosen))


def reported(texts: list[str | None], benchmarks: str, **params: Any) -> list[dict[str, Any]]:
    chosen = report.params(benchmarks=benchmarks, **params)
    return report(frame(texts), chosen, model=report.model(chosen)).to_pylist()


DISGUISES = [
    QUESTION,
    QUESTION.upper().replace(",", " --"),
    "\n".join(f" * {word}" for word in QUESTION.split()),
    html.escape(QUESTION.replace("sheep", '"sheep"')).replace(" ", "&nbsp;"),
    QUESTION.replace(" ", "\u3000"),
]


@pytest.mark.parametrize("text", DISGUISES)
def test_case_marks_spaces_and_entities_hide_nothing(tmp_path: Path, text: str) -> None:
    place = written(tmp_path, [{"question": QUESTION}, {"question": OTHER}])
    (row,) = marked([f"Some words before. {text} And some after."], place).to_pylist()
    assert row["drop_reason"] == "contaminated"
    assert row["contaminated_by"] == "riddles/riddles/0"
    assert row["contamination_share"] == 1.0
    assert row["contamination_grams"] == len(QUESTION.split()) - 12


def test_fewer_words_than_an_n_gram_are_not_enough(tmp_path: Path) -> None:
    place = written(tmp_path, [{"question": QUESTION}])
    words = QUESTION.split()
    table = marked([" ".join(words[:12]) + " end", " ".join(words[3:16]), None, ""], place)
    assert table["drop_reason"].to_pylist() == [None, "contaminated", None, None]
    assert marked([" ".join(words[3:16])], place, min_share=0.5)["drop_reason"].to_pylist() == [None]


def test_short_items_are_found_as_a_whole_and_tiny_ones_never(tmp_path: Path) -> None:
    nine, five = "the quick brown fox jumps over the lazy dog", "what is the capital city"
    place = written(tmp_path, [{"question": nine}, {"question": five}])
    texts = [f"see: {nine}!", "the quick brown fox jumps over the lazy cat", five]
    assert marked(texts, place)["contaminated_by"].to_pylist() == ["riddles/riddles/0", None, None]


def test_the_form_of_a_task_is_no_contamination(tmp_path: Path) -> None:
    form = "Read the following passage with care and then choose the one answer that fits it best of all:"
    place = written(tmp_path, [{"question": f"{form} number{n} {QUESTION if n == 3 else ''}"} for n in range(12)])
    table = marked([form, f"{form} {QUESTION}"], place)
    assert table["contaminated_by"].to_pylist() == [None, "riddles/riddles/3"]
    assert marked([form], place, most_items=20)["drop_reason"].to_pylist() == ["contaminated"]


def test_a_document_is_reported_once_for_every_item_with_the_stretch_found(tmp_path: Path) -> None:
    place = written(tmp_path, [{"question": QUESTION}, {"question": OTHER}])
    rows = reported(["clean", f"{OTHER} Between them. {QUESTION} {QUESTION}"], place)
    assert [(r["parent"], r["k"], r["item"]) for r in rows] == [(1, 0, "riddles/0"), (1, 1, "riddles/1")]
    assert rows[0]["excerpt"] == QUESTION.removesuffix("?")
    assert rows[0]["share"] == rows[1]["share"] == 1.0


def test_marked_items_can_be_cut_out(tmp_path: Path) -> None:
    place = written(tmp_path, [{"question": QUESTION}])
    texts = [f"Before it. {QUESTION} After it, and quite a lot of other words that nobody has asked for.", "Nothing here."]
    table = marked(texts, place, policy="mark")
    assert table["drop_reason"].null_count == 2
    spans = table.append_column("text", frame(texts)["text"])
    made = cut(spans, cut.params(column="contaminated_spans", borders="words"))
    assert made["text"].to_pylist()[1] == texts[1]
    assert "sheep" not in made["text"].to_pylist()[0].replace("now?", "")
    assert made["text"].to_pylist()[0].startswith("Before it. ")


def test_files_are_read_as_their_authors_publish_them(tmp_path: Path) -> None:
    written(tmp_path, [{"question": QUESTION, "answer": "9"}], "gsm8k.jsonl")
    with gzip.open(tmp_path / "HumanEval.jsonl.gz", "wt") as file:
        file.write(json.dumps({"task_id": "HumanEval/0", "prompt": "def f():\n", "canonical_solution": "  return 1"}) + "\n")
    (tmp_path / "mmlu" / "test").mkdir(parents=True)
    (tmp_path / "mmlu" / "test" / "anatomy_test.csv").write_text(f'"{OTHER}",Mars,Venus,Saturn,Earth,C\n')
    pq.write_table(pa.table({"goal": ["open a jar"], "benchmark": ["piqa"], "id": ["p1"]}), tmp_path / "other.parquet")
    found = {(i.benchmark, i.name, i.text) for i in read_items(str(tmp_path), mark.params(benchmarks="x").fields)}
    assert found == {
        ("gsm8k", "gsm8k/0", QUESTION), ("HumanEval", "HumanEval/0", "def f():\n"), ("mmlu", "anatomy_test/0", OTHER),
        ("piqa", "p1", "open a jar"),
    }  # fmt: skip


def test_unreadable_benchmarks_name_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        read_items(str(tmp_path / "no"), ("question",))
    with pytest.raises(ValueError, match="no items"):
        read_items(str(tmp_path), ("question",))
    with pytest.raises(ValueError, match="name its field in `fields`"):
        read_items(written(tmp_path, [{"frage": "x"}]), ("question",))
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(ValueError, match="not one of"):
        read_items(str(tmp_path / "x.txt"), ("question",))


def plain_words(text: str) -> list[str]:
    classes, fold = characters.tables()
    words, now = [], ""
    for char in text:
        bits = int(classes[ord(char)])
        if bits & characters.LONE and not bits & characters.COMBINING:
            words += [now] * bool(now) + [char]
            now = ""
        elif bits & (characters.ALNUM | characters.COMBINING):
            now += chr(int(fold[ord(char)]))
        else:
            words += [now] * bool(now)
            now = ""
    return words + [now] * bool(now)


SENTENCES = st.lists(st.sampled_from(["One", "two", "THREE,", "four.", "fünf", "日本", "x-y", "7"]), max_size=14).map(" ".join)


@settings(deadline=None, max_examples=120)
@given(st.lists(SENTENCES, min_size=1, max_size=3), SENTENCES, st.integers(2, 5), st.integers(1, 3))
def test_n_grams_found_are_those_of_a_plain_twin(tmp_path_factory: Any, items: list[str], text: str, size: int, least: int) -> None:
    place = written(tmp_path_factory.mktemp("b"), [{"question": i or "-", "id": str(n)} for n, i in enumerate(items)])
    grams: list[set[tuple[str, ...]]] = []
    for item in items:
        words = plain_words(item)
        whole = {tuple(words)} if min(least, size) <= len(words) < size else set()
        grams.append({tuple(words[i : i + size]) for i in range(len(words) - size + 1)} or whole)
    words = plain_words(text)
    have = {tuple(words[i : i + n]) for n in range(1, size + 1) for i in range(len(words) - n + 1)}
    expected = {str(n): len(g & have) for n, g in enumerate(grams) if g & have}
    got = reported([text], place, size=size, least_words=min(least, size))
    assert {r["item"]: r["grams"] for r in got} == expected


def test_planted_items_are_found_and_controls_are_left_alone() -> None:
    if not DATA.exists():
        pytest.skip("../shared is absent")
    with gzip.open(DATA / "contaminated_docs.jsonl.gz", "rt") as file:
        docs = [json.loads(line) for line in file]
    table = marked([d["text"] for d in docs], str(DATA / "benchmarks.jsonl.gz"))
    found = Counter(d["how"] for d, reason in zip(docs, table["drop_reason"].to_pylist(), strict=True) if reason)
    assert not any(how.startswith("control") for how in found)
    for how in ("verbatim question", "question and answer", "HTML-escaped and bulleted"):
        assert found[how] == 30, how
    assert found["case and punctuation changed"] >= 29
    assert found["whitespace and line breaks changed"] >= 29
    # What 13 words in a row cannot see is not claimed: halves of short questions and rewritten ones.
    assert 15 <= found["first half of the question"] < 30


def test_a_batch_with_more_hits_than_first_foreseen_gives_all_of_them(tmp_path: Path) -> None:
    rng = random.Random(0)
    words = [f"w{n}" for n in range(200)]
    text = " ".join(rng.choice(words) for _ in range(20_000))
    place = written(tmp_path, [{"question": text}])
    (row,) = marked([text], place).to_pylist()
    assert row["contamination_grams"] == len({tuple(text.split()[i : i + 13]) for i in range(20_000 - 12)})
    assert np.frombuffer(row["contaminated_spans"], "<i8").tolist() == [0, len(text)]
