"""Numbers with error bars: what sampling leaves open, and what the surrogate leaves open."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sobofem.coupling.contract import Array

TWO_SIDED = 1.959964
"""Standard errors that a 95 % interval reaches to either side."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """Values with standard errors of two kinds; arrays of one shape.

    Errors from a few repetitions are widened by Student's factor, such that 1.96 of them cover 95 %.

    Attributes:
        value: The values.
        sampling: Standard error from the finite number of samples.
        surrogate: Standard error from the surrogate's own error, as its standard deviations bound it, or as solves of
            the trusted model leave it.
    """

    value: Array
    sampling: Array
    surrogate: Array

    @property
    def error(self) -> Array:
        """Both standard errors together."""
        return np.hypot(self.sampling, self.surrogate)

    @property
    def interval(self) -> tuple[Array, Array]:
        """Ends of the 95 % interval."""
        return self.value - TWO_SIDED * self.error, self.value + TWO_SIDED * self.error

    def shifted(self, offset: Array) -> Estimate:
        """The same with a constant added to the values."""
        return Estimate(self.value + offset, self.sampling, self.surrogate)

    def __getitem__(self, index: int | tuple[int, ...]) -> Estimate:
        return Estimate(*(np.asarray(part[index]) for part in (self.value, self.sampling, self.surrogate)))

    def record(self) -> dict[str, object]:
        """As plain values, for JSON."""
        low, high = self.interval
        parts = {"value": self.value, "sampling": self.sampling, "surrogate": self.surrogate, "low": low, "high": high}
        return {name: np.asarray(part).tolist() for name, part in parts.items()}


def standard_error(repetitions: ArrayLike) -> Array:
    """Standard error of the mean over the first axis, times Student's factor over the normal one."""
    values = np.asarray(repetitions, dtype=np.float64)
    return values.std(axis=0, ddof=1) / np.sqrt(len(values)) * student(len(values))


def student(count: int) -> float:
    """How much wider a 95 % interval is if its width comes from `count` repetitions."""
    from scipy.special import stdtrit

    return float(stdtrit(count - 1, 0.975)) / TWO_SIDED


def shown(value: float, error: float) -> str:
    """A value with its 95 % error bar, to the digits that the bar leaves."""
    bar = TWO_SIDED * error
    if not (np.isfinite(bar) and bar > 0.0 and np.isfinite(value)):
        return f"{value:.5g}"
    leading = int(np.floor(np.log10(bar)))
    size = int(np.floor(np.log10(abs(value)))) if value else leading
    if -5 < size < 6:
        digits = max(1 - leading, 0)
        return f"{value:.{digits}f} ± {bar:.{digits}f}"
    power = max(size, leading)
    digits = max(power - leading + 1, 0)
    return f"({value / 10.0**power:.{digits}f} ± {bar / 10.0**power:.{digits}f})e{power:+d}"
