"""What a mixture asks for, what there is, and where each source has to be cut.

The documents of a source stand in one endless row: epoch 0 in the order of the seed, then epoch 1 in its own order, and
so on. A phase takes the stretch that begins where the phase before it stopped. A document belongs to the stretch in which
its first token lies, so a phase misses its budget by less than one document of each source, and no token is lost between
two phases.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from stages.contract import Params, Unusable
from stages.order import BUCKETS, SHIFT, Hashes, bucket_of, dealt, turned

ROUNDING = 0.005
"""How far shares may be from their whole: published percentages are rounded (Nemotron 3 Nano's phase 2 sums to 100.1)."""
ONE_PHASE = "all"
SIZES = pa.schema(
    [("source", pa.string()), ("bucket", pa.int32()), ("rows", pa.int64()), ("tokens", pa.int64()), ("seed", pa.uint64())]
)
"""What `sizes` settles to: tokens of each source by range of the order, the empty ones left out."""
Words = dict[str, Any]


class Portion(Params):
    """What one phase takes of each source."""

    shares: dict[str, float] = Field({}, description="Share of the phase's tokens by source; they sum to 1, or to 100 as percent.")
    budgets: dict[str, int] = Field({}, description="Instead of shares: tokens by source.")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.shares and self.budgets:
            raise ValueError("give shares or budgets, not both")
        if bad := [name for name, value in {**self.shares, **self.budgets}.items() if not 0 <= value < math.inf]:
            raise ValueError(f"'{bad[0]}' asks for {({**self.shares, **self.budgets})[bad[0]]}: a number from 0 up is needed")
        total = sum(self.shares.values())
        if self.shares and not any(abs(total / whole - 1) <= ROUNDING for whole in (1, 100)):
            raise ValueError(f"the shares sum to {total:g}: they have to sum to 1, or to 100 as percent")
        return self

    def wanted(self, tokens: int | None) -> dict[str, int]:
        """Tokens by source."""
        if self.budgets:
            return dict(self.budgets)
        total = sum(self.shares.values())
        return {name: round((tokens or 0) * share / total) for name, share in self.shares.items()}


class Phase(Portion):
    """A phase: how long it is, and what it takes."""

    upto: float | None = Field(None, gt=0, le=1, description="Where it ends, as a share of all tokens (0.94); the last ends at 1.")
    tokens: int | None = Field(None, ge=1, description="Instead of upto: its tokens.")


class Mixture(Portion):
    """Sources, phases and limits of a mixture."""

    by: str = Field("step", description="Column that names the source of a row; a union of steps has `step`.")
    seed: int = Field(0, ge=0, lt=2**64, description="Seed of the order; that of the step `sizes`.")
    tokens: int | None = Field(None, ge=1, description="Tokens of all phases together.")
    phases: dict[str, Phase] = Field({}, description="Phases in order, by name; without any, shares or budgets are the one phase.")
    max_epochs: float = Field(4.0, gt=0, description="How often a source may be seen; gains shrink beyond 4 (arXiv 2305.16264).")
    epochs: dict[str, float] = Field({}, description="Other limits for single sources.")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if bool(self.phases) == bool(self.shares or self.budgets):
            raise ValueError("a mixture needs shares, budgets or phases, and only one of the three")
        if self.shares and self.tokens is None:
            raise ValueError("shares need tokens: how many the mixture shall have")
        points = [phase.upto for phase in self.phases.values()]
        if any(points):
            self._check_points(points)
        for name, phase in self.phases.items():
            if phase.shares and phase.upto is None and phase.tokens is None:
                raise ValueError(f"phase '{name}' has shares and no length: give upto or tokens")
            if not phase.shares and not phase.budgets:
                raise ValueError(f"phase '{name}' takes nothing: give shares or budgets")
        if unknown := sorted(set(self.epochs) - self.sources):
            raise ValueError(f"epochs names {unknown}, which no phase takes from")
        return self

    def _check_points(self, points: list[float | None]) -> None:
        given = [point for point in points if point is not None]
        if len(given) < len(points) or any(phase.tokens or phase.budgets for phase in self.phases.values()):
            raise ValueError("give every phase upto and shares, or none of them upto")
        if given != sorted(set(given)) or given[-1] != 1:
            raise ValueError(f"upto is {given}: switch points rise, and the last is 1")
        if self.tokens is None:
            raise ValueError("upto needs tokens: how many the mixture shall have")

    @property
    def sources(self) -> set[str]:
        """Sources that some phase takes from."""
        return {name for phase in self.wanted_by_phase().values() for name, tokens in phase.items() if tokens}

    def wanted_by_phase(self) -> dict[str, dict[str, int]]:
        """Tokens by phase and source."""
        if not self.phases:
            return {ONE_PHASE: self.wanted(self.tokens)}
        found, before = {}, 0
        for name, phase in self.phases.items():
            end = round(phase.upto * (self.tokens or 0)) if phase.upto is not None else before + (phase.tokens or 0)
            found[name] = phase.wanted(end - before)
            before = end
        return found

    def limit(self, source: str) -> float:
        """Epochs allowed for a source."""
        return self.epochs.get(source, self.max_epochs)


@dataclass(frozen=True, slots=True)
class Stock:
    """A source as it is: rows and tokens by bucket of its order."""

    rows: NDArray[np.int64]
    tokens: NDArray[np.int64]

    @property
    def total(self) -> int:
        """Tokens of one epoch."""
        return int(self.tokens.sum())

    @property
    def documents(self) -> int:
        """Rows of one epoch."""
        return int(self.rows.sum())


@dataclass(frozen=True, slots=True)
class Cut:
    """A place in the endless row of a source: the bucket of an epoch's order in which it falls, and what lies before that.

    `rank` is the bucket's number in the epoch's order, `bucket` that in the order of the seed. `need` is how many tokens of
    the bucket still come before the cut; 0 means that the cut is where the bucket begins.
    """

    seed: int
    epoch: int
    rank: int
    bucket: int
    before: int
    rows_before: int
    need: int


def stocks(sizes: pa.Table, seed: int) -> dict[str, Stock]:
    """Sources by name out of the dataset that `sizes` made; Unusable when that was made with another seed."""
    made = set(sizes["seed"].unique().to_pylist())
    if made - {seed}:
        raise Unusable(f"the sizes were counted in the order of seed {min(made)}, the mixture has seed {seed}: use one seed")
    names = sizes["source"].combine_chunks().dictionary_encode()
    found = {}
    for index, name in enumerate(names.dictionary.to_pylist()):
        mine = sizes.filter(pa.array(names.indices.to_numpy() == index))
        counts = [np.zeros(BUCKETS, np.int64) for _ in range(2)]
        for count, column in zip(counts, ("rows", "tokens"), strict=True):
            np.add.at(count, mine["bucket"].to_numpy(), mine[column].to_numpy())
        found[name] = Stock(*counts)
    return found


def find_cut(stock: Stock, position: int, seed: int) -> Cut:
    """Where the endless row of a source reaches `position` tokens."""
    epoch, offset = divmod(position, stock.total)
    order, _, _ = dealt(seed, epoch)
    ends = np.cumsum(stock.tokens[order])
    rank = int(np.searchsorted(ends, offset)) if offset else 0
    before = int(ends[rank - 1]) if rank else 0
    return Cut(seed, epoch, rank, int(order[rank]), before, int(stock.rows[order[:rank]].sum()), offset - before)


@dataclass(frozen=True, slots=True)
class Place:
    """A cut that is known to the document: rows below `key` (in the epoch's order) come before it."""

    epoch: int
    key: int
    tokens: int
    rows: int


def place(cut: Cut, keys: Hashes, tokens: NDArray[np.int64]) -> Place:
    """The exact place of a cut, from the documents of its bucket: those whose first token comes before it are below it."""
    if not cut.need:
        return Place(cut.epoch, cut.rank << int(SHIFT), cut.before, cut.rows_before)
    places = turned(keys, cut.seed, cut.epoch)
    order = np.argsort(places, kind="stable")
    places, sizes = places[order], tokens[order]
    starts = np.cumsum(sizes) - sizes
    first = int(np.searchsorted(starts, cut.need))
    key = int(places[first]) if first < len(places) else (cut.rank + 1) << int(SHIFT)
    below = places < np.uint64(key) if key < 2**64 else np.ones(len(places), bool)
    return Place(cut.epoch, key, cut.before + int(sizes[below].sum()), cut.rows_before + int(below.sum()))


def slices(start: Place, stop: Place, stock: Stock) -> Iterator[Words]:
    """The stretch between two places, epoch by epoch: `first` and `last` key (inclusive), its rows and tokens."""
    for epoch in range(start.epoch, stop.epoch + 1):
        low = start if epoch == start.epoch else Place(epoch, 0, 0, 0)
        high = stop if epoch == stop.epoch else Place(epoch, 2**64, stock.total, stock.documents)
        if high.key > low.key and high.rows > low.rows:
            yield {
                "epoch": epoch, "first": low.key, "last": high.key - 1, "rows": high.rows - low.rows,
                "tokens": high.tokens - low.tokens,
            }  # fmt: skip


class Demand:
    """A mixture held against what there is."""

    def __init__(self, mixture: Mixture, have: Mapping[str, Stock]) -> None:
        self.mixture, self.have = mixture, have
        self.wanted = mixture.wanted_by_phase()
        self.totals: dict[str, int] = {}
        for phase in self.wanted.values():
            for name, tokens in phase.items():
                self.totals[name] = self.totals.get(name, 0) + tokens

    def available(self, source: str) -> int:
        """Tokens of one epoch of a source; 0 when it has no rows."""
        return self.have[source].total if source in self.have else 0

    def cuts(self) -> Iterator[tuple[str, str, Cut]]:
        """(source, phase, where the phase ends) of every source that is taken from, in the order of phases."""
        for source, total in self.totals.items():
            position = 0
            for phase, wanted in self.wanted.items() if total else ():
                position += wanted.get(source, 0)
                yield source, phase, find_cut(self.have[source], position, self.mixture.seed)

    def short(self) -> list[str]:
        """Sources that cannot give what is wanted, the worst first."""
        lack = [s for s, wanted in self.totals.items() if wanted > self.available(s) * self.mixture.limit(s)]
        return sorted(lack, key=lambda s: self.available(s) * self.mixture.limit(s) / self.totals[s])

    def refusal(self) -> str | None:
        """Why the mixture cannot be made: wanted, possible, the source at fault and two ways out; None when it can."""
        short = self.short()
        if not short:
            return None
        worst, total = short[0], sum(self.totals.values())
        have, limit = self.available(worst), self.mixture.limit(worst)
        others = f" (also short: {', '.join(short[1:])})" if short[1:] else ""
        if not have:
            known = ", ".join(sorted(self.have)) or "none"
            return (
                f"the mixture wants {self.totals[worst]:,} tokens of '{worst}', which has no rows{others}; sources with rows: "
                f"{known}. Either give '{worst}' some, or take it out of the shares (with it, the best is 0 tokens)"
            )
        best = math.floor(have * limit / self.totals[worst] * total)
        return (
            f"the mixture wants {self.totals[worst]:,} tokens of '{worst}', which has {have:,} in {self.have[worst].documents:,} "
            f"documents: {self.totals[worst] / have:.2f} epochs, and {limit:g} are allowed{others}. With these shares the best "
            f"that can be done is {best:,} of {total:,} tokens. Either ask for that many, or let '{worst}' have "
            f"{_up(self.totals[worst] / have)} epochs (or a share of {_down(have * limit / total)} at most)"
        )

    def table(self) -> list[Words]:
        """A row for each source: documents and tokens there are, tokens wanted by phase and in all, epochs, shortfall."""
        return [
            {
                "source": name,
                "documents": self.have[name].documents if name in self.have else 0,
                "available": self.available(name),
                **{f"wanted_{phase}": wanted.get(name, 0) for phase, wanted in self.wanted.items()},
                "wanted": total,
                "epochs": round(total / self.available(name), 4) if self.available(name) else None,
                "allowed": self.mixture.limit(name),
                "short": max(total - math.floor(self.available(name) * self.mixture.limit(name)), 0),
            }
            for name, total in self.totals.items()
        ]


def _up(value: float) -> str:
    """Rounded up to two digits, so that the number is enough."""
    return f"{math.ceil(value * 100) / 100:g}"


def _down(value: float) -> str:
    """Four digits that are not more than the value."""
    digits = 4 - math.ceil(math.log10(value)) if value > 0 else 0
    return f"{math.floor(value * 10**digits) / 10**digits:g}"


def bounds_of(cuts: list[tuple[str, str, Cut]]) -> NDArray[np.bool_]:
    """Which buckets of which source (in the order of first mention) have to be looked at document by document."""
    names = list(dict.fromkeys(source for source, _, _ in cuts))
    found = np.zeros((len(names) + 1, BUCKETS), bool)  # the last is that of rows whose source nobody wants
    for source, _, cut in cuts:
        if cut.need:
            found[names.index(source), cut.bucket] = True
    return found


def in_bounds(names: list[str], sources: pa.ChunkedArray, keys: Hashes, bounds: NDArray[Any]) -> NDArray[Any]:
    """Mask of the rows whose source and bucket hold a cut; `names` are the sources in the order of `bounds`."""
    encoded = sources.combine_chunks().dictionary_encode()
    places = {name: index for index, name in enumerate(names)}
    codes = np.array([*(places.get(name, -1) for name in encoded.dictionary.to_pylist()), -1], np.int64)
    return np.asarray(bounds[codes[encoded.indices.fill_null(len(codes) - 1).to_numpy()], bucket_of(keys)])
