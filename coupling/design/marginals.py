"""How one input is distributed over its bounds: evenly, by its logarithm, or normally about a centre.

All are truncated to the bounds, outside which a model can't be evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sobofem.coupling.contract import Array

KINDS = {"uniform": 0, "log": 0, "normal": 2, "lognormal": 2}
"""Kinds of marginal distributions, and how many numbers each takes."""

SMALLEST_SHARE = 1e-3
"""Probability that a normal distribution must leave within the bounds."""


@dataclass(frozen=True)
class Marginal:
    """The distribution of one input.

    Args:
        kind: "uniform"; "log", uniform in the logarithm; "normal", or "lognormal": normal in the logarithm.
        centre: Mean of a normal, median of a lognormal distribution.
        spread: Standard deviation of the value, or of its natural logarithm.
    """

    kind: str
    centre: float = 0.0
    spread: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no distribution is called {self.kind!r}; there are {', '.join(KINDS)}")
        if KINDS[self.kind] and not (np.isfinite(self.centre) and 0.0 < self.spread < np.inf):
            raise ValueError(
                f"{self.kind} has centre {self.centre:g} and spread {self.spread:g}; expected spread > 0: an input "
                "that does not scatter is held at its value (--fix NAME=VALUE)"
            )
        if self.kind == "lognormal" and self.centre <= 0.0:
            raise ValueError(f"lognormal has median {self.centre:g}, expected a positive one")

    def __str__(self) -> str:
        """As `parse` reads it."""
        return f"{self.kind}:{self.centre:g},{self.spread:g}" if KINDS[self.kind] else self.kind

    def quantile(self, probability: ArrayLike, low: float, high: float) -> Array:
        """Values below which the input lies with the given probabilities, between two bounds.

        Raises:
            ValueError: If a logarithm is wanted of bounds that are not positive, or nearly nothing lies within them.
        """
        unit = np.asarray(probability, dtype=np.float64)
        logarithmic = self.kind in ("log", "lognormal")
        if logarithmic and low <= 0.0:
            raise ValueError(f"distribution {self} has no logarithm on [{low:g}, {high:g}]; expected positive bounds")
        ends = np.log([low, high]) if logarithmic else np.array([low, high])
        if KINDS[self.kind]:
            values = self._normal_quantile(unit, ends, np.log(self.centre) if logarithmic else self.centre)
        else:
            values = ends[0] + unit * (ends[1] - ends[0])
        return np.clip(np.exp(values) if logarithmic else values, low, high)

    def _normal_quantile(self, unit: Array, ends: Array, centre: float) -> Array:
        from scipy.stats import norm, truncnorm  # takes a second to import

        a, b = (ends - centre) / self.spread
        if (share := norm.cdf(b) - norm.cdf(a)) < SMALLEST_SHARE:
            raise ValueError(f"distribution {self} leaves {share:.1e} of its probability within the input's bounds")
        return np.asarray(truncnorm.ppf(unit, a, b, loc=centre, scale=self.spread), dtype=np.float64)


def parse(text: str) -> Marginal:
    """A marginal distribution from text: `uniform`, `log`, `normal:MEAN,STD` or `lognormal:MEDIAN,STD_OF_LOG`."""
    kind, _, rest = text.partition(":")
    try:
        numbers = [float(word) for word in rest.split(",")] if rest else []
    except ValueError:
        numbers = []
    if kind in KINDS and len(numbers) != KINDS[kind]:
        raise ValueError(f"{text!r} is no distribution; write uniform, log, normal:MEAN,STD or lognormal:MEDIAN,STD")
    return Marginal(kind, *numbers)


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
            values[:, k] = marginal.quantile(unit[:, k], low, high)
        except ValueError as error:
            raise ValueError(f"input {name!r}: {error}") from error
    return values
