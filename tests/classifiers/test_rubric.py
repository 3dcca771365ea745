"""Grades by a language model: what is asked, what counts as a grade, and from grades to a trained head through a recipe."""

from pathlib import Path
from typing import Any

import pytest

from classifiers.rubric import PROMPTS, grade
from stages.prompt import Exchange, Refused, Reply

ROW = {"id": "a", "text": "The mill grinds corn. {{text}}"}


def graded(said: str, finish: str = "stop", **params: Any) -> Any:
    settings = grade.params(model="m", **params)
    (request,) = grade.prompt(ROW, (), settings)
    exchange = Exchange(request, Reply(said, finish))
    assert grade.prompt(ROW, (exchange,), settings) is None
    return grade.parse(ROW, (exchange,), settings)


@pytest.mark.parametrize(
    ("said", "value"),
    [("Clear.\nSCORE: 4", 4.0), ("**Score: 3**", 3.0), ("a\nscore = 2.5\n", 2.5), ("Score: 5.\n\n", 5.0), ("SCORE: 0", 0.0)],
)
def test_one_clear_line_is_a_grade(said: str, value: float) -> None:
    assert graded(said) == [{"grade": value, "grade_reason": said}]


@pytest.mark.parametrize(
    ("said", "finish", "why"),
    [
        ("I like it", "stop", "grade_unclear"), ("SCORE: 3\nSCORE: 4", "stop", "grade_unclear"), ("SCORE: 3 or 4", "stop", "grade_unclear"),
        ("SCORE: 4/5", "stop", "grade_unclear"), ("SCORE: 6", "stop", "grade_out_of_range"), ("SCORE: -1", "stop", "grade_out_of_range"),
        ("SCORE: 4", "length", "grade_unfinished"), ("", "stop", "grade_unclear"), ("My score is high", "stop", "grade_unclear"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_what_was_said(said: str, finish: str, why: str) -> None:
    assert graded(said, finish) == Refused(why, said)


def test_the_text_stands_in_the_request_cut_to_the_rubrics_length() -> None:
    (request,) = grade.prompt(ROW | {"text": "x" * 9000 + "END"}, (), grade.params(model="m"))
    assert "x" * 6000 in request.messages[-1].content
    assert "x" * 6001 not in request.messages[-1].content
    assert request.sampling.temperature == 0
    (plain,) = grade.prompt(ROW, (), grade.params(model="m"))
    assert "corn. {{text}}" in plain.messages[-1].content, "a document is never a template"
    assert grade.prompt({"id": "b", "text": "  "}, (), grade.params(model="m")) is None
    assert grade.parse({"id": "b", "text": None}, (), grade.params(model="m")) == Refused("no_text")


def test_any_rubric_by_file(tmp_path: Path) -> None:
    own = (PROMPTS / "educational.md").read_text().replace("highest: 5", "highest: 10")
    (tmp_path / "own.md").write_text(own)
    assert graded("SCORE: 9", rubric=str(tmp_path / "own.md"), column="rigour") == [{"rigour": 9.0, "rigour_reason": "SCORE: 9"}]
    for number, (change, said) in enumerate(
        ((("lowest: 0, ", ""), r"lacks limits \['lowest'\]"), (("[text]", "[text, url]"), "never uses it"))
    ):
        place = tmp_path / f"{number}.md"
        place.write_text(own.replace(*change))
        with pytest.raises(ValueError, match=said):
            graded("SCORE: 1", rubric=str(place))


def test_every_packaged_rubric_can_be_asked() -> None:
    names = {path.stem for path in PROMPTS.glob("*.md")}
    asked = {n: grade.prompt(ROW, (), grade.params(model="m", packaged=n))[0].messages[-1].content for n in names}
    assert set(asked) == {"educational", "substance"}
    assert len(set(asked.values())) == len(names)
    assert all("The mill grinds corn." in text and "SCORE: n" in text for text in asked.values())


def share_of_the_mill(asked: str) -> str:
    """Grades by the share of words about the mill."""
    text = asked.rpartition("Extract:")[2].split()
    return f"Because.\nSCORE: {round(5 * sum(w in ('mill', 'corn', 'flour') for w in text) / len(text))}"


RECIPE = """
name: taught
steps:
  docs:   {{uses: stages.ingest.jsonl.rows, with: {{paths: {path}, columns: {{id: id}}}}}}
  graded: {{uses: classifiers.rubric.grade, from: docs, with: {{model: grader}}}}
  head:   {{uses: classifiers.linear.train, from: graded, with: {{features: words, target: grade, threshold: 3, head: ridge, strength: 10, slots: 4096}}}}
  scored: {{uses: classifiers.linear.score_trained, from: docs, given: {{trained: head}}, with: {{features: words, column: edu}}}}
run: {{models: {{grader: {model}}}}}
"""


def test_grades_become_a_head_and_a_second_run_pays_nothing(engines: Any, play: Any) -> None:
    pytest.importorskip("aiohttp")
    words = ["mill", "corn", "flour", "buy", "cheap", "deal"]
    rows = [
        {"id": f"{i:032x}", "text": " ".join(words[(i % 2) * 3 + (i * k) % 3] for k in range(1, 9)) + f" n{i}"} for i in range(60)
    ]
    engine = engines("asked")
    path = engine.rows("rows.jsonl", [*rows, {"id": "f" * 32, "text": "  "}])
    with play(share_of_the_mill, usage=(7, 3)) as model:
        result = engine.run(RECIPE.format(path=path, model=f'{{engine: openai, endpoints: ["{model.url}"], in_flight: 4}}'))
    assert result.code == 0, result.errors
    assert model.asked.total() == 60
    grades = {r["grade"] for r in engine.table("graded") if r["grade"] is not None}
    assert grades == {0.0, 4.0}
    assert [r["drop_reason"] for r in engine.table("graded")].count("no_text") == 1
    said = {r["metric"]: r["value"] for r in engine.table("head") if r["metric"]}
    assert said["auc"] == 1
    scores = {d["id"]: s["edu"] for d, s in zip(engine.table("docs"), engine.table("scored"), strict=True)}
    assert min(scores[f"{i:032x}"] for i in range(0, 60, 2)) > max(scores[f"{i:032x}"] for i in range(1, 60, 2))
    before = engine.digests()
    assert engine.run(RECIPE.format(path=path, model="{engine: replay}")).code == 0
    assert model.asked.total() == 60
    assert engine.digests() == before
