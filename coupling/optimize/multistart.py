"""Cheap models: global search from many starts, and the judgement of one point by one solve."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sobofem.coupling.contract import Array, Model, describe
from sobofem.coupling.models.evaluation import checked_evaluation
from sobofem.coupling.models.matching import require_inside, require_same_names
from sobofem.coupling.optimize.scaled_task import ScaledTask
from sobofem.coupling.optimize.solution import Optimum
from sobofem.coupling.optimize.subproblem import Subproblem
from sobofem.coupling.optimize.task import Task

OBJECTIVE_ACCURACY = 1e-12
"""Accuracy of the objective over its slope: half the digits of the point."""

APART = 1e-3
"""Distance, as a share of the box, from which on two optima are two."""


def search(model: Model, task: Task, *, starts: int = 16, seed: int = 0, tolerance: float = 1e-6) -> Optimum:
    """The best optimum of a cheap model, such as a surrogate, by sequential quadratic programming from many starts.

    Args:
        model: Evaluated some hundred times a start.
        task: What to minimize, under which limits; without discrete parameters.
        starts: Number of random points of the box to start from.
        seed: Seed of these points.
        tolerance: Of the judgement.

    Returns:
        The best feasible point found; if there is none, the one that violates the limits least. That is what this
        model says: `certify` asks another one.

    Raises:
        ValueError: If the task does not fit the model, or starts is not positive.
    """
    return search_all(model, task, starts=starts, seed=seed, tolerance=tolerance)[0]


def search_all(
    model: Model, task: Task, *, starts: int = 16, seed: int = 0, tolerance: float = 1e-6
) -> tuple[Optimum, ...]:
    """All optima of a cheap model that `search` ends at, the best first: arguments as there.

    Each is a start for `minimize` on the model that is trusted. Those that are no optima by the tolerance are left out,
    but for the first.
    """
    if starts < 1:
        raise ValueError(f"starts is {starts}, expected at least 1")
    scaled = _scaled(task, model)
    if not scaled.size:
        raise ValueError("every parameter is fixed; nothing is left to vary")
    points = np.random.default_rng(seed).uniform(size=(starts, scaled.size))
    first = [checked_evaluation(model, scaled.physical(z))[1] for z in points]
    scaled.calibrate(np.array(first))
    inside = Inside(model, scaled)
    ends = Subproblem(inside, scaled.limits.equal, np.full(scaled.size, 0.5), 0.5, OBJECTIVE_ACCURACY).solve(points)
    found: list[Optimum] = []
    for end in ends:
        x = scaled.physical(end.z)
        if any(np.abs(scaled.unit(x) - scaled.unit(other.x)).max() <= APART for other in found):
            continue
        y, jacobian = checked_evaluation(model, x)
        assert jacobian is not None
        judged = scaled.judged(x, y, jacobian, tolerance)
        found += [judged] if judged.certified or not found else []
    return tuple(found)


def certify(model: Model, predicted: Optimum, *, tolerance: float | None = None) -> Optimum:
    """Judge an optimum of another model by one solve with its Jacobian. Collective on the model's communicator.

    Args:
        model: The model to trust.
        predicted: What `search` found on a surrogate.
        tolerance: Violation and residual up to which it counts; by default as it was.

    Raises:
        ValueError: If names differ, or the point lies out of the model's bounds.
    """
    require_same_names("the optimum", predicted, model)
    require_inside("the optimum", predicted.parameters, predicted.x, model.bounds)
    y, jacobian = checked_evaluation(model, predicted.x)
    assert jacobian is not None
    found = judged_as(predicted, model, predicted.x, y, jacobian)
    return found if tolerance is None else replace(found, tolerance=tolerance)


def judged_as(other: Optimum, model: Model, x: Array, y: Array, jacobian: Array) -> Optimum:
    """Another point of the same task by the same measure: what a certificate would say of it.

    Args:
        other: An optimum, whose task, sizes and tolerance are taken.
        model: For its names and bounds.
        x: A point (n,).
        y: Responses there (m,).
        jacobian: Their derivatives (m, n).
    """
    scaled = _scaled(other.task, model)
    scaled.calibrate_as(other)
    return scaled.judged(x, y, jacobian, other.tolerance)


class Inside:
    """A model as objective and margins of scaled free inputs."""

    def __init__(self, model: Model, scaled: ScaledTask) -> None:
        self._model, self._frame = model, scaled

    def __call__(self, z: Array) -> tuple[float, Array, Array, Array]:
        """Objective, its slope (n,), margins (c,) and their slopes (c, n) at z (n,)."""
        scaled = self._frame
        y, jacobian = checked_evaluation(self._model, scaled.physical(z))
        assert jacobian is not None
        slopes = jacobian[np.ix_(scaled.used, scaled.free)] * scaled.span[scaled.free]
        rows = (scaled.limits.sign / scaled.slopes[scaled.limits.index])[:, None] * slopes[scaled.limits.index]
        return scaled.objective(y), scaled.weights @ slopes / scaled.slope, scaled.margins(y), rows


def _scaled(task: Task, model: Model) -> ScaledTask:
    about = describe(model)
    return ScaledTask(task, about.parameters, about.responses, about.bounds)
