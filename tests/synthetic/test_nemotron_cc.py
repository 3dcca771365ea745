"""The five tasks and the translation as pure functions: what is asked, and what becomes of an answer."""

from __future__ import annotations

import pytest

from stages.prompt import Exchange, Refused, Reply, read_prompt
from synthetic import nemotron_cc as tasks
from synthetic import translate
from synthetic.routing import VARIANTS, Route, by_bucket

LINE = "The Nile flows north through eleven countries and ends in the sea."


def words(text):
    return len(text.split())


def asked(stage, text, **params):
    settings = stage.params.model_validate({"model": "m", "min_document_tokens": 5, "min_passage_tokens": 5, **params})
    requests = stage.prompt({"id": "d1", "text": text}, (), settings, model=words)
    return settings, requests


def parsed(stage, text, answers, *, finish="stop", **params):
    settings, requests = asked(stage, text, **params)
    exchanges = [Exchange(r, Reply(a, finish)) for r, a in zip(requests or [], answers, strict=True)]
    assert not stage.prompt({"id": "d1", "text": text}, tuple(exchanges), settings, model=words) or not exchanges
    return stage.parse({"id": "d1", "text": text}, tuple(exchanges), settings, model=words)


@pytest.mark.parametrize("path", sorted(tasks.PROMPTS.rglob("*.md")), ids=lambda p: p.stem)
def test_every_packaged_prompt_is_sound(path):
    prompt = read_prompt(path)
    assert prompt.name == str(path.relative_to(tasks.PROMPTS).with_suffix(""))
    assert prompt.version >= 1
    assert prompt.messages[-1].role == "user"


def test_a_document_is_cut_so_that_prompt_and_passage_fit():
    text = "\n".join([LINE] * 40)
    settings, requests = asked(tasks.distill, text, max_input_tokens=200)
    assert len(requests) > 2
    assert all(sum(words(m.content) for m in r.messages) <= 200 for r in requests)
    assert "\n".join(r.tag for r in requests) == text
    assert {r.sampling.temperature for r in requests} == {0.5}
    assert {r.sampling.max_tokens for r in requests} == {settings.max_output_tokens}
    assert all(r.tag in r.messages[-1].content for r in requests)


def test_short_documents_and_prompts_that_fill_the_context():
    assert parsed(tasks.distill, "Too short.", []) == Refused("document_too_short")
    assert parsed(tasks.distill, "word " * 300, [], max_input_tokens=200) == Refused("no_passage_fits")
    with pytest.raises(ValueError, match=r"alone has \d+ tokens; max_input_tokens is 32"):
        asked(tasks.distill, LINE, max_input_tokens=32)


@pytest.mark.parametrize(
    ("stage", "answer", "text"),
    [
        ("distill", "DISTILLED:\nText:\nThe Nile flows north.", "The Nile flows north."),
        ("distill", 'DISTILLED:\n"The **Nile** flows north."', "The Nile flows north."),
        ("extract_knowledge", "**The Nile** flows north.", "The Nile flows north."),
        ("knowledge_list", "Here:\n- The Nile flows north.\n* It ends in the sea.", "The Nile flows north.\nIt ends in the sea."),
        ("wikipedia", "REWRITTEN:\n\nThe Nile flows north.", "The Nile flows north."),
    ],
)
def test_answers_become_texts(stage, answer, text):
    rows = parsed(getattr(tasks, stage), LINE, [answer], min_output_tokens=1)
    assert rows == [{"text": text, "source_text": LINE, "task": stage}]


@pytest.mark.parametrize(
    ("stage", "answer", "finish", "why"),
    [
        ("distill", "DISTILLED:\nThe Nile", "length", "unfinished"),
        ("distill", "DISTILLED:\nThe Nile", "filtered", "filtered"),
        ("distill", "The Nile flows north.", "stop", "no_lead_in"),
        ("distill", "I'm sorry, but no.", "stop", "refusal"),
        ("distill", "DISTILLED:\nThe Nile.", "stop", "too_short"),
        ("diverse_qa", "The Nile flows north.", "stop", "no_pairs"),
        ("knowledge_list", "The Nile flows north.", "stop", "no_list"),
        ("extract_knowledge", "NOTHING.", "stop", "nothing_useful"),
        ("extract_knowledge", "It holds the knowledge of the text below: the Nile.", "stop", "prompt_echo"),
        ("diverse_qa", "Question: The question\nAnswer: The answer\n\nPassage:\n" + LINE, "stop", "prompt_echo"),
    ],
)
def test_what_is_no_text_has_a_reason(stage, answer, finish, why):
    (row,) = parsed(getattr(tasks, stage), LINE, [answer], finish=finish, min_output_tokens=5)
    assert isinstance(row, Refused)
    assert row.reason == why


def test_a_document_of_the_wikipedia_task_is_joined_and_its_lost_passages_are_named():
    text = "\n".join([LINE] * 30)
    _, requests = asked(tasks.wikipedia, text, max_input_tokens=250)
    answers = ["REWRITTEN:\nThe Nile flows north to the sea.", "no lead-in", *["REWRITTEN:\nIt passes eleven countries."] * 9]
    rows = parsed(tasks.wikipedia, text, answers[: len(requests)], max_input_tokens=250, min_output_tokens=5)
    assert len(requests) >= 3
    assert rows[0]["text"].startswith("The Nile flows north to the sea.\nIt passes eleven countries.")
    assert rows[0]["source_text"] == "\n".join(r.tag for i, r in enumerate(requests) if i != 1)
    assert rows[1:] == [Refused("no_lead_in", "no lead-in")]


def test_question_answer_pairs_are_bounded_by_the_passage_and_drawn_by_seed():
    answer = "\n\n".join(f"Question: Number {i}?\nAnswer: It is {i}." for i in range(8))
    short = parsed(tasks.diverse_qa, LINE, [answer], min_output_tokens=1)[0]["text"]
    assert short.startswith(LINE + "\n\nQuestion: ")
    assert short.count("Question:") == 1, "a passage of twelve tokens bears one pair"
    long_text = " ".join([LINE] * 12)
    drawn = {
        parsed(tasks.diverse_qa, long_text, [answer], min_output_tokens=1, seed=s)[0]["text"].count("Question:") for s in range(20)
    }
    assert len(drawn) > 2, "between one and the bound"
    assert max(drawn) <= 8
    again = [parsed(tasks.diverse_qa, long_text, [answer], min_output_tokens=1, seed=3) for _ in range(2)]
    assert again[0] == again[1]


def test_native_questions_name_the_language():
    _, requests = asked(tasks.diverse_qa, LINE, language="German")
    assert "in German" in requests[0].messages[-1].content
    assert tasks.diverse_qa.prompts(tasks.DiverseQA(model="m", language="German"))[0].name == "nemotron_cc/diverse_qa_native"


def test_a_prompt_of_ones_own_and_a_broken_one(tmp_path):
    own = tmp_path / "own.md"
    own.write_text("---\nname: own\nversion: 2\npurpose: p\nvariables: [text]\n---\n# user\nShorter: {{text}}")
    _, requests = asked(tasks.distill, LINE, prompt=str(own))
    assert requests[0].messages[-1].content == f"Shorter: {LINE}"
    own.write_text("---\nname: own\nversion: 2\npurpose: p\nvariables: [text]\n---\n# user\nShorter: {{txt}}")
    with pytest.raises(ValueError, match=r"own.md: the prompt uses \['txt'\]"):
        read_prompt(own)


def test_a_document_with_braces_is_text_and_nothing_else():
    _, requests = asked(tasks.distill, "A template says {{text}} and {{system}} here, five words.")
    assert "{{text}} and {{system}}" in requests[0].messages[-1].content


def test_routing_variants_give_what_they_publish():
    import pyarrow as pa

    table = pa.table({"bucket": pa.array([*range(20), None], pa.int32())})
    found = {v: by_bucket.run(table, Route(variant=v)).to_pydict() for v in VARIANTS}
    chosen = {v: {task: [i for i, yes in enumerate(col) if yes] for task, col in cols.items()} for v, cols in found.items()}
    assert chosen["paper"]["ask_wikipedia"] == [0, 1, 2, 3, 4, 5, 6, 19]
    assert chosen["paper"]["ask_distill"] == [19]
    assert chosen["tutorial"]["ask_wikipedia"] == list(range(12))
    assert chosen["recipe"]["ask_wikipedia"] == []
    assert chosen["recipe"]["ask_knowledge_list"] == [18, 19]
    assert all(chosen["v2.1"][task] == [18] for task in chosen["v2.1"])


PAGE = "Erster Absatz mit Worten.\n\nZweiter Absatz, etwas länger als der erste.\n\n    code = 1\n\nDritter."


def test_translation_goes_part_by_part_and_sees_the_end_of_the_last():
    params = translate.Translate(model="m", max_part_tokens=8, context_characters=10)
    row = {"id": "d", "text": PAGE, "language": "de"}
    so_far: list[Exchange] = []
    while requests := translate.pages.prompt(row, tuple(so_far), params, model=words):
        (request,) = requests
        body = request.messages[-1].content.split("=====\n")[1].rstrip("\n=")
        so_far.append(Exchange(request, Reply("=====\n" + body.upper() + "\n=====")))
    assert len(so_far) > 2
    assert so_far[1].request.messages[-1].content.count("IT WORTEN.") == 1
    assert "German" in so_far[0].request.messages[0].content
    (out,) = translate.pages.parse(row, tuple(so_far), params, model=words)
    assert out["text"] == PAGE.upper()
    assert out["source_text"] == PAGE
    assert (
        translate.pages.parse(row, (Exchange(so_far[0].request, Reply("half", "length")),), params, model=words).reason
        == "unfinished"
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("The house is big. See https://a.org/x\nThere are 12 rooms and a large garden.", None),
        ("I'm sorry, I cannot translate that text for you because it is not allowed.", "refusal"),
        ("The house is big.", "too_short"),
        ("The house\nis big. See\nhttps://a.org/x\nThere are 12 rooms\nand a large garden.", "lines"),
        ("The house is big. See the page of it\nThere are 12 rooms and a large garden.", "kept"),
        ("The house is big. See https://a.org/x\nThere are many rooms and a large garden.", "numbers"),
        ("Das Haus ist groß. Siehe https://a.org/x\nEs gibt 12 Zimmer und einen großen Garten.", "not_translated"),
    ],
)
def test_faults_of_translations(text, why):
    import pyarrow as pa

    source = "Das Haus ist groß. Siehe https://a.org/x\nEs gibt 12 Zimmer und einen großen Garten."
    table = pa.table({"text": pa.array([text], pa.large_string()), "source_text": pa.array([source], pa.large_string())})
    assert translate.checks.run(table, translate.Checks(languages=()))["drop_reason"][0].as_py() == why
