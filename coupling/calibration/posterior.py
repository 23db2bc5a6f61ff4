"""Draws from a posterior, and what they tell."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sobofem.coupling.calibration.task import Task
from sobofem.coupling.contract import Array

MIXED = 1.01
"""Largest R-hat of chains that count as having forgotten where they began (Vehtari et al. 2021)."""

MIN_EFFECTIVE_DRAWS = 400.0
"""Smallest effective number of draws at which R-hat and quantiles are reliable (Vehtari et al. 2021)."""


@dataclass(frozen=True, eq=False)
class Posterior:
    """Draws from a surrogate's posterior by several chains.

    Attributes:
        task: What was asked.
        parameters: Names of the n parameters.
        bounds: The box they were drawn in, (n, 2).
        chains: Draws of parameters, (C, N, n).
        rhat: Of each parameter, (n,): 1 where the chains agree.
        effective: Effective number of draws of each parameter's bulk, (n,).
        divergences: Trajectories that went astray after warming up.
        evaluations: Model evaluations with Jacobian.
        estimate: The most probable parameters, (n,), which intervals are to hold; None for none.
    """

    task: Task
    parameters: tuple[str, ...]
    bounds: Array
    chains: Array
    rhat: Array
    effective: Array
    divergences: int
    evaluations: int
    warnings: tuple[str, ...] = field(default=())
    estimate: Array | None = None

    @property
    def x(self) -> Array:
        """All draws, (C N, n), chain after chain."""
        return self.chains.reshape(-1, len(self.parameters))

    @property
    def mean(self) -> Array:
        """Mean of each parameter, (n,)."""
        return self.x.mean(axis=0)

    @property
    def standard_deviation(self) -> Array:
        """Standard deviation of each parameter, (n,)."""
        return self.x.std(axis=0, ddof=1)

    def interval(self, level: float = 0.95) -> Array:
        """Intervals of each parameter alone, (n, 2): central, or as nearly so as the estimate lies within."""
        return intervals(self.x, np.full(len(self.x), 1.0 / len(self.x)), level, self.estimate)

    def spaced(self, count: int) -> Array:
        """Some draws (count, n), as far from each other in their chains as can be, in an order that mixes the chains.

        Raises:
            ValueError: If there are not so many.
        """
        C, N, n = self.chains.shape
        if not 1 <= count <= C * N:
            raise ValueError(f"{count} draws were asked for; expected 1 to {C * N}")
        mixed = self.chains.transpose(1, 0, 2).reshape(-1, n)
        return mixed[np.linspace(0, C * N - 1, count).round().astype(int)]


def intervals(x: Array, weights: Array, level: float, around: Array | None = None) -> Array:
    """Intervals (n, 2) of weighted draws (N, n), each parameter alone, that hold a share `level` of them.

    They are central, but for what a point needs to lie within: the most probable value of a density that falls from a
    bound is the bound, which no central interval holds.

    Args:
        x: Draws (N, n).
        weights: Of them (N,); they add up to one.
        level: The share.
        around: The point (n,).
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is {level:g}, expected a probability between 0 and 1")
    return np.array(
        [_interval(x[:, k], weights, level, None if around is None else around[k]) for k in range(x.shape[1])]
    )


def _interval(values: Array, weights: Array, level: float, point: float | None) -> Array:
    """One of them, (2,)."""
    below = 0.5 - 0.5 * level
    if point is not None:
        at_most, less = (float(weights @ side) for side in (values <= point, values < point))
        below = float(np.clip(below, max(less - level, 0.0), min(at_most, 1.0 - level)))
    ends = np.quantile(values, (below, min(below + level, 1.0)), weights=weights, method="inverted_cdf")
    return ends if point is None else np.array([min(ends[0], point), max(ends[1], point)])


def diagnosed(
    task: Task,
    parameters: tuple[str, ...],
    bounds: Array,
    chains: Array,
    *,
    divergences: int,
    evaluations: int,
    estimate: Array | None = None,
) -> Posterior:
    """Draws (C, N, n) with what tells whether to believe them."""
    import arviz

    columns = np.moveaxis(chains, -1, 0)
    rhat = np.array([float(arviz.rhat(column)) for column in columns])
    effective = np.array([float(arviz.ess(column)) for column in columns])
    return Posterior(
        task,
        parameters,
        bounds,
        chains,
        rhat,
        effective,
        divergences,
        evaluations,
        _warnings(rhat, effective, divergences),
        estimate,
    )


def _warnings(rhat: Array, effective: Array, divergences: int) -> tuple[str, ...]:
    words = []
    if not rhat.max() <= MIXED:
        words.append(f"the chains have not mixed (R-hat {rhat.max():.3f}, expected at most {MIXED}): draw more")
    if not effective.min() >= MIN_EFFECTIVE_DRAWS:
        words.append(f"only {effective.min():.0f} effective draws, of {MIN_EFFECTIVE_DRAWS:.0f} wanted: draw more")
    if divergences:
        words.append(f"{divergences} trajectories diverged: the posterior has corners that were not explored")
    return tuple(words)
