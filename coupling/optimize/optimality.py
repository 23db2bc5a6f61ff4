"""First-order optimality: how much of a gradient no constraint balances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
import scipy.optimize

from coupling.contract import Array


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
    """Multipliers of constraints (c,), of the bound near each input (n,), of equations reversed; and what is left."""
    sides = np.where(z <= 0.5, 1.0, -1.0)
    near = np.minimum(z, 1.0 - z)
    columns = np.vstack([rows, np.diag(sides), -rows[equal]])
    distance = np.abs(np.concatenate([margins, near, margins[equal]]))
    system = np.vstack([columns.T, np.diag(distance)])
    found, residual = scipy.optimize.nnls(system, np.concatenate([slope, np.zeros(len(distance))]))
    return found, float(residual)


def _against_bounds(slope: Array, z: Array) -> Array:
    """What bounds leave of a slope (n,): all of it far from the bound that it points away from, nothing on it."""
    distance = np.where(slope > 0.0, z, 1.0 - z)
    return slope * distance / np.sqrt(1.0 + distance**2)
