"""The most probable parameters by least squares, on any model: a surrogate, from many starts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.linalg
import scipy.optimize

from sobofem.coupling.calibration.goodness import Goodness, goodness
from sobofem.coupling.calibration.task import Objective, Point, Task
from sobofem.coupling.contract import Array, Model

AT_BOUND = 1e-4
"""Distance from a bound, as a share of the box, at which a parameter counts as being at it."""

REWEIGHTINGS = 20
"""Least-squares problems, at most, that find a noise of unknown size and the parameters together."""

RIVAL = 8.0
"""Logarithm of how much less probable a second optimum may be, and still be named."""

VALLEY = 0.1
"""Distance, in standard deviations of what the measurements tell, below which two optima lie in one flat valley."""

INSIDE = 1e-3
"""Distance from the bounds at which least squares start, as a share of the box."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """The most probable parameters by a model, and what that model says there.

    Attributes:
        objective: The task on the model that gave the answer.
        point: Where, with responses, Jacobian and residual.
        log_posterior: Logarithm of the posterior's density there, up to a constant of the task.
        step: Length of the Gauss-Newton step that the model would still take, in standard deviations of the posterior:
            0 at an optimum.
        at_bound: Names of parameters at their bounds that the measurements would push beyond.
        rivals: Other optima that are nearly as probable, (R, n).
        evaluations: Model evaluations with Jacobian.
    """

    objective: Objective
    point: Point
    log_posterior: float
    step: float
    at_bound: tuple[str, ...]
    rivals: Array
    evaluations: int

    @property
    def task(self) -> Task:
        """What was asked."""
        return self.objective.task

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the n parameters."""
        return self.objective.coordinates.parameters

    @property
    def responses(self) -> tuple[str, ...]:
        """Names of the m responses."""
        return tuple(self.objective.model.responses)

    @property
    def x(self) -> Array:
        """The parameters, (n,)."""
        return self.point.x

    @property
    def chi2(self) -> float:
        """Sum of squared residuals in standard deviations of the measurements."""
        return self.point.chi2

    @cached_property
    def goodness(self) -> Goodness:
        """Whether the residuals are such as chance makes them."""
        free = np.array([name not in self.at_bound for name in self.parameters])
        return goodness(self.objective, self.point, free)

    @property
    def freedom(self) -> int:
        """Measurements and normal priors that are left over once what they can determine has been determined."""
        return self.goodness.freedom

    @property
    def noise(self) -> float:
        """By which the deviations of the measurements are to be multiplied: 1 if they are known."""
        return 1.0 if self.task.noise == "known" else float(np.sqrt(self.chi2 / max(self.freedom, 1)))

    @property
    def misfit(self) -> float:
        """Probability of residuals as large as these if model and deviations are right; NaN where it is unknown."""
        return self.goodness.probability


def estimate(model: Model, task: Task, *, starts: int = 16, seed: int = 0) -> Estimate:
    """Find the most probable parameters, by trust-region least squares from several starts.

    Args:
        model: Any model: a surrogate (cheap, so give many starts) or a finite-element problem.
        task: What to explain.
        starts: Starting points: the middle of the box, and points drawn at random.
        seed: Seed of these points.

    Raises:
        ValueError: If the task doesn't fit the model.
    """
    if starts < 1:
        raise ValueError(f"starts is {starts}, expected at least 1")
    objective = Objective(model, task)
    _require_spare(objective)
    drawn = np.random.default_rng(seed).uniform(size=(starts - 1, objective.size))
    ends = [descend(objective, start) for start in np.vstack([np.full(objective.size, 0.5), drawn])]
    if not any(end.slope.any() for end in ends) and not objective.coordinates.precision.any():
        names = ", ".join(dict.fromkeys(task.measurements.responses))
        raise ValueError(f"no parameter moves {names}: the measurements tell nothing of {', '.join(model.parameters)}")
    judged_ends = [judged(objective, end) for end in ends]
    best = max(judged_ends, key=lambda e: e.log_posterior)
    return replace(best, rivals=_rivals(best, judged_ends), evaluations=objective.evaluations)


def _require_spare(objective: Objective) -> None:
    """Refuse to learn a noise from measurements that the parameters alone can meet."""
    values, unknown = len(objective.rows), int((objective.coordinates.precision == 0.0).sum())
    if objective.task.noise == "unknown" and values <= unknown:
        raise ValueError(
            f"a noise of unknown size can't be learned from {values} measurements, of which {unknown} parameters may "
            "take every one; give standard deviations, more measurements, or fix parameters"
        )


def descend(objective: Objective, start: Array, *, low: Array | None = None, high: Array | None = None) -> Point:
    """One descent to an optimum from u (n,), within the box or a part of it, (n,) each.

    A noise of unknown size is found by repeating least squares with the size that the last one left.
    """
    box = (np.zeros(objective.size) if low is None else low, np.ones(objective.size) if high is None else high)
    u, factor = start, 1.0
    for _ in range(REWEIGHTINGS):
        point = _least_squares(objective, u, box, factor)
        new = objective.factor(point)
        if abs(new - factor) <= 1e-6 * factor or not objective.coordinates.precision.any():
            break
        u, factor = point.u, new
    return point


def _least_squares(objective: Objective, start: Array, box: tuple[Array, Array], factor: float) -> Point:
    """Least squares on residuals and priors with the deviations multiplied by a factor."""
    memory: dict[bytes, Point] = {}
    priors = np.diag(objective.coordinates.precision)

    def at(u: Array) -> Point:
        key = u.tobytes()
        if key not in memory:
            memory.clear()
            memory[key] = objective.at(u)
        return memory[key]

    margin = INSIDE * (box[1] - box[0])
    result = scipy.optimize.least_squares(
        lambda u: np.concatenate([at(u).residual / factor, at(u).prior_residual]),
        np.clip(start, box[0] + margin, box[1] - margin),
        jac=lambda u: np.vstack([at(u).slope / factor, priors]),
        bounds=box,
        xtol=1e-12,
        ftol=1e-12,
        gtol=1e-10,
        max_nfev=200,
    )
    return at(_onto(result.x, result.grad, box))


def _onto(u: Array, gradient: Array, box: tuple[Array, Array]) -> Array:
    """Points that are driven against a bound, on it: the method keeps to the interior and stops short."""
    low, high = box
    near = AT_BOUND * (high - low)
    return np.where((u - low < near) & (gradient > 0.0), low, np.where((high - u < near) & (gradient < 0.0), high, u))


def judged(objective: Objective, point: Point) -> Estimate:
    """How good a point is: density, the step that is left, and the bounds that hold it."""
    value, gradient = objective.log_posterior(point)
    pushed = ((point.u <= AT_BOUND) & (gradient < 0.0)) | ((point.u >= 1.0 - AT_BOUND) & (gradient > 0.0))
    names = objective.coordinates.parameters
    return Estimate(
        objective=objective,
        point=point,
        log_posterior=value,
        step=_step(objective, point, gradient, ~pushed),
        at_bound=tuple(name for name, held in zip(names, pushed, strict=True) if held),
        rivals=np.zeros((0, len(names))),
        evaluations=objective.evaluations,
    )


def precision(objective: Objective, point: Point, factor: float) -> Array:
    """Gauss-Newton approximation of the posterior's precision in u, (n, n)."""
    slope = point.slope / factor
    return slope.T @ slope + np.diag(objective.coordinates.precision**2)


def _step(objective: Objective, point: Point, gradient: Array, free: np.ndarray) -> float:
    """Length of the Gauss-Newton step of the free parameters in the metric of the precision.

    A direction that is known less well than the box tells counts as known so well: 12 is the precision of what is
    evenly distributed between 0 and 1.
    """
    if not free.any():
        return 0.0
    curvature = precision(objective, point, objective.factor(point))[np.ix_(free, free)]
    values, vectors = scipy.linalg.eigh(curvature)
    return float(np.linalg.norm((vectors.T @ gradient[free]) / np.sqrt(np.maximum(values, 12.0))))


def _rivals(best: Estimate, others: list[Estimate]) -> Array:
    """Distinct optima that are nearly as probable as the best one; points of one flat valley are not distinct."""
    found: list[Estimate] = [best]
    factor = best.objective.factor(best.point)
    for other in sorted(others, key=lambda e: -e.log_posterior):
        near = []
        for known in found:
            apart = other.point.u - known.point.u
            across = float(apart @ precision(best.objective, known.point, factor) @ apart)
            near.append(np.abs(apart).max() < 1e-2 or across < VALLEY**2)
        if not any(near) and best.log_posterior - other.log_posterior < RIVAL and other.step < 0.1:
            found.append(other)
    return np.array([e.x for e in found[1:]]).reshape(-1, len(best.parameters))
