"""Which points a search may go on from, and the ratio of actual to predicted reduction."""

from __future__ import annotations

from dataclasses import dataclass, field

from sobofem.coupling.contract import Array
from sobofem.coupling.optimize.scaled_task import ScaledTask
from sobofem.coupling.optimize.separable import MANY

MARGIN = 1e-5
"""Share of its violation by which a point must beat those in the filter."""

MIN_GAIN_SHARE = 0.05
"""Share of the predicted gain that a step must bring."""

SWITCH = 0.1
"""A step is for the objective's sake if it is to gain at least this times the violation."""

FARTHEST = 0.05
"""Sum of violations, or distance to where the limits are met to first order there, that a step for the objective's sake
may lead to: a limit that grows by powers is passed by much within a short way."""

NOISE = 1e-13
"""Relative accuracy of a solve, below which gains mean nothing."""


@dataclass
class Filter:
    """Pairs of violation and objective, none of which dominates another (Fletcher & Leyffer 2002).

    A point is acceptable that violates the limits less, or has a lower objective, than each of them.

    Attributes:
        pairs: Violation and objective.
    """

    pairs: list[tuple[float, float]] = field(default_factory=list)

    def accepts(self, violation: float, objective: float) -> bool:
        """Whether no pair dominates it."""
        return all(violation <= (1.0 - MARGIN) * h or objective <= f - MARGIN * violation for h, f in self.pairs)

    def add(self, violation: float, objective: float) -> None:
        """Keep a pair, and drop those that it dominates."""
        self.pairs = [(h, f) for h, f in self.pairs if h < violation or f < objective]
        self.pairs.append((violation, objective))


@dataclass(frozen=True)
class Trial:
    """A step: scaled objective and sum of violations, before, predicted, and by the model.

    Attributes:
        objective: Before.
        excess: Violation before.
        gain: Predicted decrease of the objective.
        predicted: Violation predicted.
        reached: Objective by the model.
        left: Violation by the model.
        distance: How far the point is from meeting every limit, to first order, as a share of the box; among many
            inputs its violation.
        tolerance: Violation that an optimum may have.
    """

    objective: float
    excess: float
    gain: float
    predicted: float
    reached: float
    left: float
    distance: float
    tolerance: float

    @classmethod
    def of(
        cls,
        scaled: ScaledTask,
        before: Array,
        after: tuple[Array, Array],
        predicted: tuple[float, float],
        tolerance: float,
    ) -> Trial:
        """A step, with its predicted decrease of the objective and violation.

        Args:
            scaled: The task.
            before: Responses where it starts (m,).
            after: Responses (m,) and Jacobian (m, n) where it ends.
            predicted: Decrease of the objective, and violation there.
            tolerance: Violation that an optimum may have.
        """
        objective, excess, (y, jacobian) = scaled.objective(before), scaled.excess(before), after
        left = scaled.excess(y)
        # Among many inputs every violation is a short way off: each of them need move but little.
        distance = left if jacobian.shape[1] > MANY else scaled.violation(y, jacobian)
        return cls(objective, excess, *predicted, scaled.objective(y), left, distance, tolerance)

    @property
    def for_objective(self) -> bool:
        """Whether the step is for the objective's sake, and not for that of the limits."""
        return self.gain >= SWITCH * self.excess

    @property
    def ratio(self) -> float:
        """Ratio of actual to predicted decrease."""
        if self.for_objective:
            return (self.objective - self.reached) / self.gain if self.gain > 0.0 else 0.0
        return (self.excess - self.left) / max(self.excess - self.predicted, 1e-300)

    @property
    def in_noise(self) -> bool:
        """Whether the gain is too small for the objective to tell."""
        return self.gain <= 10.0 * self._noise and self.left <= self.tolerance

    def accepted_by(self, pairs: Filter) -> bool:
        """Whether the search may go on from there; where `in_noise`, that is for the residual to say."""
        small = 0.1 * self.tolerance
        before, left, predicted = (max(h - small, 0.0) for h in (self.excess, self.left, self.predicted))
        if not pairs.accepts(left, self.reached):
            return False
        if self.for_objective:
            gained = self.objective - self.reached
            return gained >= MIN_GAIN_SHARE * self.gain - self._noise and min(left, self.distance) <= max(
                FARTHEST, before
            )
        return before - left >= MIN_GAIN_SHARE * (before - predicted)

    @property
    def _noise(self) -> float:
        return NOISE * max(abs(self.objective), abs(self.reached), 1e-6)
