"""The program that is exported: physical inputs to all that is known of the responses there, in either precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor, nn
from torch.func import vjp

from sobofem.surrogate.networks.base import NetworkModule, as_network_module
from sobofem.surrogate.networks.base import value_and_jacobian as own_value_and_jacobian
from sobofem.surrogate.samples.arrays import Array
from sobofem.surrogate.samples.checks import OUTSIDE

if TYPE_CHECKING:
    from sobofem.surrogate.model import Surrogate


class InDouble(NetworkModule):
    """A module that computes in double precision, among others that don't: what goes in and comes out is single.

    It can do what the module can.

    Args:
        module: What computes, in double precision.
        dtype: Of its outputs.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module, self.dtype = module, dtype

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N, m) at inputs (N, n)."""
        y: Tensor = self.module(x.double())
        return y.to(self.dtype)

    @property
    def differentiates_itself(self) -> bool:
        """As the module does."""
        return as_network_module(self.module).differentiates_itself

    def value_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The module's, rounded: (N, m) and (N, m, n) at inputs (N, n)."""
        return self._rounded(own_value_and_jacobian(self.module, x.double()))

    @property
    def has_disagreement(self) -> bool:
        """As the module has."""
        return as_network_module(self.module).has_disagreement

    def disagreement(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The module's, rounded."""
        return self._rounded(as_network_module(self.module).disagreement(x.double()))

    @property
    def has_standard_deviation(self) -> bool:
        """As the module has."""
        return as_network_module(self.module).has_standard_deviation

    def standard_deviation(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The module's, rounded."""
        return self._rounded(as_network_module(self.module).standard_deviation(x.double()))

    def _rounded(self, pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        y, slopes = pair
        return y.to(self.dtype), slopes.to(self.dtype)


def in_precision(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy on the CPU that takes and gives numbers of this type.

    Parts with a true attribute `needs_double` compute in double precision all the same.
    """
    copy = deepcopy(module).to("cpu", dtype)
    if dtype == torch.float64:
        return copy
    outermost: list[str] = []
    for name, part in module.named_modules(remove_duplicate=False):
        if not (isinstance(part, NetworkModule) and part.needs_double) or any(
            name.startswith(f"{other}.") for other in outermost
        ):
            continue
        double = InDouble(deepcopy(part).to("cpu", torch.float64), dtype)
        if not name:
            return double
        copy.set_submodule(name, double)
        outermost.append(name)
    return copy


def doubled(module: nn.Module) -> tuple[str, ...]:
    """Kinds of the parts of a module that compute in double precision beside others that don't."""
    return tuple(sorted({type(part.module).__name__ for part in module.modules() if isinstance(part, InDouble)}))


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
        self.module = in_precision(as_network_module(surrogate.module).exported, dtype).eval().requires_grad_(False)
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
        deviation, action = as_network_module(self.module).has_standard_deviation, self.hessian
        absent = () if deviation else ("y_std", "jacobian_std")
        return tuple(name for name in MEANING if name not in absent and (action or name != "hessian_action"))

    def forward(self, x: Tensor, direction: Tensor | None = None) -> dict[str, Tensor]:
        """Outputs by name at points x (N, n), with a direction each (N, n) where Hessians are wanted."""
        z = ((x - self.x_center) - self.x_center_rest) / self.x_scale
        y, jacobian = value_and_jacobian(self.module, z)
        found = {"y": self.y_scale * y + self.y_center_rest + self.y_center, "jacobian": self.slopes * jacobian}
        if as_network_module(self.module).has_standard_deviation:
            of_y, of_jacobian = as_network_module(self.module).standard_deviation(z)
            found |= {"y_std": self.y_scale * of_y, "jacobian_std": self.slopes * of_jacobian}
        if direction is not None:
            action = tangent(lambda z: value_and_jacobian(self.module, z)[1], z, direction / self.x_scale)
            found["hessian_action"] = self.slopes * action
        found["inside"] = ((x >= self.low) & (x <= self.high)).all(dim=1)
        return found


def value_and_jacobian(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """As `networks.base.value_and_jacobian`, in a form that can be traced for any number of points.

    A module without a closed form sees each point once for each response, and one reverse pass differentiates all:
    maps over the batch (`vmap`) don't survive tracing with all operators.
    """
    if as_network_module(module).differentiates_itself:
        return own_value_and_jacobian(module, x)
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


Run = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
BATCHES = (1, 2, 33)
_BY_PARAMETER = ("jacobian", "jacobian_std", "hessian_action")


def disagreement(surrogate: Surrogate, program: Program, run: Run) -> dict[str, float]:
    """Largest difference of each output, over the largest entry of its response; derivatives times the ranges.

    A standard deviation is measured by what it is a deviation of: one of nearly nothing needs no digits of its own.

    It is taken over random points of the box, in batches of several sizes, at the inputs as the program sees them:
    rounded to its precision.
    """
    dtype = str(program.x_scale.dtype).removeprefix("torch.")
    rng, width = np.random.default_rng(0), np.ptp(surrogate.bounds, axis=1)
    given: dict[str, list[Array]] = {}
    truths: dict[str, list[Array]] = {}
    for N in BATCHES:
        x = rng.uniform(*surrogate.bounds.T, size=(N, len(width)))
        inputs = {"x": x.astype(dtype)}
        if program.hessian:
            inputs["direction"] = (width * rng.standard_normal(x.shape)).astype(dtype)
        found = run(inputs)
        for name, truth in expected(surrogate, program, inputs).items():
            ranges = width if name in _BY_PARAMETER else 1.0
            truths.setdefault(name, []).append(truth * ranges)
            given.setdefault(name, []).append(found[name] * ranges)
    whole = {name: np.concatenate(parts) for name, parts in truths.items()}
    return {
        name: _relative(np.concatenate(given[name]), truth, whole[name.removesuffix("_std")])
        for name, truth in whole.items()
    }


def expected(surrogate: Surrogate, program: Program, inputs: Mapping[str, np.ndarray]) -> dict[str, Array]:
    """What the model itself gives in double precision, in physical units."""
    scaling = surrogate.scaling
    x = inputs["x"].astype(np.float64)
    y, jacobian = surrogate.predict(x, extrapolate=True)
    found: dict[str, Any] = {"y": y, "jacobian": jacobian}
    with torch.no_grad():
        if "y_std" in program.outputs:
            points = torch.from_numpy(scaling.scale_x(x))
            of_y, of_jacobian = as_network_module(surrogate.module).standard_deviation(points)
            found["y_std"] = of_y.numpy() * scaling.y_scale
            found["jacobian_std"] = scaling.unscale_jacobian(of_jacobian.numpy())
        if program.hessian:
            double = Program(surrogate, torch.float64, hessian=True)
            both = (torch.from_numpy(array.astype(np.float64)) for array in inputs.values())
            found["hessian_action"] = double(*both)["hessian_action"].numpy()
    return found


def _relative(given: Array, truth: Array, measure: Array) -> float:
    """Largest difference over the largest entry of `measure` by response, the second axis; NaN in one is infinite."""
    axes = (0, *range(2, truth.ndim))
    size = np.abs(measure).max(axis=axes, keepdims=True)
    difference = np.abs(given - truth) / np.where(size > 0.0, size, 1.0)
    difference = np.where(np.isnan(given) & np.isnan(truth), 0.0, difference)
    return float(np.where(np.isnan(difference), np.inf, difference).max())
