"""How well parameters explain measurements: residuals, their Jacobian, and the density of the posterior.

The measurement errors are normal. Where their size is unknown, the given deviations hold up to a common factor with
Jeffreys' prior 1/s, integrated out: the posterior of the parameters is then (|r|²)^(-K/2) times the prior.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from sobofem.coupling.calibration.coordinates import Coordinates
from sobofem.coupling.calibration.measurements import Measurements
from sobofem.coupling.contract import Array, Model
from sobofem.coupling.design.marginals import Marginal
from sobofem.coupling.models.evaluation import checked_evaluation

EXACT = 1e-20
"""Mean squared residual below which the measurements are the model's own, and an unknown noise can't be learned."""


@dataclass(frozen=True, eq=False)
class Task:
    """What is asked: which measurements to explain, and what is known beforehand.

    Attributes:
        measurements: What was measured.
        priors: Distributions of parameters, by name; the others are evenly distributed over their bounds.
        noise: "known" if the deviations of the measurements hold, "unknown" if only their ratios do.
    """

    measurements: Measurements
    priors: Mapping[str, Marginal] = field(default_factory=dict)
    noise: Literal["known", "unknown"] = "known"

    def __post_init__(self) -> None:
        if self.noise not in ("known", "unknown"):
            raise ValueError(f"noise is {self.noise!r}; expected 'known' or 'unknown'")
        given = self.measurements.deviations is not None or self.measurements.covariance is not None
        if self.noise == "known" and not given:
            raise ValueError(
                "the measurements have no deviations: give them (a column sd), or have the size of the noise learned "
                "(noise='unknown', --unknown-noise)"
            )

    def with_added_noise(self, deviations: Array) -> Task:
        """The same task with errors of the model (K,) added to those of the measurements.

        Raises:
            ValueError: If the noise is unknown: then no size is there to add to.
        """
        if self.noise == "unknown":
            raise ValueError("errors of the model can't be added to a noise of unknown size")
        return replace(self, measurements=self.measurements.with_added_noise(deviations))


@dataclass(frozen=True, eq=False)
class Point:
    """A model at a point, compared with measurements.

    Attributes:
        u: The point in scaled coordinates, (n,).
        x: The point, (n,).
        y: All responses there, (m,).
        dy: Their Jacobian by x, (m, n).
        residual: Model minus measurements in standard deviations, (K,).
        slope: Derivative of the residual by u, (K, n).
        prior_residual: Distance from the centres of normal priors, (n,).
    """

    u: Array
    x: Array
    y: Array
    dy: Array
    residual: Array
    slope: Array
    prior_residual: Array

    @property
    def chi2(self) -> float:
        """Sum of squares of the residual."""
        return float(self.residual @ self.residual)


class Objective:
    """A task on a model.

    Args:
        model: Any model.
        task: What to explain.

    Raises:
        ValueError: If something was measured that is no response, or a prior is of no parameter.
    """

    def __init__(self, model: Model, task: Task) -> None:
        self.model, self.task = model, task
        self.coordinates = Coordinates.of(tuple(model.parameters), model.bounds, task.priors)
        self.rows = task.measurements.indices(tuple(model.responses))
        self.evaluations = 0

    def compared_with(self, model: Model) -> Objective:
        """The same task, on the same box, for another model of the same parameters and responses."""
        other = Objective(model, self.task)
        other.coordinates = self.coordinates
        return other

    @property
    def size(self) -> int:
        """Number of parameters."""
        return len(self.coordinates.parameters)

    def at(self, u: Array) -> Point:
        """The model at u (n,), with its Jacobian; collective on the model's communicator."""
        x = self.coordinates.x(u)
        y, dy = checked_evaluation(self.model, x)
        assert dy is not None
        self.evaluations += 1
        return self.compared(x, y, dy, u)

    def compared(self, x: Array, y: Array, dy: Array, u: Array | None = None) -> Point:
        """The same of responses (m,) and a Jacobian (m, n) that are known at x (n,)."""
        u = self.coordinates.u(x) if u is None else u
        measured = self.task.measurements
        residual = measured.whitened(y[self.rows] - measured.values)
        slope = measured.whitened(dy[self.rows] * self.coordinates.slope(u))
        return Point(u, x, y, dy, residual, slope, self.coordinates.prior_residual(u))

    def log_likelihood(self, residual: Array) -> float:
        """Logarithm of the likelihood of residuals (K,), up to a constant of the task.

        Raises:
            ValueError: If the noise is unknown and there is none.
        """
        if self.task.noise == "known":
            return -0.5 * float(residual @ residual)
        return -0.5 * len(residual) * float(np.log(_variance(residual)))

    def likelihood_of(self, y: Array) -> float:
        """The same of responses (m,)."""
        measured = self.task.measurements
        return self.log_likelihood(measured.whitened(y[self.rows] - measured.values))

    def log_posterior(self, point: Point) -> tuple[float, Array]:
        """Logarithm of the posterior's density in u, up to a constant of the task, and its gradient (n,)."""
        weight = 1.0 if self.task.noise == "known" else 1.0 / _variance(point.residual)
        prior = point.prior_residual
        value = self.log_likelihood(point.residual) - 0.5 * float(prior @ prior)
        return value, -weight * (point.slope.T @ point.residual) - self.coordinates.precision * prior

    def factor(self, point: Point) -> float:
        """By which the given deviations are to be multiplied: 1, or what the residual tells of an unknown noise."""
        return 1.0 if self.task.noise == "known" else float(np.sqrt(_variance(point.residual)))


def _variance(residual: Array) -> float:
    """Mean square of residuals (K,)."""
    found = float(residual @ residual) / len(residual)
    if found < EXACT:
        raise ValueError("the model meets every measurement exactly: a noise of unknown size can't be learned")
    return found
