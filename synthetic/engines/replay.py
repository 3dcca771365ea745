"""Answers out of a ledger and nothing else: for tests, and to show that a run equals a replay of its ledger."""

from __future__ import annotations

from collections.abc import Sequence

from stages.prompt import Reply
from synthetic.asking import Deferred, Rejected
from synthetic.ledger import Ledger
from synthetic.request import Wanted
from synthetic.served import Replay


class ReplayEngine:
    """The ledger of another store as an engine; without one, only what the run's own store has is answered."""

    endpoints: Sequence[tuple[str, float]]

    def __init__(self, config: Replay, model: str, revision: str) -> None:
        self._store, self._who = config.store, (model, revision)
        self.endpoints = [(f"the ledger of {self._store}" if self._store else "the store's own ledger", 1.0)]
        self._ledger: Ledger | None = None

    async def start(self) -> None:
        """Open the other ledger."""
        if self._store is not None:
            self._ledger = Ledger.open(self._store, *self._who)

    async def ask(self, endpoint: str, wanted: Wanted) -> Reply:
        """The answer as it was given, or Deferred with the name of the request."""
        answer = self._ledger.find(wanted.key) if self._ledger is not None else None
        if isinstance(answer, Rejected):
            raise answer
        if answer is None:
            raise Deferred(
                f"{endpoint} has no answer to request {wanted.gist}; a replay never asks a model: "
                "give run.models another engine, or the store that has the answers"
            )
        return answer

    async def close(self) -> None:
        """Close the other ledger."""
        if self._ledger is not None:
            self._ledger.close()
