"""Sums of powers of the inputs, one exponent for each, from the slopes at two samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coupling.contract import Array
from coupling.optimize.frame import Frame
from coupling.optimize.guides.base import Known, Prediction

LEAST, MOST = -4.0, 4.0
"""Exponents."""

MOVED = 1e-4
"""Least change of an input's logarithm that an exponent is learned from."""


@dataclass(frozen=True, eq=False)
class TwoPoint:
    """y = y₀ + Σ gᵢ xᵢ⁰ ((xᵢ/xᵢ⁰)ᵖ − 1)/p, of which two samples determine p (Fadel, Riley & Barthelemy 1990).

    Stiffness goes with powers of sizes, and displacements with their inverses: in many inputs that are positive this
    knows curvature along each of them from one step.

    Attributes:
        frame: The task in scaled units.
        name: What messages call it.
        local: See `Guide`.
    """

    frame: Frame
    name: str = "powers"
    local: bool = False

    def learn(self, known: Known) -> Prediction:
        """Exponents by the nearest sample; linear in inputs that may vanish, or that have not moved.

        Raises:
            ArithmeticError: If no input is positive, or there is one sample only.
        """
        low, span = self.frame.low[known.columns], self.frame.span[known.columns]
        positive = low > 0.0
        if not positive.any() or len(known.z) < 2:
            raise ArithmeticError("powers need two samples and positive inputs")
        here, value, slopes = known.here, known.y[known.center], known.slopes[known.center]
        x0 = np.where(positive, low + here * span, 1.0)
        exponents = np.stack([self._exponents(known, r, x0, positive) for r in range(len(value))])
        gains = slopes * x0 / span
        flat = np.abs(exponents) < 1e-6
        safe = np.where(flat, 1.0, exponents)

        def predict(z: Array) -> tuple[Array, Array]:
            ratio = np.where(positive, (low + z * span) / x0, 1.0 + (z - here) * span)
            power = ratio**safe
            terms = np.where(flat, np.log(ratio), (power - 1.0) / safe)
            return value + (gains * terms).sum(axis=1), slopes * np.where(flat, 1.0, power) / ratio

        return predict

    def _exponents(self, known: Known, r: int, x0: Array, positive: Array) -> Array:
        low, span = self.frame.low[known.columns], self.frame.span[known.columns]
        found, open_ = np.ones(len(x0)), np.array(positive)
        for i in known.nearest(6)[1:]:
            x = np.where(positive, low + known.z[i] * span, 1.0)
            slope, other = known.slopes[known.center, r], known.slopes[i, r]
            usable = open_ & (slope * other > 0.0) & (np.abs(np.log(x / x0)) > MOVED)
            with np.errstate(divide="ignore", invalid="ignore"):
                learned = 1.0 + np.log(other / slope) / np.log(x / x0)
            found[usable] = np.clip(learned[usable], LEAST, MOST)
            open_ &= ~usable
        return found
