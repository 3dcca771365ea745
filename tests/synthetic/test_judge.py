import pytest

from stages.prompt import Exchange, Refused, Reply
from synthetic.judge import faithful

ROW = {"id": "a", "text": "The Nile flows north.", "source_text": "The Nile, a river, flows north."}


def judged(said, finish="stop", **params):
    settings = faithful.params.model_validate({"model": "m", **params})
    (request,) = faithful.prompt(ROW, (), settings)
    exchange = Exchange(request, Reply(said, finish))
    assert faithful.prompt(ROW, (exchange,), settings) is None
    return faithful.parse(ROW, (exchange,), settings)


def test_a_good_score_keeps_the_row():
    assert judged("No fault.\nSCORE: 5") == [{"judge_score": 5, "judge_said": "No fault.\nSCORE: 5"}]
    assert judged("Small shift.\n**Score: 3**", min_score=3)[0]["judge_score"] == 3


@pytest.mark.parametrize(
    ("said", "finish", "why"),
    [
        ("Invented.\nSCORE: 2", "stop", "judged_2"),
        ("No score at all.", "stop", "judge_unclear"),
        ("SCORE: 5\nor\nSCORE: 1", "stop", "judge_unclear"),
        ("SCORE: 7", "stop", "judge_unclear"),
        ("The text", "length", "judge_unfinished"),
    ],
)
def test_what_is_no_clear_yes_is_refused(said, finish, why):
    assert judged(said, finish) == Refused(why, said)


def test_source_and_text_stand_in_the_request():
    (request,) = faithful.prompt(ROW, (), faithful.params(model="m"))
    assert ROW["text"] in request.messages[-1].content
    assert ROW["source_text"] in request.messages[-1].content
