"""The subproblem: the best point of a trust region by a cheap prediction, under predicted limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.optimize

from sobofem.coupling.contract import Array
from sobofem.coupling.optimize.scaled_task import Mask, excess

Margins = Callable[[Array], tuple[float, Array, Array, Array]]
"""Maps free inputs (n,) to objective, its slope (n,), margins (c,) and their slopes (c, n)."""

SLACK = 1e-9
"""Predicted violation that counts as none."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """Where a subproblem ended.

    Attributes:
        z: The point (n,).
        objective: Predicted there.
        excess: Sum of predicted violations.
    """

    z: Array
    objective: float
    excess: float


@dataclass(frozen=True, eq=False)
class Subproblem:
    """Minimize a prediction within a trust region.

    Attributes:
        predict: Objective, margins and their slopes.
        equal: Which margins are equations (c,).
        center: Of the trust region (n,).
        radius: Half its width, in the maximum norm.
        accuracy: Of the objective, over its slope.
        within: Bounds of the inputs (n, 2), by default of the unit box.
    """

    predict: Margins
    equal: Mask
    center: Array
    radius: float
    accuracy: float = 1e-21
    within: Array | None = None

    def solve(self, starts: Array) -> list[Candidate]:
        """Local optima reached from some points (s, n), best first; those that meet the limits before all others.

        Where no point of the region meets them, the least violation is found first, and then the least objective that
        does not violate any limit more.
        """
        ends = []
        for start in np.clip(starts, *self._box.T):
            end = self._descend(start, None)
            if end.excess > SLACK:
                near = self._restored(end.z if end.excess < self.at(start).excess else start)
                end = near if near.excess > SLACK and not self._improves(near) else self._descend(near.z, near)
            ends.append(end)
        return sorted(ends, key=lambda end: (max(end.excess - SLACK, 0.0), end.objective))

    @property
    def _box(self) -> Array:
        least, most = (0.0, 1.0) if self.within is None else self.within.T
        low = np.maximum(self.center - self.radius, least)
        return np.stack([low, np.maximum(np.minimum(self.center + self.radius, most), low)], axis=1)

    def at(self, z: Array) -> Candidate:
        """What is predicted at a point (n,)."""
        objective, _, margins, _ = self.predict(z)
        return Candidate(z, objective, excess(margins, self.equal))

    def _improves(self, near: Candidate) -> bool:
        return near.excess < self.at(self.center).excess

    def _descend(self, start: Array, relaxed: Candidate | None) -> Candidate:
        """Sequential quadratic programming in steps of the radius; limits relaxed by what a point violates them."""
        slack = np.zeros(len(self.equal))
        if relaxed is not None:
            slack = self.predict(relaxed.z)[2]
            slack = np.where(self.equal, slack, np.minimum(slack, 0.0))
        memory = _Memory(self.predict, self.center, self.radius, slack)
        size = float(np.linalg.norm(memory.at(np.zeros_like(start))[1])) or 1.0
        limits = [
            {"type": kind, "fun": lambda t, w=which: memory.at(t)[2][w], "jac": lambda t, w=which: memory.at(t)[3][w]}
            for kind, which in (("ineq", ~self.equal), ("eq", self.equal))
            if which.any()
        ]
        found = scipy.optimize.minimize(
            lambda t: (memory.at(t)[0] / size, memory.at(t)[1] / size),
            (start - self.center) / self.radius,
            jac=True,
            bounds=(self._box - self.center[:, None]) / self.radius,
            constraints=limits,
            method="SLSQP",
            options={"ftol": self.accuracy, "maxiter": 100},
        )
        if not np.isfinite(found.x).all():
            return self.at(start)
        return self.at(np.clip(self.center + self.radius * found.x, *self._box.T))

    def _restored(self, start: Array) -> Candidate:
        """The least sum of squared violations near a point."""
        memory = _Memory(self.predict, self.center, self.radius, np.zeros(len(self.equal)))

        def squares(t: Array) -> tuple[float, Array]:
            _, _, margins, rows = memory.at(t)
            over = np.where(self.equal, margins, np.minimum(margins, 0.0))
            return 0.5 * float(over @ over), over @ rows

        found = scipy.optimize.minimize(
            squares,
            (start - self.center) / self.radius,
            jac=True,
            bounds=(self._box - self.center[:, None]) / self.radius,
            method="L-BFGS-B",
            options={"ftol": 1e-15, "gtol": 1e-12, "maxiter": 200},
        )
        return self.at(np.clip(self.center + self.radius * found.x, *self._box.T))


class _Memory:
    """The last prediction in steps of the radius about the center, for SciPy, which asks for each part by itself."""

    def __init__(self, predict: Margins, center: Array, radius: float, slack: Array) -> None:
        self._predict, self._center, self._radius, self._slack = predict, center, radius, slack
        self._at, self._last = b"", (0.0, center, slack, center)  # of no point yet

    def at(self, t: Array) -> tuple[float, Array, Array, Array]:
        """Objective, slope (n,), margins (c,) and slopes (c, n) at a step t (n,)."""
        if (point := t.tobytes()) != self._at:  # SciPy asks four times a point: comparing arrays takes longer
            f, g, c, rows = self._predict(self._center + self._radius * t)
            self._at, self._last = point, (f, g * self._radius, c - self._slack, rows * self._radius)
        return self._last
