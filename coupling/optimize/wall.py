"""The wall that failed points make: a plane between them and the points with an answer, along which a search goes on.

Where the model has no answer beyond some surface, a step that is halved after each failure comes to rest in front of
it, far from the best point there, at the price of a solve for each half. A plane between the solved and the failed
points nearby keeps all proposals from behind it, and moves and turns with each new point, solved or failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.optimize

from sobofem.coupling.contract import Array
from sobofem.coupling.optimize.scaled_task import ScaledTask
from sobofem.coupling.optimize.subproblem import Margins

RESOLUTION = 1e-3
"""Distance, as a share of the box, to which it is found out how far the model has answers."""

WINDOW = 2.0
"""Failed points are looked at within so many radii of the trust region."""

ADVANCE = 0.5
"""Share of the way from the solved to the failed points up to which is proposed, for each failure since an answer."""

TOUCHING = 1e-3
"""Distance from the plane, as a share of the gap, within which a point lies at it."""

UNITY = 1e3
"""Weight with which shares are made to add up to one, where distances are of the order of one."""


@dataclass(frozen=True, eq=False)
class Wall:
    """A half-space with answers: normal · z ≤ limit.

    Attributes:
        normal: Unit vector (n,), towards the failed points.
        limit: Of its product with scaled points.
        gap: Distance between the solved and the failed points that it separates.
        nearest: Distance of the nearest failed point from the one that the search stands at, in the maximum norm.
        failed: The failed points (f, n).
    """

    normal: Array
    limit: float
    gap: float
    nearest: float
    failed: Array

    def margin(self, z: Array) -> float:
        """Distance of a scaled point (n,) from the plane, positive on this side."""
        return self.limit - float(self.normal @ z)

    def touches(self, z: Array) -> bool:
        """Whether a scaled point (n,) lies at the plane."""
        return self.margin(z) <= TOUCHING * self.gap

    def blocks(self, z: Array) -> bool:
        """Whether a scaled point (n,) lies behind the plane, as near to a failed point as solved ones are.

        Among many inputs a plane cuts off half of the box, for what may be wrong in one corner of it. Each further
        failure nearby doubles the distance.
        """
        reach = self.gap * 2.0 ** (len(self.failed) - 1)
        return self.margin(z) < 0.0 and bool(np.linalg.norm(self.failed - z, axis=1).min() <= reach)

    def drawn_back(self, z: Array, here: Array) -> Array:
        """A point (n,), or where the way to it from a point on this side meets the plane."""
        before, after = max(self.margin(here), 0.0), self.margin(z)
        return z if after >= 0.0 else here + before / (before - after) * (z - here)


def behind(plane: Wall, predict: Margins) -> Margins:
    """A prediction with the plane as one more limit, the last."""

    def limited(z: Array) -> tuple[float, Array, Array, Array]:
        objective, slope, margins, rows = predict(z)
        return objective, slope, np.append(margins, plane.margin(z)), np.vstack([rows, -plane.normal])

    return limited


def faced(
    scaled: ScaledTask, center: int, x: Array, failures: Sequence[Array], radius: float, in_a_row: int
) -> Wall | None:
    """What a trust region is to stay in front of; None where no point failed nearby.

    Args:
        scaled: The task in scaled units.
        center: Number of the sample that the search stands at.
        x: Points with an answer (N, n), of any task.
        failures: Points without (n,), of any task.
        radius: Half the width of the region.
        in_a_row: Failures since the last answer.
    """
    if not failures:
        return None
    here, solved, failed = (_scaled(scaled, points) for points in (x[center][None], x, failures))
    return wall(here[0], solved, failed, max(radius, RESOLUTION), ADVANCE ** max(in_a_row, 1))


def _scaled(scaled: ScaledTask, points: Sequence[Array] | Array) -> Array:
    """The free inputs (k, free), in the unit box, of those points (n,) that belong to the task."""
    own = [scaled.unit(x)[scaled.free] for x in points if scaled.on_task(x)]
    return np.array(own).reshape(-1, scaled.size)


def wall(here: Array, solved: Array, failed: Array, radius: float, advance: float = ADVANCE) -> Wall | None:
    """The plane between solved and failed points near one of the solved ones; None where none failed.

    Of solved points that no plane separates from the failed ones, the farthest are left out.

    Args:
        here: The point that the search stands at, scaled (n,).
        solved: Points with an answer (N, n), this one among them.
        failed: Points without (f, n).
        radius: Half the width of the trust region.
        advance: Share of the gap between them at which the plane stands.
    """
    apart = np.abs(failed - here).max(axis=1, initial=0.0)
    nearest = float(apart.min(initial=np.inf))
    if nearest > WINDOW * radius:
        return None
    window = WINDOW * max(radius, WINDOW * nearest)
    failed, apart = failed[apart <= window], apart[apart <= window]
    far = np.abs(solved - here).max(axis=1)
    solved = solved[np.argsort(far, kind="stable")][: np.count_nonzero(far <= window)]
    while True:
        found = _between(solved, failed, nearest, advance)
        if found is not None:
            return found
        if len(solved) > 1:
            solved = solved[: len(solved) // 2]
        elif len(failed) > 1:  # they lie all around
            failed = failed[np.argsort(apart, kind="stable")][: len(failed) // 2]
            apart = np.sort(apart)[: len(failed)]
        else:
            return None


def _between(solved: Array, failed: Array, nearest: float, advance: float) -> Wall | None:
    """The plane across the shortest way between the hulls of two sets of points; None where these meet."""
    origin = solved[0]  # near to all of them: differences keep their digits
    size = np.abs(np.vstack([solved, failed]) - origin).max()
    one, other = (solved - origin) / size, (failed - origin) / size
    rows = np.hstack([one.T, -other.T])
    unity = UNITY * np.stack([np.arange(rows.shape[1]) < len(one), np.arange(rows.shape[1]) >= len(one)])
    shares, _ = scipy.optimize.nnls(np.vstack([rows, unity]), np.append(np.zeros(len(rows)), [UNITY, UNITY]))
    from_, to = one.T @ shares[: len(one)], other.T @ shares[len(one) :]
    length = float(np.linalg.norm(to - from_))
    if length <= 1e-6:
        return None
    normal = (to - from_) / length
    last, first = float((one @ normal).max()), float((other @ normal).min())
    gap = (first - last) * size
    if gap <= 0.0:
        return None
    ahead = advance * gap if gap > RESOLUTION else 0.0
    return Wall(normal, float(origin @ normal) + last * size + ahead, gap, nearest, failed)
