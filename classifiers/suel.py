"""How good is each scorer, when nobody has labelled anything? Weights from the scorers' correlations alone.

SUEL (arXiv 2408.07796) ranks and weighs predictors of one hidden binary label from their scores, where some predictors depend
on each other (same data, same model family). Its ancestor SML (Parisi et al., arXiv 1303.3257) is the case of independent ones.

The model: between scorers of different groups, correlation comes from the hidden label only, R_ij = v_i v_j, with v_i the
correlation of scorer i with the label. Inside a group there is more (shared mistakes), so these pairs are left out. The fit
minimises the squared residuals over the pairs between groups by coordinate descent (after SUEL's constrained quadratic
optimisation; the equations here are our own, derived from the model). Weights are w = W^-1 v with W = R - v v', shrunk: what a
linear discriminant would take, so that redundant scorers share their weight instead of voting twice.

Identifiable only if the graph of groups has an odd circle, that is with three groups or more (and correlations above zero
between them): from two groups alone only the product of their qualities can be known. Then this refuses, or, if asked,
falls back to the spectral weights: the leading eigenvector of R, which is right for independent scorers only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
ROUNDS = 2000
SHRINK = 0.1
"""Share of the diagonal in W: correlations of a finite sample make W nearly singular for near copies."""
LEAST = 0.02
"""A correlation between groups at or below this says nothing about a common label."""


class UnidentifiableError(ValueError):
    """The qualities cannot be told from the correlations; the message says why and what would help."""


@dataclass(frozen=True, slots=True)
class Fit:
    """`quality`: correlation of each scorer with the hidden label; `weights`: of each in the ensemble, summing to 1."""

    quality: Matrix
    weights: Matrix
    residual: float
    """Root of the mean squared difference between model and data over the pairs used."""


def between(groups: list[str]) -> NDArray[np.bool_]:
    """Pairs of scorers of different groups, shape (scorers, scorers)."""
    names = np.array(groups)
    return np.asarray(names[:, None] != names[None, :])


def check(correlation: Matrix, groups: list[str], names: list[str]) -> None:
    """UnidentifiableError where the pairs between groups do not determine every quality."""
    kinds = sorted(set(groups))
    if len(kinds) < 3:
        many = f"{len(names)} scorers in {len(kinds)} group" + ("s" if len(kinds) > 1 else "")
        raise UnidentifiableError(
            f"{many} ({', '.join(kinds)}): of two groups only the product of their qualities shows, and three "
            "are needed. Add a scorer of another kind (perplexity, a heuristic, another family), or set fallback: spectral or equal"
        )
    linked = between(groups) & (correlation > LEAST)
    for index, name in enumerate(names):
        if not linked[index].any():
            best = float(np.where(between(groups), correlation, -1)[index].max())
            raise UnidentifiableError(
                f"'{name}' agrees with no scorer of another group (highest correlation {best:.3f}): it measures something else, or "
                "is oriented the wrong way round. Take it out, or turn it"
            )
    if not _odd_circle(linked):
        raise UnidentifiableError(
            "no three groups agree with each other in a circle (only correlations above "
            f"{LEAST} count): no unique solution. Add a scorer of another kind, or set fallback: spectral or equal"
        )


def _odd_circle(linked: NDArray[np.bool_]) -> bool:
    """Connected and not two-colourable: then v_i v_j on the edges determines every |v_i|."""
    colour = {0: 0}
    pending, odd = [0], False
    while pending:
        at = pending.pop()
        for other in np.flatnonzero(linked[at]).tolist():
            if other not in colour:
                colour[other] = 1 - colour[at]
                pending.append(other)
            odd |= colour[other] == colour[at]
    return odd and len(colour) == len(linked)


def fit(correlation: Matrix, groups: list[str], names: list[str]) -> Fit:
    """Qualities and weights; UnidentifiableError where they are not determined. Deterministic, 6 decimals."""
    check(correlation, groups, names)
    pairs = between(groups)
    found = np.full(len(names), np.sqrt(np.clip(correlation[pairs].mean(), 0.01, 1)))
    for _ in range(ROUNDS):
        before = found.copy()
        for i in range(len(names)):
            others = pairs[i]
            found[i] = np.clip(
                correlation[i, others] @ found[others] / max(float(found[others] @ found[others]), 1e-12), 0.0, 0.999
            )
        if np.abs(found - before).max() < 1e-9:
            break
    away = (correlation - np.outer(found, found))[pairs]
    return Fit(np.round(found, 6), combined(correlation, found), round(float(np.sqrt((away**2).mean())), 6))


def combined(correlation: Matrix, quality: Matrix) -> Matrix:
    """W^-1 v with W = R - v v' shrunk to its diagonal; negative ones to zero, summing to 1, 6 decimals.

    A negative weight would reward documents for a low score; a scorer that only corrects another one is left out instead.
    """
    within = correlation - np.outer(quality, quality)
    within = (1 - SHRINK) * within + SHRINK * np.diag(np.maximum(np.diag(within), 0.05))
    active = np.arange(len(quality))
    while len(active):
        raw = np.linalg.solve(within[np.ix_(active, active)] + 1e-6 * np.eye(len(active)), quality[active])
        if (raw >= 0).all():
            break
        active = active[raw > raw.min()]
    weights = np.zeros(len(quality))
    weights[active] = raw
    return np.asarray(np.round(weights / weights.sum(), 6))


def spectral(correlation: Matrix) -> Fit:
    """SML: the leading eigenvector of the off-diagonal correlations, filled to rank one; weights in proportion to it."""
    filled = correlation.copy()
    for _ in range(ROUNDS):
        values, vectors = np.linalg.eigh(filled)
        leading = vectors[:, -1] * np.sqrt(max(values[-1], 0.0))
        leading = leading * (1.0 if leading.sum() >= 0 else -1.0)  # most scorers are right more often than wrong
        fresh = np.clip(leading**2, 0, 1)
        if np.abs(fresh - np.diag(filled)).max() < 1e-9:
            break
        np.fill_diagonal(filled, fresh)
    quality = np.clip(leading, 0, 1)
    away = (correlation - np.outer(leading, leading))[~np.eye(len(correlation), dtype=bool)]
    total = quality.sum()
    weights = quality / total if total > 0 else np.full(len(quality), 1 / len(quality))
    return Fit(np.round(quality, 6), np.round(weights, 6), round(float(np.sqrt((away**2).mean())), 6))
