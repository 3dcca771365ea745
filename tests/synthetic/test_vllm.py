"""A real vLLM, in process and over HTTP, with a model that the test writes (`make test-vllm` makes the environment)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest

from stages.contract import AskParams, ask_stage
from stages.prompt import Message, Request, Sampling
from synthetic.asking import Deferred
from synthetic.room import Room, check_served

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]

CONTEXT = 512
OPTIONS = {
    "max_model_len": CONTEXT, "enforce_eager": True, "dtype": "bfloat16", "max_num_seqs": 32,
    "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
}  # fmt: skip
SCHEMA = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"], "additionalProperties": False}
TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}<assistant>"
ROWS = 100


@pytest.fixture(scope="module", autouse=True)
def quiet_cpu() -> None:
    """One GiB of cache is plenty for a tiny model, and nothing is fetched or reported."""
    os.environ |= {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
    }


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers of random weights and a tokenizer of bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "tiny"
    vocabulary = {letter: i for i, letter in enumerate(["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=CONTEXT, bos_token_id=None, eos_token_id=0, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


class Tiny(AskParams):
    """The tiny model."""

    model: str = "tiny"


def parse(row: Any, replies: Any, params: Tiny) -> Any:
    """All answers, and how they ended."""
    return [{"text": r.reply.text, "finish": r.reply.finish} for r in replies]


@ask_stage(version=1, reads={"text": pa.string()}, writes={"text": pa.string()}, parse=parse, prompts=lambda params: ())
def babble(row: Any, so_far: Any, params: Tiny) -> Any:
    """A plain answer and one with a schema."""
    if so_far:
        return None
    say = (Message("user", row["text"]),)
    return [Request(say, Sampling(max_tokens=8)), Request(say, Sampling(max_tokens=40), SCHEMA)]


def rows() -> Iterator[dict[str, str]]:
    return ({"text": f"row {i}"} for i in range(ROWS))


def check(found: list[Any]) -> None:
    """What random weights say is noise; its form is not."""
    assert [o.at for o in found] == list(range(ROWS))
    assert all(o.error is None for o in found)
    for n, outcome in enumerate(found):
        plain, shaped = outcome.rows
        assert plain["finish"] in ("length", "stop")
        assert isinstance(orjson.loads(shaped["text"])["yes"], bool)
        assert outcome.prompt_tokens == 2 * len(f"<user>row {n}<assistant>")
        assert outcome.completion_tokens >= 9


def ask(store: Path, params: Tiny = Tiny(), stream: Any = None, **entry: Any) -> tuple[list[Any], dict[str, int]]:  # noqa: B008
    room = Room.open(params, check_served("tiny", {"tiny": entry}), str(store), 1)
    try:
        return list(room.ask(babble, params, stream if stream is not None else rows())), dict(room.counts())
    finally:
        room.close()


def test_in_process(tiny: Path, tmp_path: Path):
    entry = {"engine": "vllm", "weights": str(tiny), "options": OPTIONS}
    room = Room.open(Tiny(), check_served("tiny", {"tiny": entry}), str(tmp_path), 1)
    found = list(room.ask(babble, Tiny(), rows()))
    check(found)
    long, short = room.ask(babble, Tiny(), iter([{"text": "x" * CONTEXT}, {"text": "short"}]))
    assert long.error[0] == "Rejected"
    assert str(CONTEXT) in long.error[1]
    assert short.error is None
    text = Tiny(api="completions")
    (joined,) = room.ask(babble, text, iter([{"text": "plain text"}]))
    assert joined.prompt_tokens == 2 * len("plain text")
    assert room.counts()["sent"] == 2 * ROWS + 2 * 2 + 2
    room.close()
    again, counts = ask(tmp_path, engine="replay")
    assert again == found
    assert counts == {"from_ledger": 2 * ROWS}


def test_weights_that_are_not_there_are_one_message(tmp_path: Path):
    with pytest.raises(Deferred, match=r"run\.models\.tiny: vLLM cannot load /nowhere"):
        ask(tmp_path, engine="vllm", weights="/nowhere", options=OPTIONS)


@pytest.fixture(scope="module")
def server(tiny: Path) -> Iterator[str]:
    """`vllm serve` of the tiny model, by its module: the command itself needs the distribution's other name."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(tiny), "--served-model-name", "tiny",
        "--host", "127.0.0.1", "--port", str(port), "--dtype", "bfloat16", "--max-model-len", str(CONTEXT), "--max-num-seqs", "32",
        "--enforce-eager", "--structured-outputs-config", '{"backend":"xgrammar","disable_any_whitespace":true}', "--api-key", "secret",
    ]  # fmt: skip
    process = subprocess.Popen(command, start_new_session=True)
    try:
        deadline = time.monotonic() + 300
        while True:
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server is not ready"
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def test_over_http(server: str, tmp_path: Path):
    entry = {"engine": "openai", "endpoints": [server], "key": "secret", "in_flight": 32}
    found, counts = ask(tmp_path, **entry)
    check(found)
    assert counts["sent"] == 2 * ROWS
    again, counts = ask(tmp_path, **entry)
    assert again == found
    assert counts == {"from_ledger": 2 * ROWS}
    (long,), _ = ask(tmp_path, stream=iter([{"text": "x" * CONTEXT}]), **entry)
    assert long.error[0] == "Rejected"
    assert "maximum context length" in long.error[1]


def test_what_the_server_refuses_is_one_message(server: str, tmp_path: Path):
    with pytest.raises(Deferred, match=r"HTTP 401.*run\.models\.tiny\.key"):
        ask(tmp_path, engine="openai", endpoints=[server], key="wrong")
    with pytest.raises(Deferred, match=r"does not have the model 'tinny'; did you mean 'tiny'\?"):
        ask(tmp_path, engine="openai", endpoints=[server], key="secret", served_as="tinny")
