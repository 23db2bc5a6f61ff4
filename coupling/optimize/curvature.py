"""Whether a first-order point is a minimum, as far as the slopes at one more point tell, or at two."""

from __future__ import annotations

import numpy as np

from coupling.contract import Array
from coupling.optimize.frame import ALIKE, Frame, Mask

NEARBY = 0.05
"""Distance of the point that is asked, as a share of the box, in the maximum norm."""

ACTIVE = 1e-6
"""Distance, as a share of the box, at which a limit is active, and slope at which a bound holds an input."""

Point = tuple[Array, Array, Array]
"""Inputs (n,), responses (m,) and Jacobian (m, n) in physical units."""


def glanced_at(frame: Frame, point: Point, rng: np.random.Generator, among: Mask | None = None) -> Array | None:
    """A point near by, in a random direction that no bound and, to first order, no limit forbids.

    Args:
        frame: The task.
        point: Where the first-order conditions hold.
        rng: Draws the direction.
        among: Which free inputs may change (n,); all by default.

    Returns:
        Its free inputs in the unit box; None where constraints leave no direction.
    """
    z, slope = frame.unit(point[0])[frame.free], frame.lagrangian_slope(point, point)
    low, high = z <= ALIKE, z >= 1.0 - ALIKE
    moves = (~(low | high) | (np.abs(slope) <= ACTIVE)) & (True if among is None else among)
    direction = rng.normal(size=len(z)) * moves
    rows = _active_rows(frame, point) * moves
    direction -= np.linalg.pinv(rows) @ (rows @ direction)
    direction = np.where(low, np.abs(direction), np.where(high, -np.abs(direction), direction))
    length = np.abs(direction).max(initial=0.0)
    if length <= ACTIVE:
        return None
    there: Array = np.clip(z + NEARBY * direction / length, 0.0, 1.0)
    return there


def bends(frame: Frame, point: Point, near: Point) -> Array:
    """By how much the slope of the Lagrangian rises from a first-order point to one near by, by inputs (n,).

    Where the sum is negative the point is no minimum. Where single ones are, it might be none.
    """
    step = (frame.unit(near[0]) - frame.unit(point[0]))[frame.free]
    change = frame.lagrangian_slope(near, point) - frame.lagrangian_slope(point, point)
    risen: Array = change * step / np.linalg.norm(step)
    return risen


def _active_rows(frame: Frame, point: Point) -> Array:
    """Directions (c, n) of the slopes of the limits that hold."""
    rows, margins = frame.local_limits(point[1], point[2])
    return rows[frame.limits.equal | (margins <= ACTIVE)]
