"""How well constraints balance the slope of an objective: first-order conditions without thresholds of activity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
import scipy.optimize

from sobofem.coupling.contract import Array

STEPS = 50
"""Of Newton's method for the multipliers: a handful, since what it minimizes consists of few quadratic pieces."""

DAMPING = 1e-8
"""What the distance to the last multipliers weighs against what is left: only where nothing else decides."""


@dataclass(frozen=True, eq=False)
class Balance:
    """The best balance of an objective's slope by constraints.

    Attributes:
        residual: Norm of what is left: slope that no multiplier balances, and multipliers times the distance to their
            constraints.
        multipliers: Of the constraints (c,), not negative but for equations.
    """

    residual: float
    multipliers: Array


def balance(z: Array, slope: Array, margins: Array, rows: Array, equal: NDArray[np.bool_]) -> Balance:
    """Least-squares multipliers of min f(z), margins c(z) ≥ 0, some of them = 0, and 0 ≤ z ≤ 1, and what they leave.

    Minimizes |∇f − Σ λ ∇c − bounds|² + Σ (λ c)², with λ ≥ 0 but for equations: a constraint balances as much as it is
    near, on either side, so that nothing hangs on a threshold of activity. If all slopes are about one per width of the
    box, the residual bounds, to first order, what can still be gained within the box, or was gained by violations.

    Args:
        z: The point in the unit box (n,).
        slope: ∇f (n,).
        margins: c (c,), negative where violated.
        rows: ∇c (c, n).
        equal: Which margins are to vanish (c,).
    """
    n, c = len(z), len(rows)
    if not c:
        return Balance(float(np.linalg.norm(_against_bounds(slope, z))), np.zeros(0))
    found, residual = _least_squares(z, slope, margins, rows, equal)
    multipliers = found[:c]
    multipliers[equal] -= found[c + n :]
    return Balance(residual, multipliers)


def resistance(z: Array, slope: Array, margins: Array, rows: Array, equal: NDArray[np.bool_]) -> tuple[float, Array]:
    """What keeps a point from moving against a slope: arguments as of `balance`, with margins of zero at violated ones.

    Returns:
        The share of the slope that nothing balances, 0 where every way is blocked; and the shares (c + n,) of it that
        each constraint balances, and the bound that each input is nearer to.
    """
    c, n, size = len(rows), len(z), float(np.linalg.norm(slope))
    if size == 0.0:
        return 0.0, np.zeros(c + n)
    found, residual = _least_squares(z, slope, margins, rows, equal)
    pulls = found[: c + n].copy()
    pulls[:c] *= np.linalg.norm(rows, axis=1)
    pulls[:c][equal] += found[c + n :] * np.linalg.norm(rows[equal], axis=1)
    return residual / size, pulls / size


def _least_squares(
    z: Array, slope: Array, margins: Array, rows: Array, equal: NDArray[np.bool_]
) -> tuple[Array, float]:
    """Multipliers of constraints (c,), of the bound near each input (n,), of equations reversed; and what is left.

    A bound's multiplier μ ≥ 0 minimizes (r − s μ)² + (d μ)², where r is the slope that the constraints leave of that
    input, s the side that the bound pushes to and d its distance: it takes r² to r² d² / (1 + d²) where s r > 0. So the
    bounds weigh inputs, and few unknowns remain, however many inputs there are.
    """
    sides, near = np.where(z <= 0.5, 1.0, -1.0), np.minimum(z, 1.0 - z)
    eased = near**2 / (1.0 + near**2)
    columns, distance = np.vstack([rows, -rows[equal]]).T, np.concatenate([margins, margins[equal]])

    def weighed(rest: Array) -> Array:
        return np.where(sides * rest > 0.0, eased, 1.0)

    def falls(length: float) -> float:
        """How steeply what is left falls at a length of the step."""
        there = rest - length * moved
        return float((weighed(there) * there) @ moved - (distance**2 * step) @ (found + length * step))

    found, rest = np.zeros(columns.shape[1]), slope
    weights = weighed(rest)
    size = float(weights @ rest**2)
    for _ in range(STEPS if columns.size else 0):
        step = _weighted(columns, slope, distance, weights, found) - found
        moved = columns @ step
        steepest = falls(0.0)
        if steepest <= 1e-14 * size:
            break
        length = 1.0
        if falls(1.0) < -0.1 * steepest:  # with other weights at its end the full step leads too far
            length = scipy.optimize.brentq(falls, 0.0, 1.0)
        found = found + length * step
        rest, before = slope - columns @ found, size
        weights = weighed(rest)
        size = float(weights @ rest**2 + np.sum((distance * found) ** 2))
        if size >= before * (1.0 - 1e-13):
            break
    pushed = np.maximum(sides * rest, 0.0) / (1.0 + near**2)
    return np.concatenate([found[: len(rows)], pushed, found[len(rows) :]]), float(np.sqrt(size))


def _weighted(columns: Array, slope: Array, distance: Array, weights: Array, near: Array) -> Array:
    """Multipliers ≥ 0 that leave least of a slope whose entries are weighed (n,); of equal ones the nearest."""
    if len(distance) == 1:  # of a hundred thousand inputs in no time
        return np.array([_sole(columns[:, 0], slope, float(distance[0]), weights, float(near[0]))])
    roots = np.sqrt(weights)
    system = np.vstack([roots[:, None] * columns, np.diag(distance)])
    basis, small = np.linalg.qr(system)
    right = basis[: len(slope)].T @ (roots * slope)
    damping = DAMPING * np.linalg.norm(columns, axis=0)
    small, right = np.vstack([small, np.diag(damping)]), np.concatenate([right, damping * near])
    return np.asarray(scipy.optimize.nnls(small, right)[0])


def _sole(column: Array, slope: Array, distance: float, weights: Array, near: float) -> float:
    """The same of a single constraint."""
    weighed = weights * column
    damping = DAMPING**2 * float(column @ column)
    steep = float(weighed @ column) + distance**2 + damping
    return max(float(weighed @ slope) + damping * near, 0.0) / steep if steep > 0.0 else near


def _against_bounds(slope: Array, z: Array) -> Array:
    """What bounds leave of a slope (n,): all of it far from the bound that it points away from, nothing on it."""
    distance = np.where(slope > 0.0, z, 1.0 - z)
    return slope * distance / np.sqrt(1.0 + distance**2)
