"""What an optimization is asked for, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coupling.contract import Array

FEASIBLE = 1e-5
"""Violation of a limit, as a share of the box, up to which a point counts as meeting it."""

OPTIMAL = 1e-3
"""Unbalanced slope, as a share of the steepest one, up to which a point counts as an optimum."""


@dataclass(frozen=True)
class Task:
    """What to minimize over which inputs, under which limits.

    Attributes:
        objective: Name of the response to minimize.
        at_most: Upper limits of responses, by name.
        at_least: Lower limits of responses, by name.
        fixed: Parameters that keep a value, by name; all others vary within their bounds.
    """

    objective: str
    at_most: Mapping[str, float]
    at_least: Mapping[str, float]
    fixed: Mapping[str, float]


@dataclass(frozen=True)
class Optimum:
    """A point, what the model says there, and how good it is.

    Attributes:
        task: What was asked for.
        parameters: Names of the n inputs.
        responses: Names of the m outputs.
        x: The point, (n,).
        y: The model's responses there, (m,).
        violation: How far the point is from meeting every limit, to first order, as a share of the box; 0 inside.
        optimality: Slope of the objective that no active limit or bound balances, as a share of its steepest slope: 0
            where the first-order conditions of an optimum hold.
        steepest: Steepest slope of each response that the search met, per width of the box, (m,).
        evaluations: Model evaluations with Jacobian, over all starts.
        message: How the optimizer ended, in its words.
    """

    task: Task
    parameters: tuple[str, ...]
    responses: tuple[str, ...]
    x: Array
    y: Array
    violation: float
    optimality: float
    steepest: Array
    evaluations: int
    message: str

    @property
    def feasible(self) -> bool:
        """Whether every limit is met."""
        return self.violation <= FEASIBLE

    @property
    def objective(self) -> float:
        """The minimized response."""
        return float(self.y[self.responses.index(self.task.objective)])


@dataclass(frozen=True)
class Certificate:
    """A surrogate's optimum as the model behind it sees it.

    Attributes:
        predicted: The optimum by the surrogate.
        confirmed: The same point by the model, with the model's own violation and optimality.
        error: Relative difference of each response, surrogate against model, (m,).
        jacobian: The model's Jacobian there, (m, n).
        note: Why the search for a better one ended, where it did not by itself.
    """

    predicted: Optimum
    confirmed: Optimum
    error: Array
    jacobian: Array
    note: str = ""

    @property
    def certified(self) -> bool:
        """Whether the model itself finds the point feasible, and the first-order conditions of an optimum met."""
        return self.confirmed.feasible and self.confirmed.optimality <= OPTIMAL
