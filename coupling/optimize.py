"""Optimize any model with its exact derivatives, and let a finite-element model judge a surrogate's optimum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from coupling.contract import Model, SampleFailure
from coupling.correction import Corrected
from coupling.optimum import Certificate, Optimum, Task
from coupling.scaled_task import ScaledTask


def minimize(
    model: Model,
    objective: str,
    *,
    at_most: Mapping[str, float] | None = None,
    at_least: Mapping[str, float] | None = None,
    fixed: Mapping[str, float] | None = None,
    starts: int = 1,
    seed: int = 0,
) -> Optimum:
    """Minimize one response under limits on others, by sequential quadratic programming from several starts.

    Args:
        model: Any model: a surrogate (cheap, so give many starts) or a finite-element problem.
        objective: Name of the response to minimize.
        at_most: Upper limits of responses, by name, in their units.
        at_least: Lower limits of responses, by name, in their units.
        fixed: Parameters that keep a value, by name, in their units.
        starts: Number of random points of the box to start from.
        seed: Seed of these points.

    Returns:
        The best feasible point found; if there is none, the one that violates the limits least.

    Raises:
        ValueError: If a name is unknown, a fixed value out of bounds, or nothing is left to vary.
    """
    task = Task(objective, dict(at_most or {}), dict(at_least or {}), dict(fixed or {}))
    problem = ScaledTask(model, task)
    if starts < 1:
        raise ValueError(f"starts is {starts}, expected at least 1")
    rng = np.random.default_rng(seed)
    ends = [problem.descend(problem.physical(point)) for point in rng.uniform(size=(starts, problem.size))]
    candidates = [problem.judged(x, *problem.at(x), message) for x, message in ends]
    return min(candidates, key=lambda o: (0.0, o.objective) if o.feasible else (o.violation, o.objective))


def certify(predicted: Optimum, model: Model) -> Certificate:
    """Evaluate a surrogate's optimum with the model behind it: one solve with its Jacobian.

    Args:
        predicted: What `minimize` found on the surrogate.
        model: The model to trust, with the same parameters and responses.

    Raises:
        ValueError: If names differ.
    """
    for kind, ours, theirs in (
        ("parameters", predicted.parameters, tuple(model.parameters)),
        ("responses", predicted.responses, tuple(model.responses)),
    ):
        if ours != theirs:
            raise ValueError(f"the optimum has {kind} {ours}, but the model has {theirs}")
    problem = ScaledTask(model, predicted.task, steepest=predicted.steepest)
    for name, value, (low, high) in zip(predicted.parameters, predicted.x, np.asarray(model.bounds), strict=True):
        if not low - 1e-9 * (high - low) <= value <= high + 1e-9 * (high - low):
            raise ValueError(f"the optimum has {name} = {value:g}, outside the model's bounds [{low:g}, {high:g}]")
    y, jacobian = problem.at(predicted.x)
    confirmed = problem.judged(predicted.x, y, jacobian, "evaluated by the model")
    scale = np.maximum(np.abs(y), np.finfo(float).tiny)
    return Certificate(predicted, confirmed, (predicted.y - y) / scale, jacobian)


def improve(certificate: Certificate, surrogate: Model, model: Model, *, solves: int = 4) -> list[Certificate]:
    """Walk from a surrogate's optimum to one of the model, a solve a step.

    Each step corrects the surrogate to first order by the model's answer at the last point, and minimizes again
    from there. It has no safeguard: where the surrogate is poor it may not arrive, and where the model has no answer
    the way ends; the last certificate tells.

    Args:
        certificate: Where to start.
        surrogate: The surrogate that found it.
        model: The model to trust.
        solves: Solves that may be spent; it ends earlier at a certified optimum.

    Returns:
        The certificates on the way, the given one first; the last is certified if any is.
    """
    path, task = [certificate], certificate.predicted.task
    while not path[-1].certified and len(path) <= solves:
        last = path[-1]
        corrected = Corrected.at(surrogate, last.confirmed.x, last.confirmed.y, last.jacobian)
        problem = ScaledTask(corrected, task, steepest=last.confirmed.steepest)
        x, message = problem.descend(last.confirmed.x)
        try:
            path.append(certify(problem.judged(x, *problem.at(x), message), model))
        except Exception as error:
            if not isinstance(error, SampleFailure):
                raise
            path[-1] = replace(last, note=f"the model has no answer at the next point: {error.reason}")
            break
    return path


__all__ = ["Certificate", "Optimum", "Task", "certify", "improve", "minimize"]
