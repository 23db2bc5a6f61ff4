"""The one place where values, Jacobians, products with Hessians and noise are scaled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor

from sobofem.surrogate.samples.arrays import Array

CONSTANT_SPREAD = 1e-12
"""Standard deviation of a response, over its largest value, up to which it is a constant: its rounding."""
SMALLEST, LARGEST = 1e-290, 1e300
"""Sizes of responses within which their products with shares and inverses are numbers of double precision."""


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
            y: Responses (N, m), NaN where a value is missing, which is not everywhere.
            responses: Their m names, for the message.
            constants: Whether responses may be constant; they are then scaled by their size.

        Raises:
            ValueError: If a response does not vary, and may not be constant, or is too large or small for squares.
        """
        _check_sizes(y, responses)
        same = np.nanmin(y, axis=0) == np.nanmax(y, axis=0)
        center = np.where(same, first_known(y), np.nanmean(y, axis=0))  # the mean of equal numbers is rounded
        scale, constant = _deviation(y), constant_over(y)
        if constants:
            size = np.abs(center)
            scale = np.where(constant, np.where(size > 0.0, size, 1.0), scale)
        elif constant.any():
            names = ", ".join(repr(name) for name, flat in zip(responses, constant, strict=True) if flat)
            raise ValueError(f"these responses are constant over all {len(y)} samples: {names}; leave them out")
        return cls(bounds.mean(axis=1), np.ptp(bounds, axis=1) / np.sqrt(12.0), center, scale)

    @classmethod
    def none(cls, n: int, m: int) -> Self:
        """Physical units of n inputs and m responses throughout."""
        return cls(np.zeros(n), np.ones(n), np.zeros(m), np.ones(m))

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


def _check_sizes(y: Array, responses: tuple[str, ...]) -> None:
    size = np.nanmax(np.abs(y), axis=0)
    wrong = (size > LARGEST) | ((size < SMALLEST) & (size > 0.0))
    if wrong.any():
        k = int(np.argmax(wrong))
        raise ValueError(
            f"{responses[k]!r} is up to {size[k]:.3g}; expected sizes from {SMALLEST:g} to {LARGEST:g}, within which "
            "there is room for squares of its changes in double precision: give it in another unit"
        )


def constant_over(y: Array) -> NDArray[np.bool_]:
    """Which responses (m,) are the same in all samples (N, m), but for rounding."""
    return _deviation(y) <= CONSTANT_SPREAD * np.nanmax(np.abs(y), axis=0)


def first_known(y: Array) -> Array:
    """The first value of each response (m,) that is there, of (N, m)."""
    found: Array = np.take_along_axis(y, np.argmax(~np.isnan(y), axis=0)[None], axis=0)[0]
    return found


def _deviation(y: Array) -> Array:
    """Standard deviation of each response (m,), whatever its size."""
    size = np.nanmax(np.abs(y), axis=0)
    with np.errstate(invalid="ignore"):  # infinity over infinity: not constant
        deviation: Array = size * np.nanstd(y / np.where(size > 0.0, size, 1.0), axis=0)
    return deviation


def noise_record(noise: Array, scaling: Scaling, parameters: Sequence[str], responses: Sequence[str]) -> dict[str, Any]:
    """Standard deviations of the labels' noise as plain values: of `values` by response, of `slopes` by parameter, too.

    Args:
        noise: Of scaled values, then slopes (m, 1 + n); NaN where there is no estimate, which becomes None.
        scaling: Of the labels.
        parameters: Names of the n inputs.
        responses: Names of the m responses.
    """
    values, slopes = noise[:, 0] * scaling.y_scale, scaling.unscale_jacobian(noise[:, 1:])
    return {
        "values": dict(zip(responses, map(_plain, values), strict=True)),
        "slopes": {
            response: dict(zip(parameters, map(_plain, row), strict=True))
            for response, row in zip(responses, slopes, strict=True)
        },
    }


def relative_errors(errors: Tensor, labels: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Root mean square errors of values and of slopes over all inputs (m,), (m,); NaN where nothing is known.

    Values' are relative to their standard deviation, slopes' to their root mean square: 1 is as good as a constant.

    Args:
        errors: Of values, then slopes (N, m, 1 + n).
        labels: Likewise.
        known: Which labels are there (N, m, 1 + n).
    """
    squares, sizes = (torch.where(known, part.square(), 0.0) for part in (errors, labels))
    count, sums = known[..., 0].sum(0), torch.where(known, labels, 0.0)[..., 0].sum(0)
    values = squares[..., 0].sum(0) / (sizes[..., 0].sum(0) - sums.square() / count)
    return values.sqrt(), (squares[..., 1:].sum((0, 2)) / sizes[..., 1:].sum((0, 2))).sqrt()


def held_out_record(values: Tensor, slopes: Tensor, responses: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """Errors on samples not seen as plain values, by response and kind; None where there is no label.

    Args:
        values: Relative errors of values (m,).
        slopes: Relative errors of slopes (m,).
        responses: Names of the m responses.
    """
    pairs = zip(responses, values.tolist(), slopes.tolist(), strict=True)
    return {name: {"values": _plain(value), "slopes": _plain(slope)} for name, value, slope in pairs}


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
