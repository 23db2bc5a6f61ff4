"""The program that is exported: physical inputs to everything that is known of the responses there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor, nn
from torch.func import vjp

from surrogate.checks import OUTSIDE
from surrogate.exporting.precision import in_precision

if TYPE_CHECKING:
    from surrogate.model import Surrogate

INPUTS = ("x", "direction")
"""Names of what goes in: points (N, n) and, where Hessians are wanted, a direction at each (N, n)."""
MEANING = {
    "y": "responses (N, m)",
    "jacobian": "derivatives dy/dx (N, m, n)",
    "y_std": "standard deviations of the responses (N, m)",
    "jacobian_std": "standard deviations of the derivatives (N, m, n)",
    "hessian_action": "Hessian of each response times the direction (N, m, n)",
    "inside": "whether the point lies in the bounds (N,)",
}
"""What the outputs are, all in physical units."""


class Program(nn.Module):
    """A surrogate with its scaling, as one function of tensors.

    Physical inputs may be large against their range (a temperature from 293 K to 303 K), so that in single precision
    their difference from the center needs more digits than the center has: centers are carried as a sum of two numbers.

    Args:
        surrogate: What to run.
        dtype: `torch.float64` or `torch.float32`, of inputs, outputs and what is between, except for modules with a
            true attribute `needs_double`: these compute in double precision.
        hessian: Whether there is a second input `direction`, and an output: each Hessian times it.

    Raises:
        ValueError: If a unit of a response over that of a parameter is beyond the range of the numbers.
    """

    x_center: Tensor
    x_center_rest: Tensor
    y_center: Tensor
    y_center_rest: Tensor
    x_scale: Tensor
    y_scale: Tensor
    slopes: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, surrogate: Surrogate, dtype: torch.dtype, *, hessian: bool) -> None:
        super().__init__()
        scaling, (low, high) = surrogate.scaling, surrogate.bounds.T
        slack, slopes = OUTSIDE * (high - low), scaling.y_scale[:, None] / scaling.x_scale
        self.module = in_precision(surrogate.module, dtype).eval().requires_grad_(False)
        self.hessian = hessian
        arrays = {
            **_parts("x_center", scaling.x_center, dtype),
            **_parts("y_center", scaling.y_center, dtype),
            "x_scale": scaling.x_scale,
            "y_scale": scaling.y_scale,
            "slopes": slopes,
            "low": low - slack,
            "high": high + slack,
        }
        for name, array in arrays.items():
            tensor = torch.tensor(array).to(dtype)
            if not torch.isfinite(tensor).all() or (name in ("x_scale", "y_scale", "slopes") and not tensor.all()):
                raise ValueError(f"{name} of the scaling doesn't fit into {dtype}: export in float64")
            self.register_buffer(name, tensor)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what it returns, in that order."""
        deviation, action = hasattr(self.module, "standard_deviation"), self.hessian
        absent = () if deviation else ("y_std", "jacobian_std")
        return tuple(name for name in MEANING if name not in absent and (action or name != "hessian_action"))

    def forward(self, x: Tensor, direction: Tensor | None = None) -> dict[str, Tensor]:
        """Outputs by name at points x (N, n), with a direction each (N, n) where Hessians are wanted."""
        z = ((x - self.x_center) - self.x_center_rest) / self.x_scale
        y, jacobian = value_and_jacobian(self.module, z)
        found = {"y": self.y_scale * y + self.y_center_rest + self.y_center, "jacobian": self.slopes * jacobian}
        if hasattr(self.module, "standard_deviation"):
            of_y, of_jacobian = self.module.standard_deviation(z)  # type: ignore[operator]
            found |= {"y_std": self.y_scale * of_y, "jacobian_std": self.slopes * of_jacobian}
        if direction is not None:
            action = tangent(lambda z: value_and_jacobian(self.module, z)[1], z, direction / self.x_scale)
            found["hessian_action"] = self.slopes * action
        found["inside"] = ((x >= self.low) & (x <= self.high)).all(dim=1)
        return found


def value_and_jacobian(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """As `surrogate.jacobian.value_and_jacobian`, in a form that can be traced for any number of points.

    A module without a closed form sees each point once for each response, and one reverse pass differentiates all:
    maps over the batch (`vmap`) don't survive tracing with all operators.
    """
    own = getattr(module, "value_and_jacobian", None)
    if own is not None:
        y, jacobian = own(x)
        return y, jacobian
    (N, n), m = x.shape, module(x).shape[1]
    copies, pull = vjp(module, x.unsqueeze(1).expand(N, m, n).reshape(N * m, n))  # type: ignore[misc]
    rows = torch.eye(m, dtype=x.dtype).unsqueeze(0).expand(N, m, m).reshape(N * m, m)
    return copies.reshape(N, m, m)[:, 0], pull(rows)[0].reshape(N, m, n)


def tangent(function: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> Tensor:
    """Derivative of a function of x in the direction v, by two reverse passes.

    A reverse pass is linear in what it starts from; its transpose, by a second one, is the forward derivative. All
    operators have the former, not all the latter.
    """
    value, pull = vjp(function, x)  # type: ignore[misc]
    _, transposed = vjp(lambda seed: pull(seed)[0], torch.zeros_like(value))  # type: ignore[misc]
    (change,) = transposed(v)
    return change


def _parts(name: str, values: NDArray[np.float64], dtype: torch.dtype) -> dict[str, NDArray[np.float64]]:
    """Values rounded to a precision, and what rounding took from them."""
    rounded = torch.tensor(values).to(dtype).double().numpy()
    return {name: rounded, f"{name}_rest": values - rounded}
