"""How much may be asked at once, and how much in all."""

from __future__ import annotations

from dataclasses import dataclass

CUT = 0.7
"""Multiplicative decrease at a sign of overload; TCP Cubic uses the same factor (RFC 9438, section 4.6)."""
STEPS = 32
"""Additive increase: one window of successes raises the limit by 1/32 of its ceiling, at least by one."""


@dataclass(slots=True)
class Gate:
    """Additive increase, multiplicative decrease of the requests in flight to one endpoint (Chiu and Jain, 1989).

    It starts wide open: `ceiling` is what the owner of the server allows, and a server that queues by itself (vLLM) is
    fastest when it sees the whole queue.
    """

    name: str
    weight: float
    ceiling: int
    limit: float = 0.0
    in_flight: int = 0
    closed_until: float = 0.0
    _cut_at: float = float("-inf")

    def __post_init__(self) -> None:
        self.limit = float(self.ceiling)

    @property
    def load(self) -> float:
        """Requests in flight for its weight: the least loaded gate is next."""
        return (self.in_flight + 1) / self.weight

    def open_at(self, now: float) -> bool:
        """Whether one more may pass."""
        return now >= self.closed_until and self.in_flight < max(1, int(self.limit))

    def success(self) -> None:
        """An answer came."""
        if self.limit < self.ceiling:
            self.limit = min(self.ceiling, self.limit + max(1.0, self.ceiling / STEPS) / self.limit)

    def overload(self, now: float, sent_at: float, pause: float) -> None:
        """The server is overloaded: close for `pause` seconds, and cut the limit once for all that was sent before the cut."""
        self.closed_until = max(self.closed_until, now + pause)
        if sent_at > self._cut_at:
            self.limit = max(1.0, self.limit * CUT)
            self._cut_at = now


@dataclass(slots=True)
class Budget:
    """Tokens and money that a ledger may cost in all; None is no limit. What is in flight counts with its ceiling."""

    tokens: int | None
    cost: float | None
    price: tuple[float, float]
    """Per million tokens: of the prompt, of the completion."""
    share: int
    """Workers that spend at once; each may have its share of what is left in flight."""
    reserved_tokens: int = 0
    reserved_cost: float = 0.0

    @property
    def limited(self) -> bool:
        """Whether there is a limit at all."""
        return self.tokens is not None or self.cost is not None

    def paid(self, prompt_tokens: int, completion_tokens: int) -> float:
        """What so many tokens cost."""
        return (prompt_tokens * self.price[0] + completion_tokens * self.price[1]) / 1e6

    def worst(self, ceiling: int) -> float:
        """What so many tokens of unknown kind cost at most."""
        return ceiling * max(self.price) / 1e6

    def allows(self, ceiling: int, spent: tuple[int, int]) -> bool:
        """Whether a request that costs at most `ceiling` tokens may be sent when `spent` (prompt, completion) are in the ledger."""
        if self.tokens is not None and (self.reserved_tokens + ceiling) * self.share > self.tokens - sum(spent):
            return False
        return self.cost is None or (self.reserved_cost + self.worst(ceiling)) * self.share <= self.cost - self.paid(*spent)

    def reserve(self, ceiling: int, sign: int = 1) -> None:
        """Set aside for a request in flight; sign -1 gives it back."""
        self.reserved_tokens += sign * ceiling
        self.reserved_cost += sign * self.worst(ceiling)

    def state(self, spent: tuple[int, int]) -> str:
        """For messages."""
        parts = [f"{sum(spent):,} of {self.tokens:,} tokens"] if self.tokens is not None else []
        parts += [f"{self.paid(*spent):.4f} of {self.cost:.4f} in cost"] if self.cost is not None else []
        return " and ".join(parts) + " are spent"
