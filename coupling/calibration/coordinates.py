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
from sobofem.coupling.design.marginals import HOW, Marginal
from sobofem.coupling.design.truncated import Truncated


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
        chosen = []
        for name, (low, high) in zip(names, box, strict=True):
            try:
                chosen.append(Truncated(_prior(priors.get(name, "uniform")), low, high))
            except ValueError as error:
                raise ValueError(f"prior of {name!r}: {error}") from error
        low, width = np.array([(prior.ends[0], prior.ends[1] - prior.ends[0]) for prior in chosen]).T
        return cls(
            names,
            box,
            low,
            width,
            logarithmic=np.array([prior.logarithmic for prior in chosen]),
            centre=np.array([(p.centre - p.ends[0]) / (p.ends[1] - p.ends[0]) if p.normal else 0.0 for p in chosen]),
            precision=np.array([1.0 / p.marginal.spread if p.normal else 0.0 for p in chosen]) * width,
            spread=np.array([prior.relative_spread for prior in chosen]),
        )

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


def _prior(how: Marginal | str) -> Marginal:
    """A prior, flat or normal, with or without a logarithm: the maps of the chains are made for these."""
    marginal = Marginal.of(how)
    if marginal.of_scipy:
        raise ValueError(f"{marginal} is no prior that a calibration knows; write {HOW}")
    return marginal
