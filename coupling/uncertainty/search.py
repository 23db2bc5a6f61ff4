"""The point of a limit state that is nearest to the origin of standard normal space: improved HL-RF.

Each step goes to the nearest point of the tangent plane (Hasofer and Lind, 1974; Rackwitz and Fiessler, 1978),
shortened until a merit function falls (Zhang and Der Kiureghian, 1995).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sobofem.coupling.contract import Array

FARTHEST = 8.0
"""Distance beyond which no design point is looked for: a probability of 6e-16."""

TOLERANCE, MOST_STEPS = 1e-5, 100
"""Distance from the limit, and from the right angle, at which a search ends, and its steps at most."""

type Margin = Callable[[Array], tuple[Array, Array]]
"""Margins (N,) and gradients (N, d) at points (N, d)."""


@dataclass(frozen=True, eq=False)
class Nearest:
    """Where a search ended.

    Attributes:
        u: The point, (d,).
        margin: The margin there.
        gradient: Its gradient, (d,).
        found: Whether the point lies on the limit, at right angles to it.
    """

    u: Array
    margin: float
    gradient: Array
    found: bool

    @property
    def normal(self) -> Array:
        """Unit vector (d,) towards failure."""
        return -self.gradient / max(float(np.linalg.norm(self.gradient)), np.finfo(float).tiny)


def nearest(margin: Margin, start: Array) -> Nearest:
    """Walk from a point (d,) to the nearest point of the limit state.

    Args:
        margin: The limit state.
        start: Where from.
    """
    u = np.array(start, dtype=np.float64)
    value, gradient = _one(margin, u)
    penalty = 0.0
    for _ in range(MOST_STEPS):
        if _arrived(u, value, gradient, TOLERANCE):
            return Nearest(u, value, gradient, True)
        slope = float(np.linalg.norm(gradient))
        if slope <= np.finfo(float).tiny:
            break
        target = (gradient @ u - value) * gradient / slope**2
        far = float(np.linalg.norm(target))
        target = target if far <= FARTHEST else target * (FARTHEST / far)
        penalty = max(penalty, 2.0 * max(float(np.linalg.norm(u)), 1.0) / slope)
        step = _step(margin, u, value, target - u, penalty)
        if step is None:
            break
        u, value, gradient = step
    return Nearest(u, value, gradient, _arrived(u, value, gradient, 100.0 * TOLERANCE))


def _step(
    margin: Margin, u: Array, value: float, direction: Array, penalty: float
) -> tuple[Array, float, Array] | None:
    """The first of shorter and shorter steps at which the merit falls; None if there is none."""
    merit = 0.5 * float(u @ u) + penalty * abs(value)
    for length in 0.5 ** np.arange(12):
        there = u + length * direction
        new, gradient = _one(margin, there)
        if 0.5 * float(there @ there) + penalty * abs(new) < merit:
            return there, new, gradient
    return None


def _arrived(u: Array, value: float, gradient: Array, tolerance: float) -> bool:
    slope = float(np.linalg.norm(gradient))
    if slope <= np.finfo(float).tiny or np.linalg.norm(u) > FARTHEST * (1.0 - 1e-9):
        return False
    normal = gradient / slope
    aside = float(np.linalg.norm(u - (u @ normal) * normal))
    return abs(value) / slope <= tolerance and aside <= 10.0 * tolerance * max(float(np.linalg.norm(u)), 1.0)


def _one(margin: Margin, u: Array) -> tuple[float, Array]:
    values, gradients = margin(u[None])
    return float(values[0]), gradients[0]
