"""How the requests of one worker to one model stand: for those who watch a run, never for its bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Pulse:
    """A look at a desk, or at several that ask the same model."""

    model: str
    in_flight: int
    """Requests that were sent and not answered yet."""
    limit: int
    """Requests that may be in flight now: the ceiling of the recipe, cut where the server said that it is overloaded."""
    ceiling: int
    queued: int
    """Requests that are ready and wait for a place."""
    slowed: int
    """Times that the server asked for patience (429, 503) so far."""
    shut_s: float
    """Seconds until a first endpoint may be asked again; 0 when one may be asked now."""

    def as_event(self) -> dict[str, Any]:
        """Its fields, for a log."""
        return asdict(self) | {"shut_s": round(self.shut_s, 1)}

    def line(self) -> str:
        """In words."""
        limit = f"{self.limit:,}" if self.limit == self.ceiling else f"{self.limit:,} (cut from {self.ceiling:,})"
        text = f"{self.model}: {self.in_flight:,} in flight of {limit}, {self.queued:,} waiting"
        text += f", slowed down {self.slowed:,} times" if self.slowed else ""
        return text + (f", closed for {self.shut_s:.0f} s" if self.shut_s >= 1 else "")


def together(pulses: Iterable[Pulse]) -> list[Pulse]:
    """One pulse for each model, in the order of their names: counts are added, a model is shut as long as all its askers are."""
    found: dict[str, list[Pulse]] = {}
    for pulse in pulses:
        found.setdefault(pulse.model, []).append(pulse)
    return [
        Pulse(
            model, sum(p.in_flight for p in some), sum(p.limit for p in some), sum(p.ceiling for p in some),
            sum(p.queued for p in some), sum(p.slowed for p in some), min(p.shut_s for p in some),
        )
        for model, some in sorted(found.items())
    ]  # fmt: skip
