"""Whether two things that are used together have the same names, and a point lies within a model's bounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike


class Named(Protocol):
    """Anything with names: a model, its description, an optimum or an estimate."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the n parameters."""

    @property
    def responses(self) -> tuple[str, ...]:
        """Names of the m responses."""


def require_same_names(what: str, one: Named, other: Named, *, whose: str = "the model") -> None:
    """Check that something has the same parameters and responses as a model, or as what else has names.

    Raises:
        ValueError: If it hasn't; the message calls it `what`, and the other by `whose` it is.
    """
    for kind in ("parameters", "responses"):
        ours, theirs = tuple(getattr(one, kind)), tuple(getattr(other, kind))
        if ours != theirs:
            raise ValueError(f"{what} has {kind} {ours}, but {whose} has {theirs}")


def require_inside(what: str, parameters: Sequence[str], x: ArrayLike, bounds: ArrayLike) -> None:
    """Check that a point (n,) lies within bounds (n, 2), to a billionth of their width for round-off.

    Raises:
        ValueError: If it doesn't; the message calls it `what`.
    """
    values, (lows, highs) = np.asarray(x, dtype=np.float64), np.asarray(bounds, dtype=np.float64).T
    slack = 1e-9 * (highs - lows)
    for k in np.flatnonzero(~((lows - slack <= values) & (values <= highs + slack))).tolist():
        require_within(f"{what} has {parameters[k]} =", values[k], (lows[k] - slack[k], highs[k] + slack[k]))


def require_within(what: str, value: float, bounds: ArrayLike) -> None:
    """Check that a value lies within its two bounds.

    Raises:
        ValueError: If it doesn't; the message begins with `what`, such as `'width' is fixed at`.
    """
    low, high = np.asarray(bounds)
    if not low <= value <= high:
        raise ValueError(f"{what} {value:g}, outside its bounds [{low:g}, {high:g}]")
