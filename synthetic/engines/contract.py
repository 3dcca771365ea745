"""The seam between asking and answering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from stages.prompt import Reply
from synthetic.request import Wanted

Kind = Literal["busy", "gone", "server", "garbled", "cut", "timeout"]
"""busy: 429, 503, overloaded. gone: no connection. server: 5xx. garbled: an answer that is none. cut: the connection
broke in the middle. timeout: no answer within the limit of a try."""


class Failure(Exception):  # noqa: N818
    """A try that may be repeated. `retry_after` is what the server asked for, in seconds."""

    def __init__(self, kind: Kind, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.kind: Kind = kind
        self.retry_after = retry_after


class Engine(Protocol):
    """One way to reach a model. Every method runs in the event loop of the room."""

    @property
    def endpoints(self) -> Sequence[tuple[str, float]]:
        """Name and weight of each place that answers."""
        ...

    async def start(self) -> None:
        """Load or connect; called before the first request and only if there is one."""
        ...

    async def ask(self, endpoint: str, wanted: Wanted) -> Reply:
        """One try. Failure: try again. Rejected: this request never works. Deferred: no request works."""
        ...

    async def close(self) -> None:
        """Let go of connections and memory."""
        ...
