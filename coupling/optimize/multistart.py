"""Cheap models: global search from many starts, and the judgement of one point by one solve."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from coupling.contract import Array, Model, checked_evaluation, describe
from coupling.optimize.frame import Frame
from coupling.optimize.solution import Optimum
from coupling.optimize.subproblem import Subproblem
from coupling.optimize.task import Task

ENOUGH = 1e-12
"""Accuracy of the objective over its slope: half the digits of the point."""


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
    if starts < 1:
        raise ValueError(f"starts is {starts}, expected at least 1")
    frame = _frame(task, model)
    if not frame.size:
        raise ValueError("every parameter is fixed; nothing is left to vary")
    points = np.random.default_rng(seed).uniform(size=(starts, frame.size))
    first = [checked_evaluation(model, frame.physical(z))[1] for z in points]
    frame.calibrate(np.array(first))
    inside = Inside(model, frame)
    best = Subproblem(inside, frame.limits.equal, np.full(frame.size, 0.5), 0.5, ENOUGH).solve(points)[0]
    x = frame.physical(best.z)
    y, jacobian = checked_evaluation(model, x)
    assert jacobian is not None
    return frame.judged(x, y, jacobian, tolerance)


def certify(model: Model, predicted: Optimum, *, tolerance: float | None = None) -> Optimum:
    """Judge an optimum of another model by one solve with its Jacobian. Collective on the model's communicator.

    Args:
        model: The model to trust.
        predicted: What `search` found on a surrogate.
        tolerance: Violation and residual up to which it counts; by default as it was.

    Raises:
        ValueError: If names differ, or the point lies out of the model's bounds.
    """
    frame = _frame(predicted.task, model)
    for kind, ours, theirs in (
        ("parameters", predicted.parameters, frame.parameters),
        ("responses", predicted.responses, frame.responses),
    ):
        if ours != theirs:
            raise ValueError(f"the optimum has {kind} {ours}, but the model has {theirs}")
    for name, value, low, width in zip(frame.parameters, predicted.x, frame.low, frame.span, strict=True):
        if not low - 1e-9 * width <= value <= low + (1.0 + 1e-9) * width:
            raise ValueError(
                f"the optimum has {name} = {value:g}, outside the model's bounds [{low:g}, {low + width:g}]"
            )
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
    frame = _frame(other.task, model)
    frame.calibrate_as(other)
    return frame.judged(x, y, jacobian, other.tolerance)


class Inside:
    """A model as objective and margins of scaled free inputs."""

    def __init__(self, model: Model, frame: Frame) -> None:
        self._model, self._frame = model, frame

    def __call__(self, z: Array) -> tuple[float, Array, Array, Array]:
        """Objective, its slope (n,), margins (c,) and their slopes (c, n) at z (n,)."""
        frame = self._frame
        y, jacobian = checked_evaluation(self._model, frame.physical(z))
        assert jacobian is not None
        slopes = jacobian[np.ix_(frame.used, frame.free)] * frame.span[frame.free]
        rows = (frame.limits.sign / frame.slopes[frame.limits.index])[:, None] * slopes[frame.limits.index]
        return frame.objective(y), frame.weights @ slopes / frame.slope, frame.margins(y), rows


def _frame(task: Task, model: Model) -> Frame:
    about = describe(model)
    return Frame(task, about.parameters, about.responses, about.bounds)
