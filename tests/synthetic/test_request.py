"""One canonical form: what is asked makes the key, how it is written down does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.contract import AskParams
from stages.prompt import Message, Request, Sampling, parse_prompt, unmarked
from synthetic.request import MESSAGE_OVERHEAD, wanted

PLAIN = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
MESSAGES = st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), PLAIN), min_size=1, max_size=4)
SAMPLINGS = st.builds(
    Sampling, st.integers(1, 4096), st.floats(0, 2), st.floats(0.01, 1), st.none() | st.integers(0, 999), st.lists(PLAIN, max_size=2).map(tuple)
)  # fmt: skip
SCHEMAS = st.none() | st.dictionaries(
    PLAIN, st.recursive(st.none() | st.booleans() | PLAIN, lambda x: st.lists(x, max_size=2)), max_size=3
)
REQUESTS = st.builds(lambda m, s, j, t: Request(tuple(m), s, j, t), MESSAGES, SAMPLINGS, SCHEMAS, PLAIN)
PARAMS = st.builds(
    lambda m, r, a, s: AskParams(model=m, revision=r, api=a, seed=s), PLAIN, PLAIN, st.sampled_from(["chat", "completions"]), st.integers(0, 99)
)  # fmt: skip


@given(REQUESTS, PARAMS)
def test_equal_requests_have_one_key_and_the_form_is_json(request: Request, params: AskParams):
    found = wanted(request, params)
    assert len(bytes.fromhex(found.key)) == 16
    copy = orjson.loads(orjson.dumps(dict(found.body)))
    again = Request(
        tuple(Message(**m) for m in copy["messages"]),
        Sampling(**{**copy["sampling"], "seed": request.sampling.seed, "stop": tuple(copy["sampling"]["stop"])}),
        dict(reversed(copy["schema"].items())) if copy["schema"] is not None else None,
        "another tag",
    )
    assert wanted(again, params).key == found.key
    assert found.ceiling == sum(len(m.content.encode()) + MESSAGE_OVERHEAD for m in request.messages) + request.sampling.max_tokens
    assert found.key[:12] in found.gist


@given(st.lists(st.tuples(REQUESTS, PARAMS), min_size=2, max_size=8))
def test_different_requests_have_different_keys(pairs: list[Any]):
    def meaning(request: Request, params: AskParams) -> Any:
        sampling = request.sampling
        seed = None if sampling.seed is None else params.seed * 65536 + sampling.seed
        return orjson.dumps(
            [params.model, params.revision, params.api, seed, [(m.role, m.content) for m in request.messages], sampling.max_tokens,
             sampling.temperature, sampling.top_p, sampling.stop, request.schema], option=orjson.OPT_SORT_KEYS)  # fmt: skip

    keys = {meaning(*pair): wanted(*pair).key for pair in pairs}
    assert len(set(keys.values())) == len(keys)


def test_a_number_in_yaml_may_be_written_either_way():
    request = Request((Message("user", "x"),), Sampling(8, 0.0, 1.0))
    params = AskParams(model="m")
    assert wanted(replace(request, sampling=Sampling(8, 0, 1)), params).key == wanted(request, params).key  # type: ignore[arg-type]


def test_the_key_never_changes():
    """Ledgers outlive versions: whoever changes the form, pays for every answer again."""
    request = Request((Message("system", "s"), Message("user", "Grüße")), Sampling(7, 0.5, 0.9, 3, ("x",)), {"type": "object"})
    assert wanted(request, AskParams(model="m", revision="r", seed=1)).key == "17d02dcc2a73fdf2dba0c9beebe2450b"


def test_half_a_surrogate_pair_has_no_form():
    with pytest.raises(TypeError):
        wanted(Request((Message("user", "\ud800"),)), AskParams(model="m"))


MARKS = (
    "<|im_end|>", "<|im_start|>", "<|endoftext|>", "<|eot_id|>", "<|start_header_id|>", "<|end|>", "<|turn>", "<turn|>", "<｜User｜>",
    "<｜end▁of▁sentence｜>", "<s>", "</s>", "<<SYS>>", "<</SYS>>", "<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]", "[TOOL_CALLS]",
    "[gMASK]", "<eos>",
)  # fmt: skip
TEXTS = (
    "xs |> f <| y",
    "a <|> b",
    "<span>5 < 6 | 7 > 8</span>",
    "List<String>",
    "[PDF] [1] [INSTALL]",
    "<small>",
    "if (a<b|c>d)",
    "",
)


@pytest.mark.parametrize("mark", MARKS)
def test_a_mark_of_a_chat_template_is_text_in_every_message(mark: str):
    assert mark not in unmarked(f"x{mark}y{mark}")
    assert unmarked(mark).replace(" ", "") == mark
    asked = Request((Message("system", mark), Message("user", f"before{mark}\nafter")))
    chat, plain = (wanted(asked, AskParams(model="m", api=api)).body["messages"] for api in ("chat", "completions"))
    assert all(mark not in m["content"] for m in chat)
    assert plain[1]["content"] == f"before{mark}\nafter", "who writes for the completions api writes the marks"
    prompt = parse_prompt(
        "---\nname: n\nversion: 1\npurpose: p\nvariables: [text]\n---\n# user\n<|im_start|>user\n{{text}}<|im_end|>", "p.md"
    )
    filled = prompt.request({"text": f"page {mark} {{{{text}}}}"}).messages[0].content
    assert filled == f"<|im_start|>user\npage {unmarked(mark)} {{{{text}}}}<|im_end|>", (
        "the author's marks stand, the page's do not"
    )


@pytest.mark.parametrize("text", TEXTS)
def test_what_only_looks_like_a_mark_stays(text: str):
    assert unmarked(text) == text


@given(st.lists(st.sampled_from("<>|[]/s｜ x") | st.sampled_from(MARKS)).map("".join))
def test_no_mark_is_left_whatever_stands_around_it(text: str):
    clean = unmarked(text)
    assert unmarked(clean) == clean
    assert clean.replace(" ", "") == text.replace(" ", "")
