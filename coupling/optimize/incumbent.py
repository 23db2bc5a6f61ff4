"""The best of the points that were solved: what a search begins at, and what it hands over, whatever ends it."""

from __future__ import annotations

import numpy as np

from coupling.contract import Array
from coupling.optimize.frame import Frame

PENALTY = 10.0
"""What a violation weighs against the objective where points are ranked; both are scaled."""


def ranks(frame: Frame, x: Array, y: Array) -> Array:
    """Objective plus violation, weighed such that it would not pay: what a center is chosen by (N,).

    Args:
        frame: The task in scaled units.
        x: Points (N, n); those with other values of fixed parameters come last.
        y: Responses there (N, m).
    """
    outside = np.array([not frame.on_task(point) for point in x])
    objective = np.array([frame.objective(row) for row in y])
    violation = np.array([frame.excess(row) for row in y])
    found = objective + PENALTY * violation
    return found + np.where(outside, 1e6 + np.abs(found).max(initial=0.0), 0.0)


def incumbent(frame: Frame, x: Array, y: Array, jacobian: Array, tolerance: float) -> int | None:
    """Which sample is the best answer to a task: the feasible one of the least objective.

    One that is certified comes before others that are not better by more than the tolerance, violations counted. Where
    none is feasible it is the one whose limits are violated least in sum, in units of the responses' usual slopes.

    Args:
        frame: The task in scaled units.
        x: Points (N, n).
        y: Responses there (N, m).
        jacobian: Their derivatives (N, m, n).
        tolerance: Violation and residual that an optimum may have.

    Returns:
        Its number; None where no sample has the task's fixed values.
    """
    on_task = [i for i, point in enumerate(x) if frame.on_task(point)]
    feasible = [i for i in on_task if frame.violation(y[i], jacobian[i]) <= tolerance]
    if not feasible:
        return min(on_task, key=lambda i: (frame.excess(y[i]), frame.objective(y[i])), default=None)
    order = sorted(feasible, key=lambda i: frame.objective(y[i]))
    rank = ranks(frame, x[order], y[order])
    near = [i for i, value in zip(order, rank, strict=True) if value <= rank.min() + tolerance]
    certified = (i for i in near if frame.judged(x[i], y[i], jacobian[i], tolerance).certified)
    return next(certified, order[0])
