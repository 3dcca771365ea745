"""Document question answering as a pure function: which pieces are asked about, and what is appended."""

from __future__ import annotations

from typing import Any

import pytest

from stages.prompt import Exchange, Refused, Reply, read_prompt
from synthetic.document_qa import PROMPT, DocumentQA, chosen, questions

LONG = "\n\n".join(f"Paragraph {n} tells of mill {n}, which grinds {n} sacks a day and stands by the river." for n in range(200))
GOOD = "Question: How many sacks does mill {0} grind?\nAnswer: It grinds {0} sacks a day."


def words(text: str) -> int:
    return len(text.split())


def settings(**params: Any) -> DocumentQA:
    return DocumentQA.model_validate({"model": "m", "min_document_tokens": 500, "piece_tokens": 64, **params})


def asked(text: str = LONG, **params: Any) -> Any:
    return questions.prompt({"id": "d1", "text": text}, (), settings(**params), model=words)


def parsed(replies: list[Reply], text: str = LONG, **params: Any) -> Any:
    requests = asked(text, **params)
    exchanges = [Exchange(request, reply) for request, reply in zip(requests, replies, strict=True)]
    return questions.parse({"id": "d1", "text": text}, tuple(exchanges), settings(**params), model=words)


def test_the_prompt_is_sound() -> None:
    assert read_prompt(PROMPT).name == "document_qa/questions"


def test_a_random_tenth_of_the_pieces_is_asked_about() -> None:
    requests = asked()
    pieces = [request.messages[-1].content.split("Piece:\n", 1)[1].strip() for request in requests]
    assert all(piece in LONG and words(piece) <= 64 for piece in pieces)
    total = words(LONG) / 60
    assert total * 0.07 < len(requests) < total * 0.13
    assert [int(r.tag) for r in requests] == sorted(int(r.tag) for r in requests)
    assert len(asked(share=0.3)) > 2 * len(requests)
    assert chosen("d1", 100, settings()) == chosen("d1", 100, settings()) != chosen("d2", 100, settings())
    assert chosen("d1", 3, settings()) != []


def test_all_pairs_stand_at_the_end_of_the_document() -> None:
    count = len(asked())
    (row,) = parsed([Reply(GOOD.format(n)) for n in range(count)])
    assert row["text"].startswith(LONG + "\n\nQuestion: How many sacks does mill 0 grind?\nAnswer: It grinds 0 sacks")
    assert row["text"].count("\nAnswer: ") == row["pairs"] == count
    assert row["source_text"] == LONG
    assert row["tokens"] == words(row["text"])


def test_pieces_that_give_nothing_are_refused_and_the_others_stay() -> None:
    count = len(asked())
    bad = [Reply("NOTHING"), Reply("No pairs here."), Reply(GOOD.format(1), "length")]
    rows = parsed([*bad, *(Reply(GOOD.format(n)) for n in range(count - 3))])
    assert rows[0]["pairs"] == count - 3
    assert [one.reason for one in rows[1:]] == ["nothing_useful", "no_pairs", "unfinished"]
    assert parsed([Reply("NOTHING")] * count) == Refused("nothing_useful")


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({"min_document_tokens": 10**6, "max_document_tokens": 10**7}, "document_too_short"),
        ({"max_document_tokens": 600}, "document_too_long"),
    ],
)
def test_documents_outside_the_limits_are_not_asked_about(params: dict[str, Any], why: str) -> None:
    assert asked(**params) is None
    assert questions.parse({"id": "d1", "text": LONG}, (), settings(**params), model=words) == Refused(why)
