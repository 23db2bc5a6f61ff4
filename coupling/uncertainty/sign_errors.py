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
from scipy.stats import chi2

from sobofem.coupling.contract import Array
from sobofem.coupling.uncertainty.estimate import TWO_SIDED
from sobofem.coupling.uncertainty.rare_events import Cloud

CAUTION = 1.5
"""Factor on standard deviations where the chance of a wrong sign is judged."""

ANYWHERE = 0.05
"""Share of the draws that go anywhere, however sure the surrogate is."""

EXACT_SURROGATE_SPREAD = 0.25
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
        low: How far below it the 95 % interval of the sum reaches.
        high: How far above it.
        solves: Answers that it rests on.
        disagreements: How many of them contradicted the surrogate.
    """

    shift: float
    low: float
    high: float
    solves: int
    disagreements: int

    @property
    def error(self) -> float:
        """Standard error: 1.96 of it are half the width of the interval."""
        return 0.5 * (self.low + self.high) / TWO_SIDED


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
    sigma = deviation if deviation.any() else np.full(len(deviation), EXACT_SURROGATE_SPREAD)
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
    """The disagreements, each by the inverse of its probability, and the interval of their sum.

    Failures that the surrogate missed and those that it made up are counted apart, with an interval each; these give
    that of the difference by the squares of their reaches (Zou and Donner, 2008). It can make up no more failures than
    it has, and miss none of them.
    """
    if not len(rows):
        return Correction(0.0, 0.0, 0.0, 0, 0)
    share = sum(counts) / len(rows)  # solves without an answer: the others stand for them
    each = [count * chance / float(cloud.weight @ chance) for count, chance in zip(counts, chances, strict=True)]
    per_mass = np.sum(each, axis=0)  # draws for each unit of probability, (N,)
    next_one = share * _mass_of_next(cloud, chances[1], per_mass)
    failing = float(cloud.weight @ (cloud.margin < 0.0))
    missed, made_up = (
        _counted(share / per_mass[rows[disagreement == sign]], next_one, most)
        for sign, most in ((1, float(cloud.weight.sum()) - failing), (-1, failing))
    )
    return Correction(
        shift=missed[1] - made_up[1],
        low=float(np.hypot(missed[1] - missed[0], made_up[2] - made_up[1])),
        high=float(np.hypot(missed[2] - missed[1], made_up[1] - made_up[0])),
        solves=len(rows),
        disagreements=int(np.abs(disagreement).sum()),
    )


def _mass_of_next(cloud: Cloud, chance: Array, per_mass: Array) -> float:
    """Mean probability that one more disagreement would stand for, if chances (N,) of wrong signs are right."""
    found = cloud.weight * chance
    return float(found.sum() / (found @ per_mass)) if found.any() else float(1.0 / per_mass.max())


def _counted(masses: Array, next_one: float, most: float) -> tuple[float, float, float]:
    """Lower end, estimate and upper end of the probability that disagreements (K,) of one kind stand for.

    A weighted count of rare events: the gamma interval of Fay and Feuer (1997), which is the exact one of Poisson's
    distribution where all masses are equal, and ends at 3.7 of them where there is none.

    Args:
        masses: What each stands for.
        next_one: What one more would stand for.
        most: What there is at most.
    """
    total, squares = float(masses.sum()), float(masses @ masses)
    more, with_more = total + next_one, squares + next_one**2
    low = squares / (2.0 * total) * float(chi2.ppf(0.025, 2.0 * total**2 / squares)) if total else 0.0
    high = with_more / (2.0 * more) * float(chi2.ppf(0.975, 2.0 * more**2 / with_more))
    return low, total, max(min(high, most), total)
