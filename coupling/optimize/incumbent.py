"""The best of the points that were solved: what a search begins at, and what it hands over, whatever ends it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sobofem.coupling.contract import Array
from sobofem.coupling.dataset.records import Sample
from sobofem.coupling.optimize.scaled_task import ScaledTask
from sobofem.coupling.optimize.solution import Curvature, Optimum

PENALTY = 10.0
"""What a violation weighs against the objective where points are ranked; both are scaled."""


def ranks(scaled: ScaledTask, x: Array, y: Array) -> Array:
    """Objective plus violation, weighed such that it would not pay: what a center is chosen by (N,).

    Args:
        scaled: The task in scaled units.
        x: Points (N, n); those with other values of fixed parameters come last.
        y: Responses there (N, m).
    """
    outside = np.array([not scaled.on_task(point) for point in x])
    objective = np.array([scaled.objective(row) for row in y])
    violation = np.array([scaled.excess(row) for row in y])
    found = objective + PENALTY * violation
    return found + np.where(outside, 1e6 + np.abs(found).max(initial=0.0), 0.0)


class SolvedPoints:
    """All samples that a search knows of, by number, and the points where the model has no answer.

    Args:
        scaled: The task in scaled units.
        samples: Points (N, n), responses (N, m) and Jacobians (N, m, n).
        failed: Points (n,) without an answer.
        tolerance: Violation and residual that an optimum may have.
    """

    def __init__(
        self, scaled: ScaledTask, samples: tuple[Array, Array, Array], failed: list[Array], tolerance: float
    ) -> None:
        self._scaled, self.failed, self.tolerance = scaled, failed, tolerance
        self.x, self.y, self.jacobian = (np.array(part) for part in samples)
        self._judged: dict[int, tuple[Array, Optimum]] = {}  # by number, with the sizes that they were judged by
        self._curvatures: dict[bytes, Curvature] = {}  # by point

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.x)

    def add(self, sample: Sample) -> int:
        """Add a sample; returns its number."""
        assert sample.jacobian is not None
        self.x = np.vstack([self.x, sample.x])
        self.y = np.vstack([self.y, sample.y])
        self.jacobian = np.concatenate([self.jacobian, sample.jacobian[None]])
        return len(self.x) - 1

    def forget(self, kept: NDArray[np.intp], failures: slice) -> None:
        """Keep some samples (k,) alone, which are renumbered, and failed points outside of a range."""
        self.x, self.y, self.jacobian = self.x[kept], self.y[kept], self.jacobian[kept]
        self._judged = {k: self._judged[i] for k, i in enumerate(kept.tolist()) if i in self._judged}
        del self.failed[failures]

    def point(self, i: int) -> tuple[Array, Array, Array]:
        """The sample of a number: x (n,), y (m,) and Jacobian (m, n)."""
        return self.x[i], self.y[i], self.jacobian[i]

    def knows(self, x: Array) -> bool:
        """Whether x (n,) was solved, with or without an answer."""
        return any(self._scaled.same(x, other) for other in self.x) or self.has_failed(x)

    def has_failed(self, x: Array) -> bool:
        """Whether the model is known to have no answer at x (n,)."""
        return any(self._scaled.same(x, other) for other in self.failed)

    def judged(self, i: int) -> Optimum:
        """A sample, judged by limits and optimality."""
        slopes, found = self._judged.get(i, (None, None))
        if found is None or slopes is not self._scaled.slopes:  # else by other sizes of the responses
            found = self._scaled.judged(*self.point(i), self.tolerance)
            found = replace(found, curvature=self.curvature(i))
            self._judged[i] = self._scaled.slopes, found
        return found

    def curvature(self, i: int) -> Curvature | None:
        """What is known of the curvature at a sample."""
        return self._curvatures.get(self.x[i].tobytes())

    def set_curvature(self, x: Array, curvature: Curvature) -> None:
        """Take in the curvature at a point (n,)."""
        self._curvatures[x.tobytes()] = curvature
        self._judged.clear()

    def violation(self, i: int) -> float:
        """How far, to first order, a sample is from meeting every limit."""
        if i in self._judged:
            return self.judged(i).violation
        return self._scaled.violation(self.y[i], self.jacobian[i])

    def residual(self, i: int) -> float:
        """The larger of a sample's optimality residual and violation."""
        return max(self.judged(i).optimality, self.judged(i).violation)

    def first_center(self) -> int:
        """The sample that a search begins at."""
        return int(np.argmin(ranks(self._scaled, self.x, self.y)))

    def best(self) -> int:
        """The sample that is the best answer to the task; one has the task's fixed values."""
        found = self.incumbent()
        assert found is not None
        return found

    def incumbent(self) -> int | None:
        """Which sample is the best answer to the task: the feasible one of the least objective.

        One that is certified comes before others that are not better by more than the tolerance, violations counted.
        Where none is feasible it is the one whose limits are violated least in sum, in units of the responses' usual
        slopes. None where no sample has the task's fixed values.
        """
        scaled, tolerance = self._scaled, self.tolerance
        on_task = [i for i, point in enumerate(self.x) if scaled.on_task(point)]
        feasible = [i for i in on_task if self.violation(i) <= tolerance]
        if not feasible:
            return min(on_task, key=lambda i: (scaled.excess(self.y[i]), scaled.objective(self.y[i])), default=None)
        order = sorted(feasible, key=lambda i: scaled.objective(self.y[i]))
        # by the distance to a limit: in units of usual slopes a limit that is steeper here weighs too much
        rank = np.array([scaled.objective(self.y[i]) + PENALTY * self.violation(i) for i in order])
        near = [i for i, value in zip(order, rank, strict=True) if value <= rank.min() + tolerance]
        return next((i for i in near if self.judged(i).certified), order[0])

    def beats(self, i: int, other: int) -> bool:
        """Whether a sample is a better answer than another, by more than the tolerance."""
        feasible = [self.violation(k) <= self.tolerance for k in (i, other)]
        if feasible[0] != feasible[1]:
            return feasible[0]
        measure = self._scaled.objective if feasible[0] else self._scaled.excess
        return measure(self.y[i]) < measure(self.y[other]) - self.tolerance
