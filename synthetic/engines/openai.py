"""Servers that speak the OpenAI protocol: vllm serve, SGLang, llama.cpp's server, hosted ones."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import aiohttp
import orjson

from stages.prompt import Reply
from synthetic.asking import Deferred, Rejected
from synthetic.engines.contract import Failure
from synthetic.engines.protocol import error_of, form_of, read_reply, retry_after
from synthetic.request import Wanted
from synthetic.served import Endpoint, OpenAI

CONNECT_S = 20.0
"""Seconds for a connection: the time for an answer begins behind it."""


class OpenAIEngine:
    """A client of one model on one or several servers."""

    def __init__(self, config: OpenAI, model: str) -> None:
        places = [Endpoint.model_validate({"url": e}) if isinstance(e, str) else e for e in config.endpoints]
        self.endpoints: Sequence[tuple[str, float]] = [(e.url.rstrip("/"), e.weight) for e in places]
        self._config, self._model = config, model
        self._name = config.served_as or model
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the pool of connections; nothing is sent yet."""
        headers = {"Content-Type": "application/json"}
        if self._config.key:
            headers["Authorization"] = f"Bearer {self._config.key}"
        timeout = aiohttp.ClientTimeout(total=self._config.try_s, sock_connect=CONNECT_S)
        # The gates limit what is in flight; the pool must never queue behind their back.
        self._session = aiohttp.ClientSession(headers=headers, timeout=timeout, connector=aiohttp.TCPConnector(limit=0))

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(self, endpoint: str, wanted: Wanted) -> Reply:
        """POST the request; see Engine.ask."""
        path = "chat/completions" if wanted.body["api"] == "chat" else "completions"
        try:
            status, headers, raw = await self._post(f"{endpoint}/{path}", orjson.dumps(self._form(wanted)))
        except TimeoutError as error:
            raise Failure("timeout", f"{endpoint}: no answer within {self._config.try_s:g} s") from error
        except aiohttp.ClientConnectorError as error:
            raise Failure("gone", f"{endpoint}: no connection ({error})") from error
        except aiohttp.InvalidURL as error:
            raise Deferred(f"{endpoint} is no address: write http://host:port/v1 in run.models.{self._model}.endpoints") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Failure("cut", f"{endpoint}: the connection broke ({type(error).__name__}: {error})") from error
        if status == 200:
            return read_reply(raw, endpoint, chat=wanted.body["api"] == "chat")
        return await self._refusal(endpoint, status, headers, raw)

    async def _post(self, url: str, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        assert self._session is not None
        async with self._session.post(url, data=body, allow_redirects=False) as response:
            return response.status, response.headers, await response.read()

    def _form(self, wanted: Wanted) -> dict[str, Any]:
        form = {"model": self._name} | form_of(wanted, schema=self._config.json_schema)
        form[self._config.limit_field] = form.pop("max_tokens")
        return form

    async def _refusal(self, endpoint: str, status: int, headers: Mapping[str, str], raw: bytes) -> Reply:
        """What a status other than 200 means; raises unless the provider withheld its answer."""
        message, code = error_of(raw)
        said = f"{endpoint}: HTTP {status}" + (f", {message}" if message else "")
        if code == "insufficient_quota":
            raise Deferred(f"{said}; the account has nothing left: top it up and run again")
        if status in (429, 503, 529):
            raise Failure("busy", said, retry_after(headers.get("Retry-After"), time.time()))
        if status in (401, 403):
            raise Deferred(f"{said}; the key is not accepted: set run.models.{self._model}.key (for example ${{env:KEY}})")
        if status == 404:
            raise Deferred(await self._not_found(endpoint, said))
        if code == "content_filter":
            return Reply("", "filtered")
        if status in (400, 413, 422):
            raise Rejected(
                f"{said}; a text that is longer than the context has to be cut smaller (a limit of the prompt or the stage)"
            )
        raise Failure("timeout" if status == 408 else "server" if status >= 500 else "garbled", said)

    async def _not_found(self, endpoint: str, said: str) -> str:
        """A message for an unknown model or address, with the models that the server has."""
        assert self._session is not None
        place = f"run.models.{self._model}"
        try:
            async with self._session.get(f"{endpoint}/models") as response:
                names = [str(m["id"]) for m in orjson.loads(await response.read())["data"]]
        except (aiohttp.ClientError, OSError, ValueError, KeyError, TypeError):
            return f"{said}; is this the base address of the protocol (it ends in /v1 as a rule)? See {place}.endpoints"
        near = get_close_matches(self._name, names, 1)
        known = f"did you mean '{near[0]}'?" if near else f"it has: {', '.join(names[:10])}"
        return f"{said}; the server does not have the model '{self._name}'; {known} Set {place}.served_as"
