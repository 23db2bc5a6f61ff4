"""One uncertain input: its distribution, cut off at the bounds, as a map of a standard normal variable."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_ndtr, ndtr, ndtri

from coupling.contract import Array
from coupling.marginals import KINDS, Marginal


@dataclass(frozen=True)
class Truncated:
    """A marginal distribution within bounds.

    Its *natural coordinate* v is the input, or the input's logarithm for the logarithmic kinds: there the density is
    flat, or that of a normal distribution that was cut off.

    Attributes:
        marginal: The distribution.
        low: Lower bound of the input.
        high: Upper bound of the input.
    """

    marginal: Marginal
    low: float
    high: float

    def __post_init__(self) -> None:
        if self.logarithmic and self.low <= 0.0:
            raise ValueError(
                f"distribution {self.marginal} has no logarithm on [{self.low:g}, {self.high:g}]; expected positive "
                "bounds"
            )

    @property
    def logarithmic(self) -> bool:
        """Whether the natural coordinate is the logarithm."""
        return self.marginal.kind in ("log", "lognormal")

    @property
    def normal(self) -> bool:
        """Whether the density in the natural coordinate is a normal one, cut off."""
        return KINDS[self.marginal.kind] > 0

    @property
    def outside(self) -> float:
        """Probability that the distribution had outside the bounds before it was cut off."""
        if not self.normal:
            return 0.0
        a, b = self._standardized_ends
        return float(ndtr(a) + ndtr(-b))

    @property
    def poincare(self) -> float:
        """Constant C of Poincaré's inequality Var[h(v)] ≤ C E[h'(v)²] in the natural coordinate, or a bound on it.

        Exact for a flat density and for a normal one that is hardly cut off; a bound for any other, whose density is
        more peaked than the one and narrower than the other (Lamboni, Iooss, Popelin and Gamboa, 2013; Payne and
        Weinberger, 1960, for the second).
        """
        flat = float(np.diff(self._ends)[0] / np.pi) ** 2
        return min(flat, self.marginal.spread**2) if self.normal else flat

    def at(self, u: ArrayLike) -> Array:
        """Values of the input that are as probable as values u of a standard normal variable, in its lower tail."""
        u = np.asarray(u, dtype=np.float64)
        upper = u > 0.0  # there, count from above: probabilities near one have no digits left
        tail = ndtr(-np.abs(u))
        low, high = self._ends
        if self.normal:
            a, b = self._standardized_ends
            share = 1.0 - self.outside
            z = np.where(upper, -ndtri(ndtr(-b) + tail * share), ndtri(ndtr(a) + tail * share))
            v = self._centre + self.marginal.spread * z
        else:
            v = np.where(upper, high - tail * (high - low), low + tail * (high - low))
        v = np.clip(v, low, high)
        return np.clip(np.exp(v) if self.logarithmic else v, self.low, self.high)

    def slope(self, u: ArrayLike) -> Array:
        """Derivative of `at`."""
        u = np.asarray(u, dtype=np.float64)
        x = self.at(u)
        if self.normal:
            z = ((np.log(x) if self.logarithmic else x) - self._centre) / self.marginal.spread
            dv = self.marginal.spread * (1.0 - self.outside) * np.exp(0.5 * (z**2 - u**2))
        else:
            dv = np.diff(self._ends) * np.exp(-0.5 * u**2) / np.sqrt(2.0 * np.pi)
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
            return -np.log(np.diff(self._ends)[0]) - jacobian
        z = ((np.log(x) if self.logarithmic else x) - self._centre) / self.marginal.spread
        scale = np.log(self.marginal.spread * np.sqrt(2.0 * np.pi)) + np.log1p(-self.outside)
        return -0.5 * z**2 - scale - jacobian

    @property
    def _centre(self) -> float:
        return float(np.log(self.marginal.centre)) if self.logarithmic else self.marginal.centre

    @property
    def _ends(self) -> Array:
        ends = np.array([self.low, self.high], dtype=np.float64)
        return np.log(ends) if self.logarithmic else ends

    @property
    def _standardized_ends(self) -> Array:
        return (self._ends - self._centre) / self.marginal.spread


def index_of(probability: float) -> float:
    """The reliability index β of a failure probability Φ(−β)."""
    return float(-ndtri(probability))


def probability_of(beta: ArrayLike) -> Array:
    """The failure probability Φ(−β) of a reliability index."""
    return np.asarray(np.exp(log_ndtr(-np.asarray(beta, dtype=np.float64))))
