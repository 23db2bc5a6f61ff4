"""Whether a state is still the one that was solved for: nobody says so who changes a constant or a function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import dolfinx
import numpy as np
from numpy.typing import ArrayLike
import ufl


class Fingerprint:
    """All that decides a state, and the state, as they were when it was found.

    Args:
        everything: Forms, whose constants and functions decide it.
        unknown: What holds it.
    """

    def __init__(self, everything: Sequence[ufl.Form], unknown: dolfinx.fem.Function) -> None:
        constants = {id(c): c for form in everything for c in form.constants()}
        functions = {id(f): f for form in everything for f in form.coefficients()} | {id(unknown): unknown}
        self._values: list[Callable[[], np.ndarray]] = [
            *(partial(lambda c: np.asarray(c.value), constant) for constant in constants.values()),
            *(partial(lambda f: f.x.array, function) for function in functions.values()),
            lambda: unknown.function_space.mesh.geometry.x,
        ]
        self._taken: list[np.ndarray] | None = None

    def take(self, x: ArrayLike) -> None:
        """Remember that the state now belongs to parameters x (n,)."""
        self._taken = self._now(x)

    def forget(self) -> None:
        """Be of no state."""
        self._taken = None

    def fits(self, x: ArrayLike) -> bool:
        """Whether the state is the one remembered, on this rank, and belongs to x (n,)."""
        return self._taken is not None and all(map(np.array_equal, self._taken, self._now(x)))

    def _now(self, x: ArrayLike) -> list[np.ndarray]:
        return [np.array(x, dtype=np.float64), *(values().copy() for values in self._values)]
