"""A cheap model shifted and tilted such that it agrees with an expensive one, to first order, at one point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sobofem.coupling.contract import Array, Model, PredictsMany
from sobofem.coupling.models.evaluation import checked_evaluation


def predictions(model: Model, x: Array, *, jacobian: bool = True) -> tuple[Array, Array | None]:
    """Responses (N, m) and, unless declined, Jacobians (N, m, n) at points (N, n), all at once where the model can."""
    if isinstance(model, PredictsMany):
        return model.predict(x, jacobian=jacobian)
    shape = (len(x), len(model.responses), len(model.parameters))
    answers = [checked_evaluation(model, point, jacobian=jacobian) for point in x]
    y = np.array([values for values, _ in answers]).reshape(shape[:2])
    return y, np.array([slopes for _, slopes in answers]).reshape(shape) if jacobian else None


@dataclass(frozen=True, eq=False)
class Correction:
    """A shift and a tilt by which predictions agree with the truth, to first order, at one point.

    See Alexandrov et al. (2001) on first-order model management.

    Attributes:
        point: Where the two agree, (n,).
        shift: True less predicted responses there, (m,).
        tilt: True less predicted Jacobian there, (m, n).
    """

    point: Array
    shift: Array
    tilt: Array

    def __call__(self, x: Array, y: Array, dy: Array | None) -> tuple[Array, Array | None]:
        """Predictions y (..., m) and dy (..., m, n) at x (..., n), corrected."""
        step = x - self.point
        change = self.tilt @ step if step.ndim == 1 else step @ self.tilt.T
        return y + self.shift + change, None if dy is None else dy + self.tilt


@dataclass(frozen=True, eq=False)
class Corrected:
    """Wraps a model; itself a `Model`.

    Attributes:
        model: The cheap model.
        correction: What makes it agree with the expensive one.
    """

    model: Model
    correction: Correction

    @classmethod
    def at(cls, model: Model, point: Array, y: Array, jacobian: Array) -> Corrected:
        """Correct a model by the expensive model's responses y (m,) and Jacobian (m, n) at a point (n,)."""
        own, own_jacobian = checked_evaluation(model, point)
        assert own_jacobian is not None
        return cls(model, Correction(np.array(point), y - own, jacobian - own_jacobian))

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

    def evaluate(self, x: ArrayLike, *, jacobian: bool = True) -> tuple[Array, Array | None]:
        """Corrected responses (m,) and their Jacobian (m, n)."""
        point = np.asarray(x, dtype=np.float64)
        return self.correction(point, *checked_evaluation(self.model, point, jacobian=jacobian))

    def predict(self, x: ArrayLike, *, jacobian: bool = True) -> tuple[Array, Array | None]:
        """Corrected responses (N, m) and Jacobians (N, m, n) at points (N, n), all at once where the model can."""
        points = np.asarray(x, dtype=np.float64)
        return self.correction(points, *predictions(self.model, points, jacobian=jacobian))


def corrected_at(surrogate: Model, model: Model, point: ArrayLike) -> Corrected:
    """Correct a surrogate by one solve of the model behind it, at a point (n,).

    Collective on the communicator of `model`; its exceptions pass.
    """
    x = np.array(point, dtype=np.float64)
    y, jacobian = checked_evaluation(model, x)
    assert jacobian is not None
    return Corrected.at(surrogate, x, y, jacobian)
