"""An optimization in scaled units: one descent, and the judgement of a point.

Inputs are scaled to the unit box. A violation is measured by how far away, to first order, the limit is met, as a share
of the box; what is left of the objective's slope, by the steepest one that the search met. Units and offsets of the
responses do not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import scipy.optimize

from coupling.contract import Array, Model, checked_evaluation
from coupling.optimum import Optimum, Task

ACTIVE = 1e-4
"""Distance from a limit or a bound, as a share of the box, at which it takes part in the optimality conditions."""


class ScaledTask:
    """A task on a model in scaled units: free inputs in [0, 1], responses over their steepest slope.

    Args:
        model: The model.
        task: What to do with it.
        steepest: Slopes (m,) that an earlier search met.
    """

    def __init__(self, model: Model, task: Task, *, steepest: Array | None = None) -> None:
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
        self._steepest = np.zeros(len(self._names)) if steepest is None else steepest.copy()
        self.size = int(self._free.sum())

    def physical(self, z: Array) -> Array:
        """The full point (n,) in physical units of scaled free inputs (size,)."""
        x = self._x.copy()
        x[self._free] = self._low + np.clip(z, 0.0, 1.0) * self._span
        return x

    def at(self, x: Array) -> tuple[Array, Array]:
        """Responses (m,) and Jacobian (m, n) at a full point; the last point is remembered."""
        if self._cached is None or not np.array_equal(self._cached[0], x):
            y, jacobian = checked_evaluation(self._model, x)
            assert jacobian is not None
            self._evaluations += 1
            self._cached = (x, y, jacobian)
            slopes = np.linalg.norm(jacobian[:, self._free] * self._span, axis=1)
            self._steepest = np.maximum(self._steepest, slopes)
        return self._cached[1:]

    def _evaluate(self, z: Array) -> tuple[Array, Array]:
        """Responses (m,) and their derivative by the scaled inputs (m, size)."""
        y, jacobian = self.at(self.physical(z))
        return y, jacobian[:, self._free] * self._span

    def descend(self, start: Array) -> tuple[Array, str]:
        """One run of SLSQP from a full point (n,); where it ended, (n,), and its last words."""
        z = (start[self._free] - self._low) / self._span
        which = self._names.index(self._task.objective)
        origin = self._evaluate(z)[0][which]
        scale = self._scale(which)
        result = scipy.optimize.minimize(
            lambda z: ((self._evaluate(z)[0][which] - origin) / scale, self._evaluate(z)[1][which] / scale),
            z,
            jac=True,
            bounds=[(0.0, 1.0)] * self.size,
            constraints=[
                {"type": "ineq", "fun": margin, "jac": slope} for margin, slope in map(self._constraint, self._limits)
            ],
            method="SLSQP",
            options={"ftol": 1e-10, "maxiter": 200},
        )
        return self.physical(result.x), str(result.message)

    def _scale(self, index: int) -> float:
        """Steepest slope of a response met so far; one for a response that does not vary."""
        return float(self._steepest[index]) or 1.0

    def _constraint(self, limit: tuple[int, float, float]) -> tuple[Callable[[Array], float], Callable[[Array], Array]]:
        """Scaled margin of a limit, and its slope."""
        index, value, sign = limit
        scale = self._scale(index)
        return (
            lambda z: float(sign * (self._evaluate(z)[0][index] - value) / scale),
            lambda z: sign * self._evaluate(z)[1][index] / scale,
        )

    def judged(self, x: Array, y: Array, jacobian: Array, message: str) -> Optimum:
        """A point (n,) with its responses (m,) and Jacobian (m, n), judged by limits and optimality."""
        z = (x[self._free] - self._low) / self._span
        slope = jacobian[:, self._free] * self._span
        local = [max(float(np.linalg.norm(slope[i])), 1e-3 * self._scale(i)) for i, *_ in self._limits]
        margins = np.array([s * (y[i] - value) / size for (i, value, s), size in zip(self._limits, local, strict=True)])
        rows = [s * slope[i] / size for (i, _, s), size in zip(self._limits, local, strict=True)]
        active = [row for row, margin in zip(rows, margins, strict=True) if margin < ACTIVE]
        active += [np.eye(self.size)[i] for i in np.flatnonzero(z < ACTIVE)]
        active += [-np.eye(self.size)[i] for i in np.flatnonzero(z > 1 - ACTIVE)]
        which = self._names.index(self._task.objective)
        return Optimum(
            task=self._task,
            parameters=tuple(self._model.parameters),
            responses=self._names,
            x=x,
            y=y,
            violation=float(np.maximum(-margins, 0.0).max(initial=0.0)),
            optimality=_unbalanced(slope[which] / self._scale(which), active),
            steepest=self._steepest.copy(),
            evaluations=self._evaluations,
            message=message,
        )


def _unbalanced(gradient: Array, active: list[Array]) -> float:
    """Size of what is left of a gradient after the best non-negative combination of active constraints' gradients."""
    if not active:
        return float(np.linalg.norm(gradient))
    _, rest = scipy.optimize.nnls(np.column_stack(active), gradient)
    return float(rest)


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
