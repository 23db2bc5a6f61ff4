"""What an optimization answers: a point judged by a model, and how it was found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sobofem.coupling.contract import Array
from sobofem.coupling.dataset.dataset import Dataset
from sobofem.coupling.dataset.records import Failure, Sample
from sobofem.coupling.optimize.task import Task

if TYPE_CHECKING:
    from sobofem.coupling.optimize.obstacle import Obstacle


COVERS = "a local optimum by the model as it is: its mesh, load steps and smoothed maxima included"
"""What a certificate says, and what it does not: neither is it a global one, nor of a finer mesh."""

NOT_LOOKED_AT = "not looked at: the model offers no products with its Hessian"
"""What is said of the curvature at a first-order point where nothing is known of it."""

NOT_YET = "not looked at: the first-order conditions do not hold here"
"""What is said of the curvature elsewhere."""

NAMED = 4
"""Parameters that are named in a direction."""


@dataclass(frozen=True, eq=False)
class Curvature:
    """The least curvature of the Lagrangian that was found at a first-order point, by products with the Hessian.

    Attributes:
        lowest: Along `direction`, per width of the box squared, as a share of what gains are compared with; infinite
            where no direction is free.
        falls: Whether that is negative by more than round-off: then the point is no minimum.
        products: How many products it was found by.
        dimensions: Of the space of directions that bounds and active limits leave free.
        parameters: Names of the free parameters.
        direction: Of length 1 in the unit box (free,).
    """

    lowest: float
    falls: bool
    products: int
    dimensions: int
    parameters: tuple[str, ...]
    direction: Array

    def __str__(self) -> str:
        """As a clause."""
        by = f"{self.products} product{'s' if self.products > 1 else ''} with the Hessian"
        if not self.dimensions:
            held = "bounds and active limits leave no direction free"
            return (
                f"a minimum as far as {by} tell: what falls leaves the box" if self.products else f"a minimum: {held}"
            )
        if not self.falls:
            return (
                f"a minimum as far as {by} tell: least curvature {self.lowest:.2g}, {self.dimensions} free directions"
            )
        return f"no minimum: curvature {self.lowest:.2g} along {self.way}, by {by}"

    @property
    def way(self) -> str:
        """The direction in words: the parameters with the largest shares."""
        largest = np.argsort(-np.abs(self.direction), kind="stable")[:NAMED]
        share = {self.parameters[k]: float(self.direction[k]) for k in largest}
        return ", ".join(f"{name} {value:+.2g}" for name, value in share.items() if abs(value) > 0.05)

    def record(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        found = {"minimum": not self.falls, "products": self.products, "free_directions": self.dimensions}
        along = dict(zip(self.parameters, self.direction.tolist(), strict=True)) if self.falls else None
        return found | {"words": str(self), "lowest": self.lowest if self.dimensions else None, "along": along}


@dataclass(frozen=True, eq=False)
class Optimum:
    """A point, what a model says there, and how good it is by that model.

    Attributes:
        task: What was asked for.
        parameters: Names of the n parameters.
        responses: Names of the m responses.
        x: The point, (n,).
        y: The model's responses there, (m,).
        jacobian: Their derivatives there, (m, n).
        violation: How far the point is from meeting every limit, to first order, as a share of the box; 0 inside.
        violations: The same of each response that has a limit, by name.
        optimality: Karush-Kuhn-Tucker residual: slope of the objective that no active limit or bound balances, as a
            share of its usual slope; 0 where the first-order conditions of an optimum hold.
        multipliers: What the objective loses per unit by which a limit is tightened, by the response's name; of an
            equation, what it loses per unit by which the value is raised, of either sign.
        tolerance: Violation and residual up to which the point counts as an optimum.
        slope: The objective's usual slope, in its unit per width of the box: where a search began.
        slopes: The same of each response that matters, by name.
        curvature: Least curvature found there; None where it was not looked for, or the model has no `hvp`.
    """

    task: Task
    parameters: tuple[str, ...]
    responses: tuple[str, ...]
    x: Array
    y: Array
    jacobian: Array
    violation: float
    violations: Mapping[str, float]
    optimality: float
    multipliers: Mapping[str, float]
    tolerance: float
    slope: float
    slopes: Mapping[str, float]
    curvature: Curvature | None = None

    @property
    def feasible(self) -> bool:
        """Whether every limit is met."""
        return self.violation <= self.tolerance

    @property
    def stationary(self) -> bool:
        """Whether the model itself finds the point feasible, and the first-order conditions of an optimum met."""
        return self.feasible and self.optimality <= self.tolerance

    @property
    def certified(self) -> bool:
        """Whether these conditions are met, and no direction was found along which the objective falls all the same."""
        return self.stationary and not (self.curvature is not None and self.curvature.falls)

    @property
    def second_order(self) -> str:
        """What is known of the curvature, in words."""
        if self.curvature is not None:
            return str(self.curvature)
        return NOT_LOOKED_AT if self.stationary else NOT_YET

    @property
    def objective(self) -> float:
        """The minimized response, or sum of responses."""
        return sum(weight * float(self.y[self.responses.index(name)]) for name, weight in self.task.weights.items())

    @property
    def unmet(self) -> tuple[str, ...]:
        """Names of the responses whose limits the point does not meet, to within the tolerance."""
        return tuple(name for name, distance in self.violations.items() if distance > self.tolerance)

    @property
    def broken(self) -> str:
        """The limits that the point does not meet, to within the tolerance, and by how much, in words."""
        return "; ".join(map(self._broken, self.unmet))

    def _broken(self, name: str) -> str:
        value, task = float(self.y[self.responses.index(name)]), self.task
        high, low = task.at_most.get(name, np.inf), task.at_least.get(name, -np.inf)
        if high == low:
            return f"{name} is {value:.6g}, required {low:g} ({abs(value - low):.2g} off)"
        if value > high:
            return f"{name} is {value:.6g}, at most {high:g} ({value - high:.2g} too much)"
        return f"{name} is {value:.6g}, at least {low:g} ({low - value:.2g} too little)"


@dataclass(frozen=True, eq=False)
class Step:
    """One solve of the model on the way.

    Attributes:
        number: Of the solve, from 1.
        x: Where, (n,); empty (0,) where a search among many inputs did not keep it.
        y: Responses there (m,); NaN where the model has no answer.
        objective: The objective there, NaN where there is none.
        violation: As `Optimum.violation`; NaN.
        optimality: As `Optimum.optimality`; NaN.
        radius: Half the width of the trust region that the point is from, as a share of the box.
        predictor: What proposed the point: `start`, `quasi-Newton`, `Gaussian process`, ...
        accepted: Whether the search went on from there.
        failure: Why the model has no answer; empty where it has one.
    """

    number: int
    x: Array
    y: Array
    objective: float
    violation: float
    optimality: float
    radius: float
    predictor: str
    accepted: bool
    failure: str = ""

    def record(self) -> dict[str, Any]:
        """As plain values, for JSON: where, and what came of it, or why nothing did."""
        where = {"number": self.number, "guide": self.predictor} | ({"x": self.x.tolist()} if len(self.x) else {})
        if self.failure:
            return where | {"failure": self.failure}
        return where | {"objective": self.objective, "violation": self.violation, "optimality": self.optimality}


def noted(number: int, record: Sample | Failure, judged: Optimum | int, how: tuple[float, str, bool]) -> Step:
    """A step, by the model's answer.

    Args:
        number: Of the solve.
        record: The answer.
        judged: The same, judged; where there is none, how many responses the model has.
        how: The step's radius, its predictor, and whether it was accepted.
    """
    if isinstance(judged, int):
        reason = record.reason if isinstance(record, Failure) else ""
        return Step(number, record.x, np.full(judged, np.nan), np.nan, np.nan, np.nan, *how, failure=reason)
    return Step(number, record.x, judged.y, judged.objective, judged.violation, judged.optimality, *how)


@dataclass(frozen=True, eq=False)
class Solution:
    """The optimum with its certificate: what the model itself says of it, and at which cost it was found.

    Attributes:
        optimum: The best point found, by the model.
        path: Every solve, in order, those of interrupted runs of the same search included.
        archive: All samples: those that were given, and the new ones; among many inputs of the new ones the best and
            the last. The next search over the same model starts from them.
        message: How the search ended, in words.
        advice: What to do where it is not certified, in a sentence; empty where it is.
        obstacle: What is known of points without an answer; None where the model had one everywhere.
        others: Other local optima that were found on the way, each certified by the model, the best first; of discrete
            values those of other combinations.
    """

    optimum: Optimum
    path: tuple[Step, ...]
    archive: Dataset
    message: str
    advice: str = ""
    obstacle: Obstacle | None = None
    others: tuple[Optimum, ...] = ()

    @property
    def certified(self) -> bool:
        """Whether the model itself finds the point feasible and, to first order, optimal."""
        return self.optimum.certified

    @property
    def solves(self) -> int:
        """Solves of the model, failed ones included."""
        return len(self.path)

    @property
    def x(self) -> Array:
        """The point, (n,)."""
        return self.optimum.x

    @property
    def objective(self) -> float:
        """The objective there, by the model."""
        return self.optimum.objective

    @property
    def negative_pivots(self) -> int | None:
        """Of the tangents behind the optimum: 0 where its equilibria are stable; None where the model does not say."""
        at = np.flatnonzero((self.archive.x == self.optimum.x).all(axis=1))
        return self.archive.pivots_of(int(at[0])) if len(at) else None

    def record(self) -> dict[str, Any]:
        """The certificate as plain values, as for JSON: points and responses by name."""
        best = self.optimum
        return {
            "objective": dict(best.task.weights),
            "at_most": dict(best.task.at_most),
            "at_least": dict(best.task.at_least),
            "fixed": dict(best.task.fixed),
            "x": dict(zip(best.parameters, best.x.tolist(), strict=True)),
            "model": dict(zip(best.responses, best.y.tolist(), strict=True)),
            "value": best.objective,
            "violation": best.violation,
            "optimality": best.optimality,
            "multipliers": dict(best.multipliers),
            "tolerance": best.tolerance,
            "feasible": best.feasible,
            "not_met": list(best.unmet),
            "certified": best.certified,
            "covers": COVERS,
            "curvature": None if best.curvature is None else best.curvature.record(),
            "second_order": best.second_order,
            "negative_pivots": self.negative_pivots,
            "solves": self.solves,
            "message": self.message,
            "advice": self.advice,
            "failures": None if self.obstacle is None else self.obstacle.record(),
            "other_optima": [
                {"x": other.x.tolist(), "value": other.objective, "optimality": other.optimality}
                for other in self.others
            ],
            "path": [step.record() for step in self.path],
        }


def ranked_others(best: Optimum, optima: Iterable[Optimum]) -> tuple[Optimum, ...]:
    """Optima without the best one, the one of the lowest objective first."""
    return tuple(sorted((o for o in optima if not np.array_equal(o.x, best.x)), key=lambda other: other.objective))
