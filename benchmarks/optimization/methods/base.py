"""What a method is: it is given one task after the other, and asks the model for points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.optimization.counted import Counted
from sobofem.coupling.contract import Array
from sobofem.coupling.optimize import Task
from sobofem.coupling.optimize.scaled_task import ScaledTask


@dataclass(frozen=True, eq=False)
class Assignment:
    """A task on a model that counts, and where to begin.

    Attributes:
        model: Raises an exception to stop whoever has reached the goal or spent all solves.
        task: What is wanted.
        start: The point (n,) that all methods begin at.
        frame: Scales inputs by the box, responses by their slopes at the start.
        budget: Solves.
    """

    model: Counted
    task: Task
    start: Array
    frame: ScaledTask
    budget: int

    def scaled(self) -> Scaled:
        """The task as those see it who know of functions only."""
        return Scaled(self.model, self.frame, self.frame.unit(self.start)[self.frame.free])


@dataclass(frozen=True, eq=False)
class Scaled:
    """min f(z) with margins c(z) ≥ 0 over the unit box of the p free inputs; at the start all slopes are one long.

    Attributes:
        model: Counts.
        frame: Scales.
        start: (p,).
    """

    model: Counted
    frame: ScaledTask
    start: Array

    def answer(self, z: Array) -> tuple[float, Array, Array, Array]:
        """f, its gradient (p,), c (k,) and its Jacobian (k, p) at z (p,), by one solve."""
        frame = self.frame
        y, jacobian = self.model.evaluate(frame.physical(z))
        slopes = jacobian[np.ix_(frame.used, frame.free)] * frame.span[frame.free]
        rows = (frame.limits.sign / frame.slopes[frame.limits.index])[:, None] * slopes[frame.limits.index]
        return frame.objective(y), frame.weights @ slopes / frame.slope, frame.margins(y), rows

    @property
    def limits(self) -> int:
        """Number of margins k."""
        return len(self.frame.limits.index)


Method = Callable[[Assignment], Array | None]
"""Solves a task until it is content; gives the point (n,) that it ends with, or leaves that to the judge."""


@dataclass(frozen=True)
class Arm:
    """A method under its name.

    Attributes:
        name: In tables.
        make: Makes the method for a family of tasks, which it may learn from one after the other.
        color: In pictures.
        own: Whether it is sobofem's.
        tasks: Most tasks of a family that it is given.
        budget: Solves a task.
    """

    name: str
    make: Callable[[], Method]
    color: str
    own: bool = False
    tasks: int = 100
    budget: int = 200


class Cold:
    """A method that begins every task anew.

    Args:
        optimize: Minimizes a scaled task.
    """

    def __init__(self, optimize: Callable[[Scaled], object]) -> None:
        self._optimize = optimize

    def __call__(self, assignment: Assignment) -> None:
        """See `Method`."""
        self._optimize(assignment.scaled())
