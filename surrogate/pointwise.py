"""One point as a batch of one: how every surrogate evaluates."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


class Batched(Protocol):
    """What predicts many points at once."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the n inputs."""

    def predict(self, x: ArrayLike, *, jacobian: bool = True) -> tuple[Array, Array | None]:
        """Responses (N, m) and, unless declined, their Jacobians (N, m, n) at points (N, n)."""


def evaluate(model: Batched, x: ArrayLike, *, jacobian: bool = True) -> tuple[Array, Array | None]:
    """Responses (m,) and, unless declined, dy/dx (m, n) at x (n,), by the prediction of a batch of one.

    Raises:
        ValueError: If x has the wrong shape, or as `predict` does.
    """
    y, dy = model.predict(as_batch(x, model.parameters), jacobian=jacobian)
    return y[0], None if dy is None else dy[0]


def as_batch(x: ArrayLike, parameters: tuple[str, ...]) -> Array:
    """A point (n,) as a batch (1, n).

    Raises:
        ValueError: If it has another shape.
    """
    point = np.asarray(x, dtype=np.float64)
    if point.shape != (len(parameters),):
        raise ValueError(f"x has shape {point.shape}, expected {(len(parameters),)}: {parameters}")
    return point[None]
