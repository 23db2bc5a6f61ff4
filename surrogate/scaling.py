"""The one place where values, Jacobians and products with Hessians are scaled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

CONSTANT = 1e-12


@dataclass(frozen=True, eq=False)
class Scaling:
    """One affine map for inputs and one for responses; derivatives follow by the chain rule.

    x̃ = (x − x_center) / x_scale, ỹ = (y − y_center) / y_scale, so ∂ỹ/∂x̃ = (x_scale / y_scale) ∂y/∂x. The Hessian takes
    a factor x_scale on both sides, a direction v = x_scale ṽ takes one away: H̃ṽ = (x_scale / y_scale) H v.

    Attributes:
        x_center: (n,), in the units of the parameters.
        x_scale: (n,), positive.
        y_center: (m,), in the units of the responses.
        y_scale: (m,), positive.
    """

    x_center: Array
    x_scale: Array
    y_center: Array
    y_scale: Array

    @classmethod
    def from_data(cls, bounds: Array, y: Array, responses: tuple[str, ...], *, constants: bool = False) -> Self:
        """Scaling to mean zero and variance one.

        Inputs are standardized as a uniform sample of the box would be: the map is then the same for every
        sample drawn from it, and a parameter that few samples happen to vary is not blown up. Responses are
        standardized by the data.

        Args:
            bounds: The input box (n, 2).
            y: Responses (N, m).
            responses: Their m names, for the message.
            constants: Whether responses may be constant; they are then scaled by their size.

        Raises:
            ValueError: If a response does not vary, and may not be constant.
        """
        center = np.where(y.min(axis=0) == y.max(axis=0), y[0], y.mean(axis=0))  # the mean of equal numbers is rounded
        scale, constant = _deviation(y), constant_over(y)
        if constants:
            size = np.abs(center)
            scale = np.where(constant, np.where(size > 0.0, size, 1.0), scale)
        elif constant.any():
            names = ", ".join(repr(name) for name, flat in zip(responses, constant, strict=True) if flat)
            raise ValueError(f"these responses are constant over all {len(y)} samples: {names}; leave them out")
        return cls(bounds.mean(axis=1), np.ptp(bounds, axis=1) / np.sqrt(12.0), center, scale)

    def scale_x(self, x: Array) -> Array:
        """Inputs (..., n) without units."""
        return (x - self.x_center) / self.x_scale

    def scale_y(self, y: Array) -> Array:
        """Responses (..., m) without units."""
        return (y - self.y_center) / self.y_scale

    def scale_jacobian(self, jacobian: Array) -> Array:
        """Jacobian (..., m, n) between scaled inputs and scaled responses."""
        return jacobian * (self.x_scale / self.y_scale[:, None])

    def scale_action(self, directions: Array, actions: Array) -> tuple[Array, Array]:
        """Directions (N, n) without units, of length one, and the actions (N, m, n) of scaled Hessians on them.

        An action is as long as its direction, and means no more for it: at length one all samples count alike.
        Directions of no length stay as they are.
        """
        scaled = directions / self.x_scale
        length = np.linalg.norm(scaled, axis=1, keepdims=True)
        length = np.where(length == 0.0, 1.0, length)
        return scaled / length, self.scale_jacobian(actions) / length[:, :, None]

    def unscale_x(self, x: Array) -> Array:
        """Inputs (..., n) in physical units."""
        return x * self.x_scale + self.x_center

    def unscale_y(self, y: Array) -> Array:
        """Responses (..., m) in physical units."""
        return y * self.y_scale + self.y_center

    def unscale_jacobian(self, jacobian: Array) -> Array:
        """Jacobian (..., m, n) in physical units."""
        return jacobian * (self.y_scale[:, None] / self.x_scale)


def constant_over(y: Array) -> NDArray[np.bool_]:
    """Which responses (m,) are the same in all samples (N, m), but for rounding."""
    return _deviation(y) <= CONSTANT * np.abs(y).max(axis=0)


def _deviation(y: Array) -> Array:
    """Standard deviation of each response (m,), whatever its size."""
    size = np.abs(y).max(axis=0)
    with np.errstate(invalid="ignore"):  # infinity over infinity: not constant
        deviation: Array = size * (y / np.where(size > 0.0, size, 1.0)).std(axis=0)
    return deviation
