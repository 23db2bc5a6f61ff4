"""What any optimizer can do for a family: begin where the task before ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from benchmarks.optimization.methods.base import Assignment, Scaled
from sobofem.coupling.contract import Array


class Chained:
    """Begins every task but the first at the last point of the one before.

    Args:
        optimize: Minimizes a scaled task.
    """

    def __init__(self, optimize: Callable[[Scaled], object]) -> None:
        self._optimize = optimize
        self._last: Array | None = None

    def __call__(self, assignment: Assignment) -> None:
        """See `Method`."""
        task = assignment.scaled()
        if self._last is not None:
            task = replace(task, start=assignment.frame.unit(self._last)[assignment.frame.free])
        try:
            self._optimize(task)
        finally:
            self._last = assignment.model.last
