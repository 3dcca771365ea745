import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.prompt import parse_prompt
from synthetic import answers


@pytest.mark.parametrize(
    "text",
    ["I'm sorry, but I cannot do that.", "As an AI language model, I", "Sorry, no.", "I cannot help with this", "Please provide the passage.",
     "The passage is missing.", "Unfortunately, I have no text."],
)  # fmt: skip
def test_refusals(text):
    assert answers.is_refusal(text)


@pytest.mark.parametrize(
    "text", ["The sorry state of the mill ...", "Ice cannot melt below zero.", "Passages are missing in the castle.", ""]
)
def test_what_is_no_refusal(text):
    assert not answers.is_refusal(text)


def test_preambles():
    assert answers.has_preamble("Sure! Here is the text")
    assert answers.has_preamble("**Here's** the rewritten passage:")
    assert not answers.has_preamble("Surely the river rises.")
    assert not answers.has_preamble("Hereford is a town.")


@pytest.mark.parametrize(
    "text",
    ["The following passage has been retold.\nThe river rises.", "The river rises. I have made some small changes.",
     "This text is short and to the point.", "A reworked version: the river rises.", "Now I’ll write about the river."],
)  # fmt: skip
def test_commentary_is_what_the_source_gives_no_cause_for(text):
    assert answers.is_commentary(text, "The river rises in the hills.")
    assert not answers.is_commentary(text, "I have a passage of text here, reworked.")


@pytest.mark.parametrize(
    "text", ["The passage of time.", "Elizabeth I rode out.", "The textile works are closed.", "The context is clear.", ""]
)
def test_what_is_no_commentary(text):
    assert not answers.is_commentary(text, "The river rises in the hills.")


PROMPT = parse_prompt(
    "---\nname: p\nversion: 1\npurpose: p\nvariables: [text]\n---\n# user\nWrite a short note that anybody can read.\n{{text}}", "p"
)


@pytest.mark.parametrize(
    ("text", "source", "echoed"),
    [
        ("It says: write a short NOTE that anybody can read!", "A river.", True),
        ("Write a short note that anybody", "A river.", True),
        ("Write a short note that nobody", "A river.", False),
        ("Write a short note that anybody can read.", "Write a short note that anybody can read, she said.", False),
        ("The river rises.", "A river.", False),
        ("", "", False),
    ],
)
def test_an_echo_is_six_words_of_the_prompt_that_the_source_does_not_have(text, source, echoed):
    assert answers.echoes(text, source, PROMPT) == echoed


def test_labels_of_the_prompt_are_taken_off():
    assert (
        answers.without_echo("Text:\nThe mill.\n**Passage:**\nAnd the river.", ("Text", "Passage")) == "The mill.\nAnd the river."
    )
    assert answers.without_echo("Text: The mill: a house.", ("Text",)) == "The mill: a house."
    assert answers.without_echo("The mill: a house.", ("Text",)) == "The mill: a house."


def test_lead_in_quotes_and_bold():
    assert answers.after_lead_in("REWRITTEN:\nThe Nile flows north.", "REWRITTEN") == "The Nile flows north."
    assert answers.after_lead_in("**Rewritten:** The Nile.", "REWRITTEN") == "The Nile."
    assert answers.after_lead_in("The Nile flows north.", "REWRITTEN") is None
    assert answers.unquoted('"“The mill.”"') == "The mill."
    assert answers.unquoted('"One" and "two"') == '"One" and "two"', "two quoted words are no quoted whole"
    assert answers.without_bold("a **bold** word, 2 ** 3, __init__") == "a bold word, 2 ** 3, init"


def test_pairs_are_parsed_strictly():
    text = "Here:\n\nQuestion: Where does it flow?\nAnswer: North.\n\n2. **Question:** Which is longer?\nA) Nile\nB) Rhine\nAnswer: A) Nile\n\nQuestion: lost\n"
    assert answers.pairs(text) == [("Where does it flow?", "North."), ("Which is longer?\nA) Nile\nB) Rhine", "A) Nile")]
    assert answers.pairs("Answer: alone") == []
    assert answers.pairs("Question: Who?\nAnswer: He.\n\nPassage:\nHe came.") == [("Who?", "He.")]
    assert answers.pairs("Question:\nAnswer: nothing was asked") == []


def test_bullets_lose_marks_and_wrapped_lines_join():
    assert answers.bullets("Facts:\n- One\n  goes on\n* Two\n3. Three\n") == ["One goes on", "Two", "Three"]
    assert answers.bullets("no list at all") == []


@given(st.text())
def test_nothing_breaks_on_any_text(text):
    for function in (answers.is_refusal, answers.has_preamble, answers.pairs, answers.bullets, answers.without_bold):
        function(text)
    assert not answers.is_commentary(text, text)
    assert not answers.echoes(text, text, PROMPT)
    assert len(answers.unquoted(text)) <= len(text)
