"""A surrogate that is right, to first order, where the model behind it was asked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from coupling.contract import Array, Model, checked_evaluation
from coupling.uncertainty.evaluation import predictions


@dataclass(frozen=True, eq=False)
class Corrected:
    """Wraps a model; itself a `Model`, to which the trusted model's tangent at one point is added.

    Attributes:
        model: The cheap model.
        point: Where it is right, (n,).
        shift: Trusted minus cheap responses there, (m,).
        tilt: Trusted minus cheap Jacobian there, (m, n).
    """

    model: Model
    point: Array
    shift: Array
    tilt: Array

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the n inputs."""
        return tuple(self.model.parameters)

    @property
    def responses(self) -> tuple[str, ...]:
        """Names of the m outputs."""
        return tuple(self.model.responses)

    @property
    def bounds(self) -> Array:
        """The box that the inputs live in, (n, 2)."""
        return np.array(self.model.bounds, dtype=np.float64)

    def predict(self, x: ArrayLike, *, jacobian: bool = True) -> tuple[Array, Array | None]:
        """Corrected responses (N, m) and Jacobians (N, m, n) at points x (N, n)."""
        points = np.asarray(x, dtype=np.float64)
        y, dy = predictions(self.model, points, jacobian=jacobian)
        return y + self.shift + (points - self.point) @ self.tilt.T, dy + self.tilt if jacobian else None

    def evaluate(self, x: ArrayLike, *, jacobian: bool = True) -> tuple[Array, Array | None]:
        """Corrected responses (m,) and their Jacobian (m, n)."""
        y, dy = self.predict(np.asarray(x, dtype=np.float64)[None], jacobian=jacobian)
        return y[0], None if dy is None else dy[0]


def corrected_at(model: Model, check: Model, point: ArrayLike) -> Corrected:
    """Correct a surrogate by one solve of the model behind it, at a point (n,).

    Collective on the communicator of `check`; its exceptions pass.
    """
    x = np.array(point, dtype=np.float64)
    y, jacobian = checked_evaluation(check, x)
    own, own_jacobian = predictions(model, x[None])
    assert jacobian is not None
    return Corrected(model, x, y - own[0], jacobian - own_jacobian[0])
