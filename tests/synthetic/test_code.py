"""Prompts about code as pure functions: what is asked, and what becomes of an answer."""

from __future__ import annotations

from typing import Any

import pytest

from stages.prompt import Exchange, Refused, Reply
from synthetic.code import cleaning, fences, rewriting, teaching

SOURCE = "def f(a):\n    return a + 1\n"


def words(text: str) -> int:
    return len(text.split())


def talk(stage: Any, row: dict[str, Any], *answers: str, finish: str = "stop", **params: Any) -> Any:
    settings = stage.params(model="m", **params)
    requests = stage.prompt(row, (), settings, model=words) or []
    assert len(requests) == len(answers)
    replies = tuple(Exchange(request, Reply(answer, finish)) for request, answer in zip(requests, answers, strict=True))
    assert not replies or stage.prompt(row, replies, settings, model=words) is None
    return stage.parse(row, replies, settings, model=words)


REWRITES = [
    (
        "Rating: 4\n- names\n```python\ndef f(value):\n    return value + 1\n```\nDone.",
        "def f(value):\n    return value + 1\n",
        None,
    ),
    ("```\nx = 1\n```", "x = 1\n", None),
    ("```json\n{}\n```\nand\n~~~py\nx = 2\n~~~", "x = 2\n", None),
    ("The code is fine as it is.", "", "no_code"),
    ("I'm sorry, I cannot do that.", "", "refusal"),
    ("```python\nx = 1\n", "", "no_code"),
]


@pytest.mark.parametrize(("answer", "code", "fault"), REWRITES)
def test_a_rewrite_is_the_first_fenced_block(answer: str, code: str, fault: str | None) -> None:
    row = {"id": "1", "text": SOURCE}
    assert talk(rewriting.style, row, answer) == [
        {"text": code, "source_text": SOURCE, "code_language": "Python", "answer_fault": fault}
    ]
    if fault:
        assert talk(rewriting.style, row, answer, keep_refused=False).reason == fault


def test_rewrites_that_are_cut_off_or_too_long_have_a_reason() -> None:
    row = {"id": "1", "text": SOURCE}
    assert talk(rewriting.self_contained, row, "```python\nx = 1\n```", finish="length")[0]["answer_fault"] == "unfinished"
    assert talk(rewriting.self_contained, {"id": "1", "text": "x = 1\n" * 9000})[0]["answer_fault"] == "too_long"
    assert talk(rewriting.to_cpp, row, "```cpp\nint main() {}\n```")[0] == {
        "text": "int main() {}\n", "source_text": SOURCE, "code_language": "C++", "answer_fault": None,
    }  # fmt: skip
    assert talk(rewriting.to_cpp, row, "```python\nx = 1\n```")[0]["answer_fault"] == "no_code"


def test_the_source_stands_in_the_request_and_nothing_in_it_is_filled_in() -> None:
    settings = rewriting.Rewriting(model="m")
    (request,) = rewriting.style.prompt({"id": "1", "text": "x = '{{text}}'"}, (), settings, model=words)
    assert "x = '{{text}}'" in request.messages[-1].content
    assert (request.sampling.temperature, request.sampling.top_p, request.sampling.max_tokens) == (0.2, 0.7, 8192)


QA = "Question: Write a function that adds one.\nAnswer: Add it.\n```python\ndef f(a):\n    return a + 1\n```\nIt takes constant time."
LESSON = "Student: What does this do?\n```python\ndef f(a):\n    return a + 1\n```\nTeacher: What is f(1)?\nStudent: 2.\n**Teacher:** And f(-1)?\n```\nStudent: inside of code\n```"


def test_texts_about_code_have_the_form_that_was_asked_for() -> None:
    row = {"id": "1", "text": SOURCE, "code_language": "Python"}
    (made,) = talk(teaching.question_answer, row, QA)
    assert made["text"].startswith("Write a function that adds one.\n\nAdd it.\n```python\n")
    (lesson,) = talk(teaching.lesson, row, "Here it is:\n" + LESSON)
    assert [name for name, _ in fences.turns(lesson["text"], ("Student", "Teacher"))] == [
        "Student",
        "Teacher",
        "Student",
        "Teacher",
    ]
    assert "Student: inside of code" in lesson["text"]
    (review,) = talk(teaching.review, row, LESSON.replace("Student", "Author").replace("Teacher", "Reviewer"))
    assert review["task"] == "review"


@pytest.mark.parametrize(
    ("stage", "answer", "finish", "reason"),
    [
        ("question_answer", "Just do it.", "stop", "no_pairs"),
        ("question_answer", QA.replace("def f(a):", "def f(a:"), "stop", "code_does_not_parse"),
        ("question_answer", "Question: Why?\nAnswer: Because.", "stop", "no_code"),
        ("question_answer", QA.replace("python", "cpp"), "stop", "code_does_not_parse"),
        ("lesson", "Student: Hm.\nTeacher: Yes.", "stop", "too_few_turns"),
        ("review", QA, "length", "unfinished"),
        ("review", "I cannot help with that.", "stop", "refusal"),
    ],
)
def test_texts_about_code_that_are_not_fit_have_a_reason(stage: str, answer: str, finish: str, reason: str) -> None:
    made = talk(getattr(teaching, stage), {"id": "1", "text": SOURCE, "code_language": "Python"}, answer, finish=finish)
    assert isinstance(made, Refused)
    assert made.reason == reason


def test_pages_are_cut_at_paragraphs_and_joined_again() -> None:
    page = "\n\n".join(f"Paragraph {n} " + "word " * 30 for n in range(6))
    settings = cleaning.Cleaning(model="m", chunk_tokens=80)
    requests = cleaning.pages.prompt({"id": "1", "text": page}, (), settings, model=words)
    assert "".join(request.tag for request in requests) == page
    assert all(request.tag.startswith("Paragraph") for request in requests)
    assert len(requests) == 3
    made = talk(cleaning.pages, {"id": "1", "text": page}, "One.", "NOTHING USEFUL", "Three.", chunk_tokens=80)
    assert made == [{"text": "One.\n\nThree.", "source_text": requests[0].tag + requests[2].tag, "chunks": 3, "chunks_useful": 2}]
    made = talk(cleaning.pages, {"id": "1", "text": page}, "One.", "Sure, here is the text", "Three.", chunk_tokens=80)
    assert [one.reason for one in made if isinstance(one, Refused)] == ["preamble"]
    assert talk(cleaning.pages, {"id": "1", "text": page}, *["Nothing useful."] * 3, chunk_tokens=80).reason == "nothing_useful"
    assert talk(cleaning.pages, {"id": "1", "text": ""}).reason == "no_text"
    assert (
        talk(cleaning.pages, {"id": "1", "text": page}, "One.", "Two.", "Three.", chunk_tokens=80, max_chars=100)[0]["text"]
        == "One.\n\nTwo.\n\nThree."
    )


def test_a_chunk_that_begins_inside_of_code_keeps_its_indentation() -> None:
    (made,) = talk(cleaning.pages, {"id": "1", "text": "Words."}, "\n  \n    return x\n```\n\nThe end. \n")
    assert made["text"] == "    return x\n```\n\nThe end."
    assert talk(cleaning.pages, {"id": "1", "text": "Words."}, " \n \n").reason == "nothing_useful"
