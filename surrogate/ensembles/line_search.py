"""Line searches of several functions at once, each at its own pace."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

DECREASE, CURVATURE = 1e-4, 0.9
"""Constants of the weak Wolfe conditions."""
GROWTH = 3.0
"""Factor between trials while no end of the interval is known."""


@dataclass(eq=False)
class LineSearch:
    """Trial steps for K functions along their directions, until the weak Wolfe conditions hold.

    A trial that decreases too little closes the interval from above, one that still goes down steeply from below
    (Lewis & Overton 2013, *Nonsmooth optimization via quasi-Newton methods*); the next one minimizes the cubic through
    both ends, kept away from them. All attributes are (K,).

    Attributes:
        value: At the start.
        slope: There, along the direction; negative.
        trial: Step length to evaluate next, in units of the direction.
        low: Longest step known to be too short.
        low_value: Value there.
        low_slope: Slope there.
        high: Shortest step known to be too long; infinite until there is one.
        high_value: Value there.
        high_slope: Slope there.
        trials: Trials evaluated so far.
    """

    value: Tensor
    slope: Tensor
    trial: Tensor
    low: Tensor
    low_value: Tensor
    low_slope: Tensor
    high: Tensor
    high_value: Tensor
    high_slope: Tensor
    trials: Tensor

    @classmethod
    def along(cls, value: Tensor, slope: Tensor, trial: Tensor) -> LineSearch:
        """Searches that start with these trials."""
        nothing = torch.zeros_like(value)
        never = torch.full_like(value, torch.inf)
        return cls(value, slope, trial, nothing, value, slope, never, nothing, nothing, nothing)

    def replaced(self, where: Tensor, other: LineSearch) -> LineSearch:
        """These searches, with others in the places (K,) where that is True."""
        return LineSearch(*(torch.where(where, b, a) for a, b in zip(self._all(), other._all(), strict=True)))

    def select(self, members: Tensor) -> LineSearch:
        """The searches of these members."""
        return LineSearch(*(tensor[members] for tensor in self._all()))

    def judge(self, value: Tensor, slope: Tensor) -> tuple[Tensor, LineSearch]:
        """Which trials are good (K,), given value and slope (K,) there, and the searches that go on from the others."""
        enough = value <= self.value + DECREASE * self.trial * self.slope
        flat = slope >= CURVATURE * self.slope
        short = enough & ~flat
        low, low_value, low_slope = (
            torch.where(short, a, b)
            for a, b in ((self.trial, self.low), (value, self.low_value), (slope, self.low_slope))
        )
        high, high_value, high_slope = (
            torch.where(enough, b, a)
            for a, b in ((self.trial, self.high), (value, self.high_value), (slope, self.high_slope))
        )
        inside = _cubic_minimum(low, low_value, low_slope, high, high_value, high_slope)
        trial = torch.where(high.isinf(), GROWTH * self.trial, inside)
        ends = low, low_value, low_slope, high, high_value, high_slope
        return enough & flat, LineSearch(self.value, self.slope, trial, *ends, self.trials + 1.0)

    def _all(self) -> list[Tensor]:
        return [getattr(self, f.name) for f in fields(self)]


def _cubic_minimum(a: Tensor, fa: Tensor, da: Tensor, b: Tensor, fb: Tensor, db: Tensor) -> Tensor:
    """Minimum of the cubic with these values and slopes at a < b, at least a tenth inside; the middle if none."""
    width = b - a
    theta = da + db - 3.0 * (fb - fa) / width
    root = (theta.square() - da * db).sqrt()
    best = b - width * (db + root - theta) / (db - da + 2.0 * root)
    best = torch.where(best.isfinite(), best, a + 0.5 * width)
    return torch.minimum(torch.maximum(best, a + 0.1 * width), b - 0.1 * width)
