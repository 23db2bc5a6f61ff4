"""What measurements can tell: singular values of the Jacobian, parameters in units of what was known before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from sobofem.coupling.calibration.estimate import Estimate
from sobofem.coupling.contract import Array

SHOWN = 0.15
"""Smallest weight of a parameter in a combination that words mention."""


@dataclass(frozen=True, eq=False)
class Identifiability:
    """The singular value decomposition of residuals by parameters, near an estimate.

    Residuals are in standard deviations of the measurements, parameters in those of their priors. Along a direction of
    singular value s, the measurements and the prior together leave 1 / sqrt(1 + s²) of the prior's uncertainty: where
    s > 1 the measurements beat the prior.

    Attributes:
        parameters: Names of the n parameters.
        values: Singular values, decreasing, (n,); zeros fill up where there are fewer measurements than parameters.
        directions: The combination of scaled parameters that belongs to each, in rows, (n, n).
        logarithmic: Names of parameters that enter by their logarithm.
    """

    parameters: tuple[str, ...]
    values: Array
    directions: Array
    logarithmic: tuple[str, ...] = ()

    @property
    def determined(self) -> int:
        """Combinations of which the measurements tell more than the prior."""
        return int((self.values > 1.0).sum())

    @property
    def remaining(self) -> Array:
        """Share of the prior's uncertainty that is left along each direction, (n,)."""
        return 1.0 / np.sqrt(1.0 + self.values**2)

    @property
    def remaining_of_parameters(self) -> Array:
        """Share of the prior's standard deviation that is left of each parameter, (n,)."""
        return np.sqrt(self.directions.T**2 @ self.remaining**2)

    def combination(self, k: int) -> str:
        """The k-th combination in words: `+0.78 saturation -0.63 rate`."""
        order = np.argsort(-np.abs(self.directions[k]), kind="stable")
        shown = [j for j in order if abs(self.directions[k, j]) >= SHOWN]
        names = [f"log {n}" if n in self.logarithmic else n for n in self.parameters]
        return " ".join(f"{self.directions[k, j]:+.2f} {names[j]}" for j in shown)

    def verdict(self) -> str:
        """What to think of it, in a sentence or two."""
        n, k = len(self.parameters), self.determined
        if k == n:
            weakest = f"the weakest, {self.combination(n - 1)}, to {self.remaining[-1]:.1%} of what was known before"
            return f"All {n} combinations of parameters are determined; {weakest}."
        lost = "; ".join(self.combination(j) for j in range(k, n))
        return (
            f"The measurements determine {k} of {n} combinations of parameters. Of the others they tell less than the "
            f"prior: {lost}. Fix a parameter, give it a prior, or measure something that moves along it."
        )


def identifiability(found: Estimate) -> Identifiability:
    """Read off the Jacobian at an estimate what the measurements determine; parameters scaled by their priors."""
    coordinates = found.objective.coordinates
    scaled = found.point.slope * coordinates.spread / found.noise
    _, values, directions = scipy.linalg.svd(scaled)
    full = np.zeros(len(coordinates.parameters))
    full[: len(values)] = values
    sign = np.sign(directions[np.arange(len(directions)), np.abs(directions).argmax(axis=1)])
    names = tuple(n for n, log in zip(coordinates.parameters, coordinates.logarithmic, strict=True) if log)
    return Identifiability(coordinates.parameters, full, directions * sign[:, None], names)
