"""One judge for all: how far a point is from the optimum, by what the finite-element model says there."""

from __future__ import annotations

from typing import NamedTuple

from sobofem.coupling.contract import Array, Model, describe
from sobofem.coupling.optimize import Task
from sobofem.coupling.optimize.scaled_task import ScaledTask

TOLERANCE = 1e-6


class Point(NamedTuple):
    """A solve, judged.

    Attributes:
        objective: The objective, plus what the limits that are overstepped would cost: to first order its value where
            they are kept.
        violation: How far the limits are, as a share of the box; see `sobofem.coupling.optimize.Optimum`.
        optimality: Karush-Kuhn-Tucker residual; see there.
    """

    objective: float
    violation: float
    optimality: float

    @property
    def feasible(self) -> bool:
        """Whether the limits are met."""
        return self.violation <= TOLERANCE

    @property
    def optimal(self) -> bool:
        """Whether they are, and the first-order conditions of an optimum hold."""
        return self.feasible and self.optimality <= TOLERANCE


class Judge:
    """Judges points of one task; slopes at the start are the usual ones, whoever asks.

    Args:
        model: Names and box.
        task: What is wanted.
        jacobian: The model's Jacobian (m, n) where everybody starts.
    """

    def __init__(self, model: Model, task: Task, jacobian: Array) -> None:
        about = describe(model)
        self.task = task
        self.frame = ScaledTask(task, about.parameters, about.responses, about.bounds)
        self.frame.calibrate(jacobian[None])

    def __call__(self, x: Array, y: Array, jacobian: Array) -> Point:
        """Judge the point x (n,) with responses (m,) and Jacobian (m, n)."""
        found = self.frame.judged(x, y, jacobian, TOLERANCE)
        answers = dict(zip(found.responses, y.tolist(), strict=True))
        over = {name: answers[name] - limit for name, limit in self.task.at_most.items()}
        under = {name: limit - answers[name] for name, limit in self.task.at_least.items()}
        cost = sum(
            abs(found.multipliers[name]) * max(excess, 0.0) for part in (over, under) for name, excess in part.items()
        )
        return Point(found.objective + cost, found.violation, found.optimality)
