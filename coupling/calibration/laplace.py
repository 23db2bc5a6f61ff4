"""Laplace's approximation: the posterior as a normal distribution about its most probable point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from scipy.special import ndtri

from sobofem.coupling.calibration.coordinates import Coordinates
from sobofem.coupling.calibration.estimate import Estimate, precision
from sobofem.coupling.contract import Array

WIDE = 0.3
"""Standard deviation, as a share of the box, from which on the box and not the measurements bounds a parameter."""


@dataclass(frozen=True, eq=False)
class Laplace:
    """A normal distribution in the coordinates of the calibration (`log` for parameters with such a prior).

    Attributes:
        coordinates: The map from these to parameters.
        mean: The most probable point in them, (n,).
        covariance: In them, (n, n).
        warnings: Why it may not hold, in sentences; empty where nothing speaks against it.
    """

    coordinates: Coordinates
    mean: Array
    covariance: Array
    warnings: tuple[str, ...] = ()

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the n parameters."""
        return self.coordinates.parameters

    @property
    def x(self) -> Array:
        """The most probable parameters, (n,)."""
        return self.coordinates.x(self.mean)

    @property
    def standard_deviation(self) -> Array:
        """Standard deviations of the parameters, to first order, (n,)."""
        return np.sqrt(np.diag(self.covariance_of_parameters))

    @property
    def covariance_of_parameters(self) -> Array:
        """Covariance of the parameters, to first order, (n, n)."""
        slope = self.coordinates.slope(self.mean)
        return slope[:, None] * self.covariance * slope

    @property
    def correlation(self) -> Array:
        """Correlation of the parameters, (n, n)."""
        sd = np.sqrt(np.diag(self.covariance))
        return self.covariance / sd[:, None] / sd

    def interval(self, level: float = 0.95) -> Array:
        """Central intervals of each parameter alone, cut to the bounds, (n, 2)."""
        if not 0.0 < level < 1.0:
            raise ValueError(f"level is {level:g}, expected a probability between 0 and 1")
        half = ndtri(0.5 + 0.5 * level) * np.sqrt(np.diag(self.covariance))
        return self.coordinates.x(np.stack([self.mean - half, self.mean + half])).T

    def draw(self, count: int, *, seed: int = 0) -> Array:
        """Parameters drawn from it, (count, n), within the bounds.

        Raises:
            ArithmeticError: If hardly any lie within.
        """
        rng, root = np.random.default_rng(seed), scipy.linalg.cholesky(self.covariance, lower=True)
        kept = np.zeros((0, len(self.mean)))
        for _ in range(200):
            u = self.mean + rng.standard_normal((max(count, 64), len(self.mean))) @ root.T
            kept = np.vstack([kept, u[((u >= 0.0) & (u <= 1.0)).all(axis=1)]])
            if len(kept) >= count:
                return self.coordinates.x(kept[:count])
        raise ArithmeticError("hardly any of Laplace's approximation lies within the bounds; widen them, or sample")


def laplace(found: Estimate) -> Laplace:
    """The inverse of the Gauss-Newton Hessian at an estimate, best one that the trusted model has certified.

    A direction that the measurements leave less certain than the prior is given the prior's own variance.
    """
    coordinates = found.objective.coordinates
    scaled = coordinates.spread[:, None] * precision(found.objective, found.point, found.noise) * coordinates.spread
    values, vectors = scipy.linalg.eigh(scaled)
    root = coordinates.spread[:, None] * vectors / np.sqrt(np.maximum(values, 1.0))
    covariance = root @ root.T
    return Laplace(coordinates, found.point.u, covariance, _warnings(found, covariance))


def _warnings(found: Estimate, covariance: Array) -> tuple[str, ...]:
    sd = np.sqrt(np.diag(covariance))
    words = [f"{name} is at its bound: widen the bounds, or trust draws instead" for name in found.at_bound]
    for name, share in zip(found.parameters, sd, strict=True):
        if share > WIDE * 0.5 and name not in found.at_bound:
            words.append(f"{name} is hardly determined: its standard deviation is {share:.0%} of its range")
    if len(found.rivals):
        words.append(
            f"there are {len(found.rivals)} other optima nearly as probable: see their values, and trust draws"
        )
    return tuple(words)
