"""The OpenAI protocol as data: how a request is written and an answer read. Servers and llama.cpp share it."""

from __future__ import annotations

import email.utils
from typing import Any

import orjson

from stages.prompt import Reply
from synthetic.engines.contract import Failure
from synthetic.request import Wanted

FINISH = {"stop": "stop", "length": "length", "content_filter": "filtered", "eos": "stop", "tool_calls": "stop"}
"""What servers say, and what a Reply says. Anything else ("abort" when a server shuts down) is no answer."""


def form_of(wanted: Wanted, *, schema: bool) -> dict[str, Any]:
    """The request in the words of the protocol; `schema` says whether the server enforces JSON schemas."""
    body, sampling = wanted.body, wanted.body["sampling"]
    form: dict[str, Any] = {name: sampling[name] for name in ("max_tokens", "temperature", "top_p")}
    form |= {"messages": body["messages"]} if body["api"] == "chat" else {"prompt": wanted.joined}
    if sampling["seed"] is not None:
        form["seed"] = sampling["seed"]
    if sampling["stop"]:
        form["stop"] = sampling["stop"]
    if body["schema"] is not None and schema:
        named = {"name": "answer", "schema": body["schema"], "strict": True}
        form["response_format"] = {"type": "json_schema", "json_schema": named}
    return form


def read_reply(raw: bytes, endpoint: str, *, chat: bool) -> Reply:
    """The body of a 200 as a Reply. Failure("garbled") for HTML, cut JSON, or JSON that is no completion."""
    try:
        body = orjson.loads(raw)
    except ValueError as error:
        raise Failure("garbled", f"{endpoint}: not JSON ({error}): {raw[:80].decode('utf-8', 'replace')!r}") from error
    return reply_of(body, endpoint, chat=chat)


def reply_of(body: Any, endpoint: str, *, chat: bool) -> Reply:
    """A completion of the protocol as a Reply. Failure("garbled") for JSON that is none."""
    try:
        choice = body["choices"][0]
        text = choice["message"]["content"] if chat else choice["text"]
        finish = FINISH[choice["finish_reason"]]
        text = "" if text is None else text.encode().decode()
        usage = body.get("usage") or {}
        tokens = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise Failure("garbled", f"{endpoint}: not an answer ({type(error).__name__}: {error}): {str(body)[:80]!r}") from error
    return Reply(text, finish, *tokens)


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds of a Retry-After header, which holds seconds or a date (RFC 9110, section 10.2.3); None for anything else."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    except ValueError:
        return None


def error_of(raw: bytes) -> tuple[str, str]:
    """Message and code of an error body, in the two forms that servers use."""
    try:
        body = orjson.loads(raw)
        error = body.get("error", body)
        if isinstance(error, str):
            return error[:500], ""
        return str(error.get("message") or error.get("detail") or "")[:500], str(error.get("code") or error.get("type") or "")
    except (ValueError, AttributeError):
        return " ".join(raw[:200].decode("utf-8", "replace").split()), ""
