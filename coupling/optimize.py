"""Optimize any model with its exact derivatives, and let a finite-element model judge a surrogate's optimum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import scipy.optimize

from coupling.contract import Array, Model, checked_evaluation
from coupling.correction import Corrected

FEASIBLE = 1e-5
"""Violation of a limit, relative to the limit, up to which a point counts as meeting it."""

OPTIMAL = 1e-3
"""Unbalanced part of the objective's gradient up to which a point counts as an optimum."""

ACTIVE = 1e-4
"""Distance from a limit or a bound, in scaled units, at which it takes part in the optimality conditions."""


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
        violation: Largest violation of a limit, relative to the limit; 0 inside.
        optimality: Relative size of the objective's gradient that no active limit or bound balances; 0 at an optimum.
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
    """

    predicted: Optimum
    confirmed: Optimum
    error: Array
    jacobian: Array

    @property
    def certified(self) -> bool:
        """Whether the model itself finds the point feasible and optimal."""
        return self.confirmed.feasible and self.confirmed.optimality <= OPTIMAL


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
        starts: The middle of the box first, then random points of it.
        seed: Seed of the random points.

    Returns:
        The best feasible point found; if there is none, the one that violates the limits least.

    Raises:
        ValueError: If a name is unknown, a fixed value out of bounds, or nothing is left to vary.
    """
    task = Task(objective, dict(at_most or {}), dict(at_least or {}), dict(fixed or {}))
    problem = _Scaled(model, task)
    if starts < 1:
        raise ValueError(f"starts is {starts}, expected at least 1")
    rng = np.random.default_rng(seed)
    points = [np.full(problem.size, 0.5), *rng.uniform(size=(starts - 1, problem.size))]
    candidates = [problem.descend(problem.physical(point)) for point in points]
    best = min(candidates, key=lambda o: (0.0, o.objective) if o.feasible else (o.violation, o.objective))
    return replace(best, evaluations=candidates[-1].evaluations)


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
    y, jacobian = checked_evaluation(model, predicted.x)
    assert jacobian is not None
    confirmed = _Scaled(model, predicted.task).judged(predicted.x, y, jacobian, "evaluated by the model")
    scale = np.maximum(np.abs(y), np.finfo(float).tiny)
    return Certificate(predicted, replace(confirmed, evaluations=1), (predicted.y - y) / scale, jacobian)


def improve(certificate: Certificate, surrogate: Model, model: Model, *, solves: int = 4) -> list[Certificate]:
    """Walk from a surrogate's optimum to one of the model, a solve a step.

    Each step corrects the surrogate to first order by the model's answer at the last point, and minimizes again
    from there. It has no safeguard: where the surrogate is poor it may not arrive, and says so.

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
        path.append(certify(_Scaled(corrected, task).descend(last.confirmed.x), model))
    return path


class _Scaled:
    """A task on a model in scaled units: free inputs in [0, 1], limits relative to themselves."""

    def __init__(self, model: Model, task: Task) -> None:
        self._model, self._task = model, task
        self._names = tuple(model.responses)
        parameters = tuple(model.parameters)
        _require_known([task.objective, *task.at_most, *task.at_least], self._names, "response")
        _require_known(task.fixed, parameters, "parameter")
        low, high = np.asarray(model.bounds, dtype=np.float64).T
        for name, value in task.fixed.items():
            i = parameters.index(name)
            if not low[i] <= value <= high[i]:
                raise ValueError(f"{name!r} is fixed at {value:g}, outside its bounds [{low[i]:g}, {high[i]:g}]")
        _require_sense(task)
        self._free = np.array([name not in task.fixed for name in parameters])
        if not self._free.any():
            raise ValueError("every parameter is fixed; nothing is left to vary")
        self._low, self._span = low[self._free], (high - low)[self._free]
        self._x = np.array([task.fixed.get(name, 0.0) for name in parameters])
        self._limits = [(self._names.index(n), v, -1.0) for n, v in task.at_most.items()]
        self._limits += [(self._names.index(n), v, 1.0) for n, v in task.at_least.items()]
        self._cached: tuple[Array, Array, Array] | None = None
        self._evaluations = 0
        self.size = int(self._free.sum())

    def physical(self, z: Array) -> Array:
        """The full point (n,) in physical units of scaled free inputs (size,)."""
        x = self._x.copy()
        x[self._free] = self._low + np.clip(z, 0.0, 1.0) * self._span
        return x

    def _at(self, x: Array) -> tuple[Array, Array]:
        """Responses (m,) and Jacobian (m, n) at a full point; the last point is remembered."""
        if self._cached is None or not np.array_equal(self._cached[0], x):
            y, jacobian = checked_evaluation(self._model, x)
            assert jacobian is not None
            self._evaluations += 1
            self._cached = (x, y, jacobian)
        return self._cached[1:]

    def _evaluate(self, z: Array) -> tuple[Array, Array]:
        """Responses (m,) and their derivative by the scaled inputs (m, size)."""
        y, jacobian = self._at(self.physical(z))
        return y, jacobian[:, self._free] * self._span

    def descend(self, start: Array) -> Optimum:
        """One run of SLSQP from a full point x (n,) in physical units."""
        start = (start[self._free] - self._low) / self._span
        which = self._names.index(self._task.objective)
        y, slope = self._evaluate(start)
        scale = max(abs(y[which]), float(np.abs(slope[which]).max()), np.finfo(float).tiny)
        constraints = [
            {"type": "ineq", "fun": self._margin(limit), "jac": self._margin_slope(limit)} for limit in self._limits
        ]
        result = scipy.optimize.minimize(
            lambda z: (self._evaluate(z)[0][which] / scale, self._evaluate(z)[1][which] / scale),
            start,
            jac=True,
            bounds=[(0.0, 1.0)] * self.size,
            constraints=constraints,
            method="SLSQP",
            options={"ftol": 1e-10, "maxiter": 200},
        )
        x = self.physical(result.x)
        return replace(self.judged(x, *self._at(x), str(result.message)), evaluations=self._evaluations)

    def _margin(self, limit: tuple[int, float, float]) -> Callable[[Array], float]:
        index, value, sign = limit
        return lambda z: float(sign * (self._evaluate(z)[0][index] - value) / _size(value))

    def _margin_slope(self, limit: tuple[int, float, float]) -> Callable[[Array], Array]:
        index, value, sign = limit
        return lambda z: sign * self._evaluate(z)[1][index] / _size(value)

    def judged(self, x: Array, y: Array, jacobian: Array, message: str) -> Optimum:
        """A point (n,) with its responses (m,) and Jacobian (m, n), judged by limits and optimality."""
        z = (x[self._free] - self._low) / self._span
        slope = jacobian[:, self._free] * self._span
        margins = np.array([sign * (y[i] - value) / _size(value) for i, value, sign in self._limits])
        rows = [sign * slope[i] / _size(value) for i, value, sign in self._limits]
        active = [row for row, margin in zip(rows, margins, strict=True) if margin < ACTIVE]
        active += [np.eye(self.size)[i] for i in np.flatnonzero(z < ACTIVE)]
        active += [-np.eye(self.size)[i] for i in np.flatnonzero(z > 1 - ACTIVE)]
        return Optimum(
            task=self._task,
            parameters=tuple(self._model.parameters),
            responses=self._names,
            x=x,
            y=y,
            violation=float(np.maximum(-margins, 0.0).max(initial=0.0)),
            optimality=_unbalanced(slope[self._names.index(self._task.objective)], active),
            evaluations=0,
            message=message,
        )


def _unbalanced(gradient: Array, active: list[Array]) -> float:
    """Relative part of a gradient that no non-negative combination of active constraints' gradients balances."""
    size = float(np.linalg.norm(gradient))
    if size == 0.0:
        return 0.0
    if not active:
        return 1.0
    _, rest = scipy.optimize.nnls(np.column_stack(active), gradient)
    return float(rest) / size


def _size(limit: float) -> float:
    return abs(limit) if limit else 1.0


def _require_sense(task: Task) -> None:
    for name, value in (*task.at_most.items(), *task.at_least.items()):
        if not np.isfinite(value):
            raise ValueError(f"the limit of {name!r} is {value}, expected a finite number")
    for name in task.at_most.keys() & task.at_least.keys():
        if task.at_most[name] < task.at_least[name]:
            raise ValueError(
                f"limits contradict: {name!r} at most {task.at_most[name]:g} and at least {task.at_least[name]:g}"
            )


def _require_known(names: Mapping[str, float] | list[str], known: tuple[str, ...], kind: str) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"unknown {kind} {', '.join(map(repr, unknown))}; there are: {', '.join(known)}")
