"""Any predictor, on logarithms of inputs and responses: what is a product of powers is linear there.

The criterion is that of `surrogate.families.logarithmic`; in NumPy, since an optimization needs no PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sobofem.coupling.contract import Array
from sobofem.coupling.optimize.predictors.base import Known, Prediction, Predictor
from sobofem.coupling.optimize.scaled_task import ScaledTask

NEAR_ZERO = 1e-3
"""Inputs outside the box that come closer to zero than this share of its nearest bound are taken for that."""

MAX_LOG_RATIO = 50.0
"""Logarithm of a response over that at the center beyond which a predictor is far astray."""

SPREAD, REACHED = 10.0, 3.0
"""How many times the bound near zero the other may be, or else the nearest sample, for an input's logarithm."""


@dataclass
class Logarithms(Predictor):
    """A predictor that learns logarithms of what keeps to one side of zero, in the box or on all samples.

    Stiffness goes with powers of thicknesses: approximations in reciprocals and powers of the inputs have long served
    structural optimization (Fleury & Braibant 1986; Svanberg 1987).

    Attributes:
        predictor: What learns.
        scaled: The task in scaled units.
    """

    predictor: Predictor
    scaled: ScaledTask
    _last: tuple[Known, Prediction] | None = None

    transformed = True

    def __post_init__(self) -> None:
        """Take the other predictor's abilities."""
        self.name = f"{self.predictor.name} of logarithms"
        self.local, self.bold = self.predictor.local, self.predictor.bold

    def learn(self, known: Known) -> Prediction:
        """The predictor's predictions of the logarithms, taken back.

        Raises:
            ArithmeticError: If there is nothing to take the logarithm of, or the predictor can't learn.
        """
        if self._last is None or self._last[0] is not known:
            self._last = (known, self._learn(known))
        return self._last[1]

    def _learn(self, known: Known) -> Prediction:
        low, span = self.scaled.low[known.columns], self.scaled.span[known.columns]
        inputs = _Inputs(low, span, np.abs(low + span * known.z).min(axis=0))
        t = known.y + known.offset
        taken = (t * known.offset > 0.0).all(axis=0)
        if not (inputs.taken.any() or taken.any()):
            raise ArithmeticError("no input and no response keeps to one side of zero")
        u, by_input = inputs(known.z)
        # relative to the center, log(t / offset) is zero there, as the plain differences of the others are
        offset = np.where(taken, known.offset, 1.0)
        ratio = np.where(taken, t / offset, 1.0)
        slopes = known.slopes / by_input[:, None]
        slopes = np.where(taken[:, None], slopes / (offset * ratio)[:, :, None], slopes)
        # scaled again, as logarithms have other slopes than what they are taken of
        size = np.median(np.linalg.norm(slopes, axis=2), axis=0)
        size = np.where(size > 0.0, size, 1.0)
        y = np.where(taken, np.log(ratio), known.y) / size
        inner = self.predictor.learn(replace(known, z=u, y=y, slopes=slopes / size[:, None]))

        def predict(z: Array) -> tuple[Array, Array]:
            at, by_input = inputs(z)
            v, tilt = inner(at)
            v, tilt = v * size, tilt * size[:, None] * by_input
            grown = offset * np.exp(np.where(taken, np.clip(v, -MAX_LOG_RATIO, MAX_LOG_RATIO), 0.0))
            return np.where(taken, grown - offset, v), np.where(taken[:, None], grown[:, None] * tilt, tilt)

        return predict


class _Inputs:
    """From the unit box to that of the logarithms, for inputs whose box keeps away from zero.

    Args:
        low: Lower bounds (p,).
        span: Widths of the box (p,).
        reached: How near to zero samples come (p,).
    """

    def __init__(self, low: Array, span: Array, reached: Array) -> None:
        self._low, self._span, high = low, span, low + span
        near, far = np.minimum(np.abs(low), np.abs(high)), np.maximum(np.abs(low), np.abs(high))
        self.taken = (low * high > 0.0) & ((far <= SPREAD * near) | (reached <= REACHED * near))
        self._least = NEAR_ZERO * near
        ends = np.log(np.abs(np.where(self.taken, [low, high], 1.0)))
        self._start, self._length = ends[0], np.where(self.taken, ends[1] - ends[0], 1.0)

    def __call__(self, z: Array) -> tuple[Array, Array]:
        """Points (..., p) of the box, and their derivatives by the scaled points they came from (..., p)."""
        x = self._low + self._span * z
        size = np.where(self.taken, np.maximum(np.sign(self._low) * x, self._least), 1.0)
        u = np.where(self.taken, (np.log(size) - self._start) / self._length, z)
        return u, np.where(self.taken, np.sign(self._low) * self._span / (size * self._length), 1.0)
