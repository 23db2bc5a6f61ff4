"""Parameters between 0 and 1, in coordinates in which each prior is flat or normal.

A parameter whose distribution is `log` or `lognormal` enters by its logarithm. So every least-squares problem has
residuals that are linear in the prior, and the most probable point is that in these coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sobofem.coupling.contract import Array, checked_bounds
from sobofem.coupling.design.marginals import KINDS, Marginal

FLAT = 1.0 / np.sqrt(12.0)
"""Standard deviation of what is evenly distributed between 0 and 1."""


@dataclass(frozen=True, eq=False)
class Coordinates:
    """The map from u in [0, 1]ⁿ to parameters x, and the priors in u.

    Attributes:
        parameters: Names of the n parameters.
        bounds: The box that x lives in, (n, 2).
        low: Lower end of the box, (n,), of x or of its logarithm.
        width: Width of the box, likewise, (n,).
        logarithmic: Which inputs enter by their logarithm, (n,).
        centre: Mean of each normal prior in u, (n,); 0 where it is flat.
        precision: Square root of the precision of each normal prior in u, (n,); 0 where it is flat.
        spread: Standard deviation of each prior in u, (n,), with what the box cuts off.
    """

    parameters: tuple[str, ...]
    bounds: Array
    low: Array
    width: Array
    logarithmic: NDArray[np.bool_]
    centre: Array
    precision: Array
    spread: Array

    @classmethod
    def of(cls, parameters: Sequence[str], bounds: ArrayLike, priors: Mapping[str, Marginal]) -> Coordinates:
        """Coordinates of a box (n, 2); parameters without a prior are evenly distributed.

        Raises:
            ValueError: If a prior is of no parameter, or leaves nearly nothing within the bounds.
        """
        names = tuple(parameters)
        if unknown := sorted(set(priors) - set(names)):
            raise ValueError(f"there is a prior of {', '.join(unknown)}, but the parameters are {', '.join(names)}")
        box = checked_bounds(bounds, names)
        chosen = [priors.get(name, Marginal("uniform")) for name in names]
        for name, prior, ends in zip(names, chosen, box, strict=True):
            try:
                prior.quantile(0.5, *ends)
            except ValueError as error:
                raise ValueError(f"prior of {name!r}: {error}") from error
        logarithmic = np.array([prior.kind in ("log", "lognormal") for prior in chosen])
        ends = np.where(logarithmic[:, None], np.log(np.where(logarithmic[:, None], box, 1.0)), box)
        low, width = ends[:, 0], ends[:, 1] - ends[:, 0]
        normal = np.array([KINDS[prior.kind] > 0 for prior in chosen])
        centre = np.array([np.log(p.centre) if p.kind == "lognormal" else p.centre for p in chosen])
        precision = np.array([1.0 / p.spread if KINDS[p.kind] else 0.0 for p in chosen]) * width
        centre = np.where(normal, (centre - low) / width, 0.0)
        return cls(names, box, low, width, logarithmic, centre, precision, _spread(centre, precision))

    def x(self, u: ArrayLike) -> Array:
        """Parameters (..., n) at u (..., n), never outside the box."""
        t = self.low + np.clip(u, 0.0, 1.0) * self.width
        x = np.where(self.logarithmic, np.exp(np.where(self.logarithmic, t, 0.0)), t)
        return np.clip(x, *self.bounds.T)

    def u(self, x: ArrayLike) -> Array:
        """Coordinates (..., n) of parameters x (..., n)."""
        values = np.asarray(x, dtype=np.float64)
        t = np.where(self.logarithmic, np.log(np.where(self.logarithmic, values, 1.0)), values)
        return (t - self.low) / self.width

    def slope(self, u: Array) -> Array:
        """dx/du, (..., n)."""
        return np.where(self.logarithmic, self.x(u), 1.0) * self.width

    def prior_residual(self, u: Array) -> Array:
        """Distance from the centres of the priors in standard deviations, (n,); 0 for flat ones."""
        return self.precision * (u - self.centre)


def _spread(centre: Array, precision: Array) -> Array:
    """Standard deviations of normal distributions that are cut to [0, 1], and of flat ones."""
    from scipy.stats import truncnorm

    normal = precision > 0.0
    spread = np.full(len(centre), FLAT)
    a, b = -centre[normal] * precision[normal], (1.0 - centre[normal]) * precision[normal]
    spread[normal] = truncnorm.std(a, b) / precision[normal]
    return spread
