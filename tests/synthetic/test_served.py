"""`run.models`: what is asked for is checked before anything runs, in words of the recipe."""

from __future__ import annotations

import pickle

import pytest

from synthetic.served import EMBEDDED, check_served

GOOD = {"engine": "openai", "endpoints": ["http://gpu1:8000/v1"]}


def test_an_entry_gets_its_defaults_and_can_be_sent_to_workers():
    found = check_served("qwen", {"qwen": {**GOOD, "in_flight": 256}})
    assert found["in_flight"] == 256
    assert found["try_s"] == 300.0
    assert pickle.loads(pickle.dumps(found)) == found
    assert check_served("qwen", {"qwen": found}) == found


def test_the_embedded_model_needs_no_entry():
    found = check_served(EMBEDDED, {})
    assert (found["engine"], found["gguf"], found["threads"]) == ("llamacpp", None, 1)
    assert check_served(EMBEDDED, {EMBEDDED: GOOD})["engine"] == "openai"


@pytest.mark.parametrize(
    ("name", "models", "says"),
    [
        ("qwen3-3b", {"qwen3-30b": GOOD}, "run.models does not say where 'qwen3-3b' is served; did you mean 'qwen3-30b'?"),
        ("x", {"qwen3-30b": GOOD}, f"'x' is served; there are: qwen3-30b, {EMBEDDED}"),
        ("q", {"q": "http://gpu1"}, "run.models.q is 'http://gpu1', not a mapping"),
        ("q", {"q": {"endpoints": []}}, "run.models.q has no 'engine'; there are: openai, vllm, llamacpp, replay"),
        ("q", {"q": {"engine": "opanai"}}, "run.models.q has the unknown engine 'opanai'; there are: openai"),
        ("q", {"q": {"engine": "openai"}}, "run.models.q.endpoints: Field required"),
        ("q", {"q": {**GOOD, "endpoints": []}}, "run.models.q.endpoints: List should have at least 1 item"),
        ("q", {"q": {**GOOD, "inflight": 3}}, "run.models.q.inflight: unknown key; did you mean 'in_flight'?"),
        ("q", {"q": {**GOOD, "zzz": 3}}, "run.models.q.zzz: unknown key; engine openai knows: in_flight"),
        ("q", {"q": {**GOOD, "in_flight": 0}}, "run.models.q.in_flight: Input should be greater than or equal to 1"),
        (
            "q",
            {"q": {**GOOD, "endpoints": [{"url": "u", "weight": 0}]}},
            "run.models.q.endpoints.0.weight: Input should be greater than 0",
        ),
        ("q", {"q": {"engine": "llamacpp"}}, "run.models.q: 'gguf' is missing; only smollm2-135m-instruct comes with weights"),
    ],
)
def test_faults_name_the_place_and_the_way_out(name, models, says):
    with pytest.raises(ValueError, match=r"run\.models") as caught:
        check_served(name, models)
    assert says in str(caught.value)
