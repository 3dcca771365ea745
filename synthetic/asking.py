"""A conversation about one row: the author's two pure functions, called in turn. Nothing here waits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stages.contract import Ask, AskParams
from stages.prompt import Exchange, Refused, Reply, Request
from synthetic.request import Wanted, wanted

TOO_MANY_ROUNDS = "too_many_rounds"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one row's conversation."""

    at: int
    """Index of the row in the stream, ascending from 0, none left out."""
    rows: Sequence[Mapping[str, Any] | Refused] = ()
    """Children as `parse` returned them; Refused where one did not come."""
    refused: Refused | None = None
    error: tuple[str, str] | None = None
    """(exception type, message) when `prompt` or `parse` raised, or the server cannot process the request."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompts: tuple[str, ...] = ()


class Deferred(Exception):  # noqa: N818
    """The model cannot be asked now: server gone, budget spent, wrong key, unknown model.

    Nothing of the task may be committed. What was answered is in the ledger; the message says what, where and the way out.
    """


class Rejected(Exception):  # noqa: N818
    """The server cannot process this very request, whoever sends it again: it is longer than the context, for example."""


@dataclass(slots=True)
class Talk:
    """One row and what was said about it so far."""

    at: int
    row: Mapping[str, Any]
    stage: Ask
    params: AskParams
    given: Mapping[str, Any]
    so_far: list[Exchange] = field(default_factory=list)
    outcome: Outcome | None = None
    _asked: list[Request] = field(default_factory=list)
    _replies: dict[int, Reply] = field(default_factory=dict)
    _rounds: int = 0

    def ask(self) -> list[Wanted]:
        """The requests of the next round; none when the conversation is over and `outcome` stands."""
        try:
            self._asked = list(self.stage.prompt(self.row, tuple(self.so_far), self.params, **self.given) or ())
            found = [wanted(request, self.params) for request in self._asked]
        except (ImportError, MemoryError, OSError):
            raise
        except Exception as error:  # the boundary: whatever an author's function raises on a row is that row's error
            self._fail(error)
            return []
        if found and self._rounds == self.stage.rounds:
            self._end(refused=Refused(TOO_MANY_ROUNDS, f"{self._rounds} rounds and still asking"))
            return []
        self._rounds += 1
        if not found:
            self._parse()
        return found

    def hear(self, index: int, reply: Reply | Rejected) -> bool:
        """Take the answer to request `index` of this round; True when the round is complete or the row has failed."""
        if self.outcome is not None:
            return False
        if isinstance(reply, Rejected):
            self._fail(reply)
            return True
        self._replies[index] = reply
        if len(self._replies) < len(self._asked):
            return False
        self.so_far += [Exchange(request, self._replies[i]) for i, request in enumerate(self._asked)]
        self._replies.clear()
        return True

    def _parse(self) -> None:
        try:
            found = self.stage.parse(self.row, tuple(self.so_far), self.params, **self.given)
            if isinstance(found, Refused):
                self._end(refused=found)
                return
            rows = _checked(found)
        except (ImportError, MemoryError, OSError):
            raise
        except Exception as error:  # the boundary, as in `ask`
            self._fail(error)
        else:
            self._end(rows=rows)

    def _fail(self, error: Exception) -> None:
        self._end(error=(type(error).__name__, str(error)))

    def _end(self, **what: Any) -> None:
        replies = [exchange.reply for exchange in self.so_far]
        paid = sum(r.prompt_tokens for r in replies), sum(r.completion_tokens for r in replies)
        self.outcome = Outcome(self.at, prompt_tokens=paid[0], completion_tokens=paid[1], **what)
        self.row, self.so_far = {}, []


def _checked(found: Iterable[Any]) -> tuple[Mapping[str, Any] | Refused, ...]:
    """The rows that `parse` returned; TypeError for anything else."""
    rows = tuple(found)
    for row in rows:
        if not isinstance(row, Mapping | Refused):
            raise TypeError(f"parse returned a {type(row).__name__} where a row (a mapping of columns) belongs")
    return rows
