"""Distributions of inputs within their bounds: quantiles, densities, and the map from a standard normal variable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from sobofem.coupling.contract import Array
from sobofem.coupling.design.marginals import Marginal

MIN_PROBABILITY_WITHIN = 1e-3
"""Probability that a normal distribution must leave within the bounds: with less it is a tail, known to few digits."""


@dataclass(frozen=True)
class Truncated:
    """A marginal distribution within bounds.

    Its *natural coordinate* v is the input, or the input's logarithm for the logarithmic kinds: there the density is
    flat, or that of a normal distribution that was cut off.

    Attributes:
        marginal: The distribution.
        low: Lower bound of the input.
        high: Upper bound of the input.

    Raises:
        ValueError: If a logarithm is wanted of bounds that are not positive, or nearly nothing lies within them.
    """

    marginal: Marginal
    low: float
    high: float

    def __post_init__(self) -> None:
        box = f"[{self.low:g}, {self.high:g}]"
        if self.logarithmic and self.low <= 0.0:
            raise ValueError(f"distribution {self.marginal} has no logarithm on {box}; expected positive bounds")
        if (share := 1.0 - self.outside) < MIN_PROBABILITY_WITHIN:
            raise ValueError(
                f"distribution {self.marginal} leaves {share:.1e} of its probability within the bounds {box}; widen "
                "the bounds, or hold the input at a value"
            )

    @property
    def logarithmic(self) -> bool:
        """Whether the natural coordinate is the logarithm."""
        return self.marginal.logarithmic

    @property
    def normal(self) -> bool:
        """Whether the density in the natural coordinate is a normal one, cut off."""
        return self.marginal.normal

    @property
    def outside(self) -> float:
        """Probability that the distribution had outside the bounds before it was cut off."""
        if not self.normal:
            return 0.0
        a, b = self.standardized_ends
        return float(ndtr(a) + ndtr(-b))

    @property
    def poincare(self) -> float:
        """Constant C of Poincaré's inequality Var[h(v)] ≤ C E[h'(v)²] in the natural coordinate, or a bound on it.

        Exact for a flat density and for a normal one that is hardly cut off; a bound for any other, whose density is
        more peaked than the one and narrower than the other (Lamboni, Iooss, Popelin and Gamboa, 2013; Payne and
        Weinberger, 1960, for the second).
        """
        flat = float(np.diff(self.ends)[0] / np.pi) ** 2
        return min(flat, self.marginal.spread**2) if self.normal else flat

    @property
    def relative_spread(self) -> float:
        """Standard deviation of the natural coordinate over the distance of its bounds, with what these cut off."""
        if not self.normal:
            return float(1.0 / np.sqrt(12.0))
        from scipy.stats import truncnorm  # takes a second to import

        return float(truncnorm.std(*self.standardized_ends) * self.marginal.spread / np.diff(self.ends)[0])

    def quantile(self, probability: ArrayLike) -> Array:
        """Values below which the input lies with the given probabilities."""
        unit = np.asarray(probability, dtype=np.float64)
        if self.normal:
            from scipy.stats import truncnorm  # takes a second to import

            v = truncnorm.ppf(unit, *self.standardized_ends, loc=self.centre, scale=self.marginal.spread)
        else:
            v = self.ends[0] + unit * (self.ends[1] - self.ends[0])
        return self._of_natural(v)

    def at(self, u: ArrayLike) -> Array:
        """Values of the input that are as probable as values u of a standard normal variable, in its lower tail."""
        u = np.asarray(u, dtype=np.float64)
        upper = u > 0.0  # there, count from above: probabilities near one have no digits left
        tail = ndtr(-np.abs(u))
        low, high = self.ends
        if self.normal:
            a, b = self.standardized_ends
            share = 1.0 - self.outside
            z = np.where(upper, -ndtri(ndtr(-b) + tail * share), ndtri(ndtr(a) + tail * share))
            v = self.centre + self.marginal.spread * z
        else:
            v = np.where(upper, high - tail * (high - low), low + tail * (high - low))
        return self._of_natural(np.clip(v, low, high))

    def slope(self, u: ArrayLike) -> Array:
        """Derivative of `at`."""
        u = np.asarray(u, dtype=np.float64)
        x = self.at(u)
        if self.normal:
            z = ((np.log(x) if self.logarithmic else x) - self.centre) / self.marginal.spread
            dv = self.marginal.spread * (1.0 - self.outside) * np.exp(0.5 * (z**2 - u**2))
        else:
            dv = np.diff(self.ends) * np.exp(-0.5 * u**2) / np.sqrt(2.0 * np.pi)
        return dv * x if self.logarithmic else dv

    def natural_slope(self, x: ArrayLike) -> Array:
        """Derivative dx/dv of the input by its natural coordinate."""
        x = np.asarray(x, dtype=np.float64)
        return x if self.logarithmic else np.ones_like(x)

    def log_density(self, x: ArrayLike) -> Array:
        """Logarithm of the density at values within the bounds."""
        x = np.asarray(x, dtype=np.float64)
        jacobian = np.log(x) if self.logarithmic else np.zeros_like(x)
        if not self.normal:
            return -np.log(np.diff(self.ends)[0]) - jacobian
        z = ((np.log(x) if self.logarithmic else x) - self.centre) / self.marginal.spread
        scale = np.log(self.marginal.spread * np.sqrt(2.0 * np.pi)) + np.log1p(-self.outside)
        return -0.5 * z**2 - scale - jacobian

    @property
    def centre(self) -> float:
        """Mean in the natural coordinate of what is normal there."""
        return float(np.log(self.marginal.centre)) if self.logarithmic else self.marginal.centre

    @property
    def ends(self) -> Array:
        """Bounds of the natural coordinate (2,)."""
        ends = np.array([self.low, self.high], dtype=np.float64)
        return np.log(ends) if self.logarithmic else ends

    @property
    def standardized_ends(self) -> Array:
        """These in standard deviations from the centre (2,)."""
        return (self.ends - self.centre) / self.marginal.spread

    def _of_natural(self, v: Array) -> Array:
        """The input of its natural coordinate, never outside its bounds."""
        return np.clip(np.exp(v) if self.logarithmic else v, self.low, self.high)


def transformed(
    unit: Array, bounds: ArrayLike, parameters: Sequence[str] | None, marginals: Mapping[str, Marginal]
) -> Array:
    """Points of the unit box (N, n) as values of inputs (N, n) with their distributions; the others are uniform.

    Args:
        unit: Points between 0 and 1.
        bounds: Of the inputs, (n, 2).
        parameters: Names of the inputs; needed where any has a distribution.
        marginals: Distributions by name.
    """
    box, values = np.asarray(bounds, dtype=np.float64), unit.copy()
    names = list(parameters) if parameters is not None else [""] * len(box)
    if unknown := sorted(set(marginals) - set(names)):
        raise ValueError(f"there is no input {', '.join(unknown)}; there are {', '.join(names)}")
    for k, (name, (low, high)) in enumerate(zip(names, box, strict=True)):
        marginal = marginals.get(name, Marginal("uniform"))
        try:
            values[:, k] = Truncated(marginal, low, high).quantile(unit[:, k])
        except ValueError as error:
            raise ValueError(f"input {name!r}: {error}") from error
    return values
