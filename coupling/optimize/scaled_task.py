"""A task in scaled units: inputs in the unit box, responses over their slopes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sobofem.coupling.contract import Array
from sobofem.coupling.optimize.balance import Balance, balance
from sobofem.coupling.optimize.solution import Optimum
from sobofem.coupling.optimize.task import Task

Mask = NDArray[np.bool_]

FLAT_SLOPE_SHARE = 1e-3
"""Share of a response's usual slope below which its slope at a point says nothing of the distance to a limit."""

FLATTER = 1e-2
"""Share of a limit's usual slope below which its slope and distance make another one the usual one."""

NEARBY = 0.1
"""Distance, as a share of the box, at which a limit far steeper than usual is measured by its slope there, once."""

ALIKE = 1e-10
"""Distance, as a share of the box, at which two points are one."""

SMALL = 1e-2
"""Least objective, as a share of its usual slope per width of the box, that gains are compared with."""


@dataclass(frozen=True, eq=False)
class Limits:
    """Limits in scaled units: margins sign · (y − value) ≥ 0 of some responses, or equations y = value.

    Attributes:
        index: Which of the task's responses (c,).
        sign: 1 for a lower limit, −1 for an upper one (c,).
        value: The limits (c,), in the response's units.
        equal: Which are equations (c,).
    """

    index: NDArray[np.intp]
    sign: Array
    value: Array
    equal: Mask


class ScaledTask:
    """A task on a model: which inputs vary, which responses matter, and what is large.

    Scaled inputs are the free ones, in [0, 1]; scaled responses those that the task needs, over their reference slope
    per width of the box.

    Args:
        task: What to do; without discrete parameters.
        parameters: Names of the model's n inputs.
        responses: Names of its m responses.
        bounds: Its box (n, 2).
    """

    def __init__(self, task: Task, parameters: tuple[str, ...], responses: tuple[str, ...], bounds: Array) -> None:
        task.check(parameters, responses, bounds)
        self.task, self.parameters, self.responses = task, parameters, responses
        self.low, self.span = bounds[:, 0], bounds[:, 1] - bounds[:, 0]
        self.free = np.flatnonzero([name not in task.fixed for name in parameters])
        self._x = np.array([task.fixed.get(name, 0.0) for name in parameters])
        self.used = np.flatnonzero([task.needs(name) for name in responses])
        names = [responses[i] for i in self.used]
        self.weights = np.array([task.weights.get(name, 0.0) for name in names])
        self.limits = _limits(task, names)
        self.slopes = np.ones(len(self.used))
        self.slope = 1.0
        self.steepened: set[int] = set()  # responses whose limits were found steeper: each once, so that it ends

    @property
    def size(self) -> int:
        """Number of free inputs."""
        return len(self.free)

    def calibrate(self, jacobians: Array) -> None:
        """Take the medians over some samples' slopes as the sizes of the responses and of the objective.

        Args:
            jacobians: (N, m, n), in physical units.
        """
        scaled = jacobians[:, self.used][:, :, self.free] * self.span[self.free]
        found = np.median(np.linalg.norm(scaled, axis=2), axis=0)
        self.slopes = np.where(found > 0.0, found, self._limits_size())
        objective = float(np.median(self.objective_slopes(jacobians)))
        self.slope = objective or float(np.abs(self.weights) @ self.slopes)
        self.steepened = set()

    def objective_slopes(self, jacobians: Array) -> Array:
        """How steep the objective is at some samples (N,), per width of the box, by their Jacobians (N, m, n)."""
        scaled = jacobians[:, self.used][:, :, self.free] * self.span[self.free]
        return np.asarray(np.linalg.norm(np.einsum("r,Nrj->Nj", self.weights, scaled), axis=1))

    def rescale(self, y: Array, jacobian: Array) -> bool:
        """Measure limits by their slopes here, where they are near and far flatter or steeper than usual.

        A product of powers may change its slope by many orders of magnitude between the start and its limit. In units
        of its usual slope a flatter one would look met where it is not, and a steeper one outweigh all else.

        Args:
            y: Responses (m,).
            jacobian: (m, n).

        Returns:
            Whether there are any; then all that was in the old units counts no more.
        """
        limits, steep = self.limits, np.linalg.norm(self.scaled_jacobian(jacobian), axis=1)
        usual, off = self.slopes[limits.index], np.abs(y[self.used][limits.index] - limits.value)
        local = np.maximum(steep[limits.index], off)
        flat = (steep[limits.index] > 0.0) & (local < FLATTER * usual)
        steeper = (FLATTER * steep[limits.index] > usual) & (off <= NEARBY * steep[limits.index])
        steeper &= ~np.isin(limits.index, list(self.steepened))
        if not (flat | steeper).any():
            return False
        slopes = self.slopes.copy()
        np.minimum.at(slopes, limits.index[flat], np.maximum(local, FLAT_SLOPE_SHARE * usual)[flat])
        slopes[limits.index[steeper]] = steep[limits.index[steeper]]
        self.steepened |= set(limits.index[steeper].tolist())
        self.slopes = slopes
        return True

    def _limits_size(self) -> Array:
        """Magnitude of the limits of each used response, 1 without: what one that nothing moves is measured by."""
        sizes = np.zeros(len(self.used))
        np.maximum.at(sizes, self.limits.index, np.abs(self.limits.value))
        return np.where(sizes > 0.0, sizes, 1.0)

    def calibrate_as(self, other: Optimum) -> None:
        """Take the sizes that another point of the same task was judged by."""
        self.slopes = np.array([other.slopes[self.responses[i]] for i in self.used])
        self.slope = other.slope

    def physical(self, z: Array) -> Array:
        """The full point (n,) in physical units of scaled free inputs."""
        x = self._x.copy()
        x[self.free] = self.low[self.free] + np.clip(z, 0.0, 1.0) * self.span[self.free]
        high = self.low[self.free] + self.span[self.free]
        x[self.free] = np.where(z >= 1.0, high, x[self.free])
        return x

    def unit(self, x: Array) -> Array:
        """All inputs (..., n) in the unit box."""
        return (x - self.low) / self.span

    def same(self, x: Array, other: Array) -> bool:
        """Whether two points (n,) are one, to round-off."""
        return bool(np.abs(self.unit(x) - self.unit(other)).max() <= ALIKE)

    def on_task(self, x: Array) -> bool:
        """Whether a point (n,) has the fixed values, to round-off."""
        held = np.ones(len(x), dtype=np.bool_)
        held[self.free] = False
        return bool((np.abs(x - self._x)[held] <= 1e-9 * self.span[held]).all())

    def objective(self, y: Array) -> float:
        """The scaled objective of responses (m,)."""
        return float(self.weights @ y[self.used]) / self.slope

    def unit_of_gain(self, y: Array) -> float:
        """What a slope of the objective is compared with: its usual slope, or the objective itself where that is less.

        Then a residual of 1e-6 leaves, to first order, no more to gain than a millionth of the objective.
        """
        return min(self.slope, max(abs(float(self.weights @ y[self.used])), SMALL * self.slope))

    def margins(self, y: Array) -> Array:
        """Scaled margins of the limits (c,), negative where violated; of equations, the difference."""
        limits = self.limits
        return limits.sign * (y[self.used][limits.index] - limits.value) / self.slopes[limits.index]

    def excess(self, y: Array) -> float:
        """Sum of scaled violations."""
        return excess(self.margins(y), self.limits.equal)

    def scaled_jacobian(self, jacobian: Array) -> Array:
        """Slopes (r, free) of the used responses per width of the box, in their units."""
        return jacobian[np.ix_(self.used, self.free)] * self.span[self.free]

    def local_limits(self, y: Array, jacobian: Array) -> tuple[Array, Array]:
        """Slopes (c, free) of the limits' margins, and margins (c,), as distances in the box to first order."""
        return self._local_limits(y, self.scaled_jacobian(jacobian))

    def _local_limits(self, y: Array, slopes: Array) -> tuple[Array, Array]:
        """The same of scaled slopes (r, free)."""
        limits, local = self.limits, self._steepness(slopes)
        margins = limits.sign * (y[self.used][limits.index] - limits.value) / local
        return (limits.sign / local)[:, None] * slopes[limits.index], margins

    def balance(self, x: Array, y: Array, jacobian: Array) -> tuple[Balance, Array]:
        """Optimality of a point, and how far, to first order, it is from meeting each limit (c,)."""
        equal, slopes = self.limits.equal, self.scaled_jacobian(jacobian)
        rows, margins = self._local_limits(y, slopes)
        gradient = self.weights @ slopes / self.unit_of_gain(y)
        found = balance(self.unit(x)[self.free], gradient, margins, rows, equal)
        multipliers = found.multipliers * self.unit_of_gain(y) / self._steepness(slopes)
        return Balance(found.residual, multipliers), _violations(margins, equal)

    def violation(self, y: Array, jacobian: Array) -> float:
        """How far, to first order, a point is from meeting every limit: as `balance` says it."""
        return float(_violations(self.local_limits(y, jacobian)[1], self.limits.equal).max(initial=0.0))

    def lagrangian_slope(self, at: tuple[Array, Array, Array], of: tuple[Array, Array, Array]) -> Array:
        """Slope (free,) at a point of the objective less the limits, weighed by the multipliers of another point.

        Args:
            at: x (n,), y (m,) and Jacobian (m, n) where the slope is wanted.
            of: The same where the multipliers hold.
        """
        found: Array = self.lagrangian_weights(of)[self.used] @ self.scaled_jacobian(at[2])
        return found

    def lagrangian_weights(self, of: tuple[Array, Array, Array]) -> Array:
        """Weights (m,) of all responses in the objective less the limits, over what gains are compared with.

        Args:
            of: x (n,), y (m,) and Jacobian (m, n) where the multipliers hold.
        """
        limits, weights = self.limits, self.weights.copy()
        np.subtract.at(weights, limits.index, self.balance(*of)[0].multipliers * limits.sign)
        found = np.zeros(len(self.responses))
        found[self.used] = weights / self.unit_of_gain(of[1])
        return found

    def _steepness(self, slopes: Array) -> Array:
        """Slope of the limits (c,) that margins become distances by, of scaled slopes (r, free)."""
        steep = np.linalg.norm(slopes, axis=1)
        return np.maximum(steep, FLAT_SLOPE_SHARE * self.slopes)[self.limits.index]

    def judged(self, x: Array, y: Array, jacobian: Array, tolerance: float) -> Optimum:
        """A point (n,) with its responses (m,) and Jacobian (m, n), judged by limits and optimality."""
        found, violations = self.balance(x, y, jacobian)
        names = [self.responses[self.used[i]] for i in self.limits.index]
        return Optimum(
            task=self.task,
            parameters=self.parameters,
            responses=self.responses,
            x=x,
            y=y,
            jacobian=jacobian,
            violation=float(violations.max(initial=0.0)),
            violations=_largest(names, violations.tolist()),
            optimality=found.residual,
            multipliers=_largest(names, found.multipliers.tolist()),
            tolerance=tolerance,
            slope=self.slope,
            slopes={self.responses[i]: float(slope) for i, slope in zip(self.used, self.slopes, strict=True)},
        )


def _largest(names: list[str], multipliers: list[float]) -> dict[str, float]:
    """By response, of whose two limits at most one is active."""
    found: dict[str, float] = {}
    for name, value in zip(names, multipliers, strict=True):
        if abs(value) >= abs(found.get(name, 0.0)):
            found[name] = value
    return found


def excess(margins: Array, equal: Mask) -> float:
    """Sum of the violations of margins (c,), some of which are equations."""
    return float(_violations(margins, equal).sum())


def _violations(margins: Array, equal: Mask) -> Array:
    return np.where(equal, np.abs(margins), np.maximum(-margins, 0.0))


def _limits(task: Task, names: list[str]) -> Limits:
    """At most and at least of one value is one equation."""
    rows = []
    for name, value in task.at_least.items():
        rows.append((names.index(name), 1.0, value, task.at_most.get(name) == value))
    for name, value in task.at_most.items():
        if task.at_least.get(name) != value:
            rows.append((names.index(name), -1.0, value, False))
    return Limits(
        np.array([row[0] for row in rows], dtype=np.intp),
        np.array([row[1] for row in rows], dtype=np.float64),
        np.array([row[2] for row in rows], dtype=np.float64),
        np.array([row[3] for row in rows], dtype=np.bool_),
    )
