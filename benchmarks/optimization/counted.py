"""A model that counts: solves are remembered, and each costs once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from sobofem.coupling.contract import Array, Model
from sobofem.coupling.models.evaluation import checked_evaluation

Watch = Callable[[Array, Array, Array, bool], None]
"""Told of a point x (n,), its responses (m,) and Jacobian (m, n), and whether it had to be solved."""


class Spent(Exception):
    """The budget of solves is."""


class Counted:
    """A model whose every new point is a solve: the value and the Jacobian of all responses; known points are free.

    Args:
        model: The expensive one.

    Attributes:
        last: The point (n,) that was asked for last.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self.parameters, self.responses, self.bounds = model.parameters, model.responses, model.bounds
        self._known: dict[bytes, tuple[Array, Array]] = {}
        self._seen: set[bytes] = set()
        self._left = 0
        self._watch: Watch | None = None
        self.last: Array | None = None

    def begin(self, budget: int, watch: Watch) -> None:
        """Begin a task.

        Args:
            budget: Points that may be solved.
            watch: Told of each point when the task asks for it first.
        """
        self._left, self._watch, self._seen = budget, watch, set()

    def peek(self, x: ArrayLike) -> tuple[Array, Array]:
        """Responses (m,) and Jacobian (m, n), not counted: for judges."""
        x = np.array(x, dtype=np.float64)
        return self._known.get(x.tobytes()) or self._solved(x)

    def evaluate(self, x: ArrayLike, *, jacobian: bool = True) -> tuple[Array, Array]:
        """Responses (m,) and Jacobian (m, n).

        Raises:
            Spent: If the point is new, and the budget is spent.
        """
        x = np.array(x, dtype=np.float64)
        key = x.tobytes()
        self.last, new = x, key not in self._known
        if new:
            if not self._left:
                raise Spent
            self._left -= 1
            self._known[key] = self._solved(x)
        if key not in self._seen:
            self._seen.add(key)
            if self._watch is not None:
                self._watch(x, *self._known[key], new)
        return self._known[key]

    def _solved(self, x: Array) -> tuple[Array, Array]:
        y, slopes = checked_evaluation(self._model, x)
        assert slopes is not None
        return y, slopes
