"""A model of which some inputs are known."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
import hashlib

import numpy as np
from numpy.typing import ArrayLike

from sobofem.coupling.contract import (
    Array,
    Curved,
    Gentle,
    HasComm,
    KnowsStandardDeviation,
    Model,
    WarmStarting,
    describe,
    units_of,
)
from sobofem.coupling.models.corrected import predictions
from sobofem.coupling.models.matching import require_within


class Fixed:
    """Wraps a model; itself a `Model`, of the inputs that are left. Collective as the model is.

    Args:
        model: Any model.
        values: Known inputs by name, in their units.

    Raises:
        ValueError: If a name is unknown, a value out of bounds, or nothing is left to vary.
    """

    def __init__(self, model: Model, values: Mapping[str, float]) -> None:
        names, box = tuple(model.parameters), np.asarray(model.bounds, dtype=np.float64)
        if unknown := [name for name in values if name not in names]:
            raise ValueError(f"there is no parameter {', '.join(unknown)} to fix; there are {', '.join(names)}")
        for name, value in values.items():
            require_within(f"{name!r} is fixed at", value, box[names.index(name)])
        self.model, self.values = model, dict(values)
        self._free = np.array([name not in values for name in names])
        if not self._free.any():
            raise ValueError("every parameter is fixed; nothing is left to vary")
        self._x = np.array([values.get(name, np.nan) for name in names])
        self.parameters = tuple(name for name in names if name not in values)
        self.responses = tuple(model.responses)
        self.bounds = box[self._free]
        # attributes of the instance, since protocols are not asked of what `__getattr__` would give
        if isinstance(model, HasComm):
            self.comm = model.comm
        if isinstance(model, Gentle):
            self.evaluate_gently = self._gently
        if isinstance(model, Curved):
            self.hvp = self._hvp
        if isinstance(model, WarmStarting):
            self.warm_start = model.warm_start

    @cached_property
    def units(self) -> Mapping[str, str]:
        """Unit of each parameter and response that has one, by name."""
        units = units_of(self.model)
        return {name: units[name] for name in (*self.parameters, *self.responses) if name in units}

    @cached_property
    def digest(self) -> str:
        """Changes with the model's own, and with the values."""
        text = f"{describe(self.model).digest} {sorted(self.values.items())}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def evaluate(self, x: ArrayLike, *, jacobian: bool = True) -> tuple[Array, Array | None]:
        """Responses (m,) and dy/dx (m, n) of the n inputs that are left."""
        y, dy = self.model.evaluate(self._completed(x), jacobian=jacobian)
        return y, None if dy is None else dy[:, self._free]

    def _gently(self, x: ArrayLike, *, jacobian: bool = True) -> tuple[Array, Array | None]:
        assert isinstance(self.model, Gentle)
        y, dy = self.model.evaluate_gently(self._completed(x), jacobian=jacobian)
        return y, None if dy is None else dy[:, self._free]

    def _hvp(self, x: ArrayLike, weights: ArrayLike, directions: ArrayLike) -> Array:
        assert isinstance(self.model, Curved)
        known = np.nan_to_num(self._x)  # no direction leads away from what is known
        rows = self._completed(directions) - known * ~self._free
        return self.model.hvp(self._completed(x), weights, rows)[..., self._free]

    def predict(self, x: ArrayLike, *, jacobian: bool = True) -> tuple[Array, Array | None]:
        """Responses (N, m) and Jacobians (N, m, n) at points (N, n), in one go where the model can do that."""
        y, dy = predictions(self.model, self._completed(x), jacobian=jacobian)
        return y, None if dy is None else dy[..., self._free]

    def standard_deviation(self, x: ArrayLike) -> tuple[Array, Array]:
        """Standard deviations of responses (N, m) and Jacobians (N, m, n) at points (N, n).

        Raises:
            TypeError: If the model offers none.
        """
        if not isinstance(self.model, KnowsStandardDeviation):
            raise TypeError(f"{type(self.model).__name__} offers no standard deviations")
        y, dy = self.model.standard_deviation(self._completed(x))
        return y, dy[..., self._free]

    def _completed(self, x: ArrayLike) -> Array:
        """Points (..., n) with the known inputs in their places."""
        free = np.asarray(x, dtype=np.float64)
        if free.ndim == 0 or free.shape[-1] != len(self.parameters):
            raise ValueError(f"x has shape {free.shape}, expected (..., {len(self.parameters)}) for {self.parameters}")
        points = np.broadcast_to(self._x, (*free.shape[:-1], len(self._x))).copy()
        points[..., self._free] = free
        return points
