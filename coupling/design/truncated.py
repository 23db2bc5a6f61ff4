"""Distributions of inputs within their bounds: quantiles, densities, and the map from a standard normal variable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from sobofem.coupling.contract import Array
from sobofem.coupling.design.marginals import Marginal

MIN_PROBABILITY_WITHIN = 1e-3
"""Probability that a normal distribution must leave within the bounds: with less it is a tail, known to few digits."""

CELLS = 1000
"""Of the mesh on which Poincaré's constant is computed, twice."""

FARTHEST = 8.0
"""Where that mesh ends, as a standard normal variable: what lies beyond has a probability of round-off."""

APART = 1e-5
"""Share of that mesh by which its nodes are apart at least: an eigenvalue's round-off grows by this squared."""


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
    def identity(self) -> str:
        """What tells it from others within the same bounds: its text, and densities of what no text describes."""
        text = self.marginal.written(repr)
        if self.marginal.custom is None:
            return text
        low, high = self.quantile([0.001, 0.999])
        places = np.linspace(low, high, CELLS)
        densities = np.asarray(self.marginal.frozen.pdf(places))
        return f"{text} {[f'{value:.9g}' for value in (places[0], places[-1], *densities)]}"

    @property
    def logarithmic(self) -> bool:
        """Whether the natural coordinate is the logarithm."""
        return self.marginal.logarithmic

    @property
    def normal(self) -> bool:
        """Whether the density in the natural coordinate is a normal one, cut off."""
        return self.marginal.normal

    @cached_property
    def law(self) -> Any:
        """The distribution of the natural coordinate before it was cut off: `cdf`, `sf`, `ppf`, `isf` and `logpdf`."""
        if self.marginal.of_scipy:
            return self.marginal.frozen
        return _Normal(self.centre, self.marginal.spread) if self.normal else _Flat(*self.ends)

    @cached_property
    def outside(self) -> float:
        """Probability that the distribution had outside the bounds before it was cut off."""
        low, high = self.ends
        return float(self.law.cdf(low) + self.law.sf(high))

    @cached_property
    def poincare(self) -> float:
        """Constant C of Poincaré's inequality Var[h(v)] ≤ C E[h'(v)²] in the natural coordinate, or a bound on it.

        Exact for a flat density and for a normal one that is hardly cut off; a bound for one that is, whose density is
        more peaked than the one and narrower than the other (Lamboni, Iooss, Popelin and Gamboa, 2013; Payne and
        Weinberger, 1960, for the second). For those of SciPy the reciprocal of the second eigenvalue of
        -(f h')' = λ f h with the density f and free ends (Roustant, Barthe and Iooss, 2017).
        """
        if self.marginal.of_scipy:
            return self._spectral_poincare()
        flat = float(np.diff(self.ends)[0] / np.pi) ** 2
        return min(flat, self.marginal.spread**2) if self.normal else flat

    def _spectral_poincare(self) -> float:
        """That eigenvalue by linear elements between quantiles and even points, masses lumped.

        Quantiles are those of even steps of a normal variable: a cell in a tail is to be no longer than the density
        takes to fall, or its lumped mass has an eigenvalue of its own.
        """
        low, high = self.at([-FARTHEST, FARTHEST])
        shares = np.linspace(0.0, 1.0, CELLS + 1)
        wanted = np.append(shares, (self.at((2.0 * shares - 1.0) * FARTHEST) - low) / (high - low))
        nodes = low + np.unique(np.round(wanted / APART)) * APART * (high - low)
        below, above = self.law.cdf(nodes), self.law.sf(nodes)
        # differences of what is small keep their digits
        mass = np.where(below[1:] < 0.5, np.diff(below), -np.diff(above)) / (1.0 - self.outside)
        mass = np.maximum(mass, np.finfo(float).tiny)
        stiffness, lumped = mass / np.diff(nodes) ** 2, np.zeros(len(nodes))
        lumped[:-1] += 0.5 * mass
        lumped[1:] += 0.5 * mass
        diagonal = (np.append(stiffness, 0.0) + np.append(0.0, stiffness)) / lumped
        beside = -stiffness / (np.sqrt(lumped[:-1]) * np.sqrt(lumped[1:]))
        from scipy.linalg import eigh_tridiagonal

        second = eigh_tridiagonal(diagonal, beside, eigvals_only=True, select="i", select_range=(1, 1))[0]
        return float(1.0 / max(second, np.finfo(float).tiny))

    @property
    def relative_spread(self) -> float:
        """Standard deviation of the natural coordinate over the distance of its bounds, with what these cut off."""
        if not self.normal:
            return float(1.0 / np.sqrt(12.0))
        from scipy.stats import truncnorm  # takes a second to import

        a, b = (self.ends - self.centre) / self.marginal.spread
        return float(truncnorm.std(a, b) * self.marginal.spread / np.diff(self.ends)[0])

    def quantile(self, probability: ArrayLike) -> Array:
        """Values below which the input lies with the given probabilities."""
        unit = np.asarray(probability, dtype=np.float64)
        return self._within(unit, 1.0 - unit, unit > 0.5)

    def at(self, u: ArrayLike) -> Array:
        """Values of the input that are as probable as values u of a standard normal variable, in its lower tail."""
        u = np.asarray(u, dtype=np.float64)
        tail = ndtr(-np.abs(u))
        return self._within(tail, tail, u > 0.0)

    def _within(self, below: Array, above: Array, upper: NDArray[np.bool_]) -> Array:
        """Values with these probabilities below, or above where they are upper ones: near one none has digits left."""
        (low, high), share = self.ends, 1.0 - self.outside
        v = np.where(
            upper,
            self.law.isf(np.where(upper, self.law.sf(high) + above * share, 0.5)),
            self.law.ppf(np.where(upper, 0.5, self.law.cdf(low) + below * share)),
        )
        v = np.clip(v, low, high)
        return np.clip(np.exp(v) if self.logarithmic else v, self.low, self.high)

    def slope(self, u: ArrayLike) -> Array:
        """Derivative of `at`."""
        u = np.asarray(u, dtype=np.float64)
        x = self.at(u)
        log_slope = -0.5 * (u**2 + np.log(2.0 * np.pi)) - self.law.logpdf(np.log(x) if self.logarithmic else x)
        dv = np.exp(log_slope + np.log1p(-self.outside))
        return dv * x if self.logarithmic else dv

    def natural_slope(self, x: ArrayLike) -> Array:
        """Derivative dx/dv of the input by its natural coordinate."""
        x = np.asarray(x, dtype=np.float64)
        return x if self.logarithmic else np.ones_like(x)

    def log_density(self, x: ArrayLike) -> Array:
        """Logarithm of the density at values within the bounds."""
        x = np.asarray(x, dtype=np.float64)
        own = self.law.logpdf(np.log(x) if self.logarithmic else x) - np.log1p(-self.outside)
        return np.asarray(own - np.log(x) if self.logarithmic else own)

    @property
    def centre(self) -> float:
        """Mean in the natural coordinate of what is normal there."""
        return float(np.log(self.marginal.centre)) if self.logarithmic else self.marginal.centre

    @property
    def ends(self) -> Array:
        """Bounds of the natural coordinate (2,)."""
        ends = np.array([self.low, self.high], dtype=np.float64)
        return np.log(ends) if self.logarithmic else ends


@dataclass(frozen=True)
class _Normal:
    """A normal distribution, as those of `scipy.stats`, which take a second to import."""

    mean: float
    spread: float

    def cdf(self, v: Array) -> Array:
        return np.asarray(ndtr((v - self.mean) / self.spread))

    def sf(self, v: Array) -> Array:
        return np.asarray(ndtr((self.mean - v) / self.spread))

    def ppf(self, share: Array) -> Array:
        return np.asarray(self.mean + self.spread * ndtri(share))

    def isf(self, share: Array) -> Array:
        return np.asarray(self.mean - self.spread * ndtri(share))

    def logpdf(self, v: Array) -> Array:
        z = (v - self.mean) / self.spread
        return np.asarray(-0.5 * z**2 - np.log(self.spread * np.sqrt(2.0 * np.pi)))


@dataclass(frozen=True)
class _Flat:
    """A flat distribution between two ends."""

    low: float
    high: float

    def cdf(self, v: Array) -> Array:
        return (v - self.low) / (self.high - self.low)

    def sf(self, v: Array) -> Array:
        return (self.high - v) / (self.high - self.low)

    def ppf(self, share: Array) -> Array:
        return self.low + share * (self.high - self.low)

    def isf(self, share: Array) -> Array:
        return self.high - share * (self.high - self.low)

    def logpdf(self, v: Array) -> Array:
        return np.full(np.shape(v), -np.log(self.high - self.low))


def transformed(
    unit: Array, bounds: ArrayLike, parameters: Sequence[str] | None, marginals: Mapping[str, Any]
) -> Array:
    """Points of the unit box (N, n) as values of inputs (N, n) with their distributions; the others are uniform.

    Args:
        unit: Points between 0 and 1.
        bounds: Of the inputs, (n, 2).
        parameters: Names of the inputs; needed where any has a distribution.
        marginals: Distributions by name: all that `Marginal.of` takes.
    """
    box, values = np.asarray(bounds, dtype=np.float64), unit.copy()
    names = list(parameters) if parameters is not None else [""] * len(box)
    if unknown := sorted(set(marginals) - set(names)):
        raise ValueError(f"there is no input {', '.join(unknown)}; there are {', '.join(names)}")
    for k, (name, (low, high)) in enumerate(zip(names, box, strict=True)):
        try:
            marginal = Marginal.of(marginals.get(name, "uniform"))
            values[:, k] = Truncated(marginal, low, high).quantile(unit[:, k])
        except ValueError as error:
            raise ValueError(f"input {name!r}: {error}") from error
    return values
