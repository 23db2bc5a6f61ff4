"""One point as a batch of one: how every surrogate evaluates."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from surrogate import arrays

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
    """A point (n,) as a batch (1, n), in the order of the parameters where its numbers have names.

    Raises:
        TypeError: If it holds complex numbers, text or other objects.
        ValueError: If it has another shape or other names.
    """
    return arrays.point(x, parameters, "x")[None]
