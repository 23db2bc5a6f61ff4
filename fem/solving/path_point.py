"""A state on a path whose load factor is an unknown, and whether a step from it to another can be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TURN = 0.9
"""Cosine of the angle by which the path may turn in one step of arc length."""

SMOOTH = 0.1
"""Part of the change of the load factor in a step of arc length by which the slopes at both ends may disagree with it:
a longer step may have passed two limit points at once, from one rising branch to the next."""

FINEST = 2.0**-10
"""Step of arc length, over the first one, at which a change of stability without a limit point is a bifurcation: a
longer step may have passed a sharp limit point, as that of a small imperfection is, to another branch; or, where the
load turns, a bifurcation before."""


@dataclass(frozen=True, eq=False)
class Point:
    """A state on the path: unknown with ghosts, load factor, unit tangent (owned part, factor), negative pivots."""

    unknown: np.ndarray
    factor: float
    tangent: np.ndarray
    slope: float
    negative: int | None = None

    def leads_to(self, other: Point, step: float, cosine: float, *, fine: bool) -> bool:
        """Whether nothing can hide in a step of arc length to another point: the path hardly turns or bends there.

        Args:
            other: Where the step ended.
            step: Its length along the tangent.
            cosine: Of the angle between both tangents.
            fine: Whether the step is so short that a change of stability is taken for a bifurcation.
        """
        slopes = self.slope, other.slope
        trapezoid = 0.5 * step * sum(slopes)
        smooth = abs(other.factor - self.factor - trapezoid) <= SMOOTH * step * max(map(abs, slopes))
        return cosine >= TURN and bool(smooth) and (fine or not self.is_across(other))

    def is_across(self, other: Point) -> bool:
        """Whether stability has changed on the way to another point otherwise than by a limit point, if there is one.

        Where the load turns, one pivot changes its sign: others, or none, are those of a bifurcation besides.
        """
        if self.negative is None or other.negative is None:
            return False
        turned = self.slope * other.slope <= 0.0
        return abs(other.negative - self.negative) != int(turned)
