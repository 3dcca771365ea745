"""The canonical request: what is asked, in one form, and the key under which its answer is remembered."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from stages.contract import AskParams
from stages.prompt import Request, unmarked

SEED_STEP = 1 << 16
"""Seeds of a run lie so far apart: variants 0, 1, 2, ... of one run are never those of another run's seed."""
MESSAGE_OVERHEAD = 64
"""Tokens that a chat template adds to a message at most; the usual ones add 4 to 12."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request that waits for its answer. Where the model is served is not part of it."""

    key: str
    """32 hex digits: the blake2b hash of the canonical form."""
    body: Mapping[str, Any]
    """model, revision, api, messages, sampling, schema: plain values."""
    ceiling: int = field(compare=False)
    """Tokens that it can cost at most: no tokenizer makes more tokens than bytes."""

    @property
    def gist(self) -> str:
        """How messages name this request: key and the beginning of the last message."""
        last = " ".join(str(self.body["messages"][-1]["content"]).split())[:80] if self.body["messages"] else ""
        return f"{self.key[:12]} ({self.body['model']}: {last!r})"

    @property
    def joined(self) -> str:
        """The messages as one text, for the completions api."""
        return "\n\n".join(str(m["content"]) for m in self.body["messages"])


def wanted(request: Request, params: AskParams) -> Wanted:
    """The canonical form of a request. TypeError for what has none (a text with half a surrogate pair, a schema with objects)."""
    sampling = request.sampling
    # A prompt of the completions api is written with the model's marks; in a chat only the server's template may set them.
    said = unmarked if params.api == "chat" else str
    body = {
        "model": params.model,
        "revision": params.revision,
        "api": params.api,
        "messages": [{"role": m.role, "content": said(m.content)} for m in request.messages],
        "sampling": {
            "max_tokens": int(sampling.max_tokens),
            "temperature": float(sampling.temperature),
            "top_p": float(sampling.top_p),
            "seed": None if sampling.seed is None else (params.seed * SEED_STEP + sampling.seed) & 0x7FFFFFFF,
            "stop": list(sampling.stop),
        },
        "schema": request.schema,
    }
    # Sorted keys, no spaces; floats in their shortest form: the same request is the same bytes everywhere.
    form = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    ceiling = sum(len(m.content.encode()) + MESSAGE_OVERHEAD for m in request.messages) + sampling.max_tokens
    return Wanted(hashlib.blake2b(form, digest_size=16).hexdigest(), body, ceiling)
