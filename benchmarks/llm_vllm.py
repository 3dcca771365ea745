"""Plain vLLM against vLLM behind a room, on the same prompts: `python llm_vllm.py MODEL ROWS TOKENS STORE` in vLLM's environment.

Both use one engine, one after the other, in turns; answers are compared. Prints JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

TEXT = "The river {n} rises in the hills, passes {m} towns and reaches the sea after {n}{m} kilometres. " * 3


def main() -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    from vllm import LLM, SamplingParams

    from stages.contract import AskParams

    model, rows, tokens, store = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    llm = LLM(model=model, max_model_len=1024, enforce_eager=True, dtype="bfloat16", max_num_seqs=32, enable_prefix_caching=False)
    says = [[{"role": "user", "content": TEXT.format(n=n, m=n % 97)}] for n in range(rows)]
    llm.chat(says[:4], SamplingParams(max_tokens=4), use_tqdm=False)
    plain, ours, same = [], [], 0
    for turn in range(2):
        began = time.perf_counter()
        found = llm.chat(says, SamplingParams(max_tokens=tokens, temperature=0.0, seed=0, ignore_eos=False), use_tqdm=False)
        plain.append(time.perf_counter() - began)
        room, stage = _room(llm, f"{store}-{turn}", tokens)
        began = time.perf_counter()
        outcomes = list(room.ask(stage, AskParams(model="m"), ({"text": say[0]["content"]} for say in says)))
        ours.append(time.perf_counter() - began)
        room.close()
        same = sum(o.rows[0]["text"] == f.outputs[0].text for o, f in zip(outcomes, found, strict=True))
    generated = sum(len(f.outputs[0].token_ids) for f in found)
    print(json.dumps({"plain": plain, "ours": ours, "same": same, "rows": rows, "tokens": generated}))


def _room(llm: Any, store: str, tokens: int) -> Any:
    """A room whose engine is the model that is loaded already."""
    import pyarrow as pa

    from stages.contract import AskParams, ask_stage
    from stages.prompt import Message, Request, Sampling
    from synthetic.room import Room, check_served

    def parse(_row: Any, replies: Any, _params: AskParams) -> Any:
        return [{"text": replies[0].reply.text}]

    def prompt(row: Any, so_far: Any, _params: AskParams) -> Any:
        return None if so_far else [Request((Message("user", row["text"]),), Sampling(max_tokens=tokens))]

    prompt.__annotations__ = {"params": AskParams}  # names of a function's own scope cannot be looked up later
    stage = ask_stage(version=1, reads={}, writes={"text": pa.string()}, parse=parse, prompts=lambda _: ())(prompt)
    room = Room.open(AskParams(model="m"), check_served("m", {"m": {"engine": "vllm"}}), store, 1)
    room._desk.engine._load = lambda: llm
    return room, stage


if __name__ == "__main__":
    main()
