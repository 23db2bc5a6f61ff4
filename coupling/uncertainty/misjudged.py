"""How much a surrogate misjudges failure: a few solves where its sign is in doubt, weighted without bias.

Points are drawn from a large weighted sample with probabilities in proportion to their weight and to the chance that
the surrogate has the wrong sign there, the measure by which active learning with kriging chooses its points (Echard,
Gayton and Lemaire, 2011). Here they don't train anything: each disagreement counts by the inverse of its probability,
so that the mean is right whatever the surrogate's standard deviations are worth; these only decide how wide the bar is.
A first few draws tell what they are worth, and the others are drawn accordingly; all are weighted by the mixture of
both (the balance heuristic of Veach and Guibas, 1995).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from coupling.contract import Array
from coupling.uncertainty.clouds import Cloud

CAUTION = 1.5
"""Factor on standard deviations where the chance of a wrong sign is judged."""

ANYWHERE = 0.05
"""Share of the draws that go anywhere, however sure the surrogate is."""

NEAR = 0.25
"""Standard deviation, in standard normal space, for surrogates that claim to be exact."""

PILOT = 0.3
"""Share of the draws by which standard deviations are judged."""

LEAST_FACTOR, MOST_FACTOR = 1e-3, 10.0

type Rows = NDArray[np.int_]
type Judge = Callable[[Rows], tuple[Rows, Array, NDArray[np.bool_]]]
"""Asks the trusted model at rows of the cloud: which have an answer (K,), its margins and whether it failed (K,)."""


@dataclass(frozen=True)
class Correction:
    """What solves say of a surrogate's failure probability.

    Attributes:
        shift: What to add to it.
        error: Its standard error.
        solves: Answers that it rests on.
        disagreements: How many of them contradicted the surrogate.
    """

    shift: float
    error: float
    solves: int
    disagreements: int


def corrected(cloud: Cloud, deviation: Array, judge: Judge, count: int, seed: int) -> Correction:
    """Draw points where the surrogate's sign is in doubt, ask, and weigh the disagreements.

    Args:
        cloud: Points with margins and weights.
        deviation: Standard deviations of the margins, (N,), as the surrogate claims.
        judge: The trusted model.
        count: How many points to ask for.
        seed: Of the draw.
    """
    rng = np.random.default_rng(seed)
    sigma = deviation if deviation.any() else np.full(len(deviation), NEAR)
    first = max(int(PILOT * count), 2)
    chances = [_chance(cloud, CAUTION * sigma)]
    drawn = [_draw(cloud, chances[0], first, rng)]
    rows, margins, failed = judge(drawn[0])
    off = (margins - cloud.margin[rows]) / np.maximum(sigma[rows], np.finfo(float).tiny)
    factor = np.clip(np.sqrt(np.mean(off**2)) if len(off) else 1.0, LEAST_FACTOR, MOST_FACTOR)
    chances.append(_chance(cloud, CAUTION * factor * sigma))
    drawn.append(_draw(cloud, chances[1], count - first, rng))
    more, _, more_failed = judge(drawn[1])
    rows, failed = np.append(rows, more), np.append(failed, more_failed)
    disagreement = failed.astype(int) - (cloud.margin[rows] < 0.0).astype(int)
    return _weighed(cloud, chances, (first, count - first), rows, disagreement)


def _chance(cloud: Cloud, sigma: Array) -> Array:
    """Chance (N,) of a wrong sign, and a little everywhere."""
    standardized = np.abs(cloud.margin) / np.maximum(sigma, np.finfo(float).tiny)
    chance = ndtr(-standardized)
    if not (cloud.weight * chance).any():  # so sure that no digit is left: take the nearest ones
        chance = ndtr(-standardized / max(standardized.min(), np.finfo(float).tiny))
    return chance + ANYWHERE * float(cloud.weight @ chance) / cloud.weight.sum()


def _draw(cloud: Cloud, chance: Array, count: int, rng: np.random.Generator) -> Rows:
    """Rows (K,) in proportion to weight and chance: systematic along the margin, so that they lie on both sides."""
    order = np.argsort(cloud.margin)
    marks = (np.arange(count) + rng.random()) / count
    steps = np.cumsum((cloud.weight * chance)[order])
    return order[np.minimum(np.searchsorted(steps, marks * steps[-1]), len(order) - 1)]


def _weighed(
    cloud: Cloud, chances: list[Array], counts: tuple[int, int], rows: Rows, disagreement: NDArray[np.int_]
) -> Correction:
    """The mean of the disagreements, each by the inverse of its probability, and its standard error.

    Two disagreements that cancel each other, of the size that is likeliest, are counted in besides: a bar of nothing
    would not be honest where none was found among a few.
    """
    asked, answered = sum(counts), len(rows)
    totals = [float(cloud.weight @ chance) for chance in chances]
    per_mass = sum(
        count * chance[rows] / total for count, chance, total in zip(counts, chances, totals, strict=True)
    )  # draws for each unit of probability, at the points drawn
    terms = disagreement / per_mass * asked / max(answered, 1)
    likeliest = 2.0 / sum(count / total for count, total in zip(counts, totals, strict=True))
    mean = float(terms.mean()) if answered else 0.0
    squares = float(np.sum((terms - mean) ** 2)) + 2.0 * likeliest**2
    return Correction(float(terms.sum()), float(np.sqrt(squares)), answered, int(np.abs(disagreement).sum()))
