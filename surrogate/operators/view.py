"""A surrogate between fields as a model of numbers: nodal inputs to nodal outputs, or to functions of the field."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
import torch
from torch import Tensor, nn
from torch.func import jacfwd, jacrev, jvp, vjp, vmap

from sobofem.surrogate.device import neutral
from sobofem.surrogate.networks.base import load_forward_mode
from sobofem.surrogate.operators.surrogate import OperatorSurrogate
from sobofem.surrogate.samples import arrays, as_points
from sobofem.surrogate.samples.arrays import Array

type FieldResponse = Callable[[Tensor], Tensor] | ArrayLike
"""A function of the nodal field (P, c_out) to a scalar, of operations of torch; or weights (P, c_out) of its values."""


@dataclass(frozen=True, eq=False)
class FieldModel:
    """A `Model` of the nodal inputs that varied in training; the others keep the value that they had.

    Attributes:
        surrogate: What predicts the field.
        parameters: Names of the n nodal inputs: `force_x[17]` is that of node 17.
        responses: Names of the m responses.
        bounds: Least and largest values in training (n, 2).
        functions: Of the field, for each response; None where the responses are the nodal outputs.
        varied: Which nodal inputs are parameters (P, c_in).
        module: Scaled fields to scaled fields.
    """

    surrogate: OperatorSurrogate
    parameters: tuple[str, ...]
    responses: tuple[str, ...]
    bounds: Array
    functions: tuple[Callable[[Tensor], Tensor], ...] | None
    varied: np.ndarray
    module: nn.Module

    @classmethod
    def of(cls, surrogate: OperatorSurrogate, responses: Mapping[str, FieldResponse] | None) -> FieldModel:
        """See `OperatorSurrogate.as_model`.

        Raises:
            ValueError: If weights of a response have the wrong shape, a function gives other than one number, or there
                are none.
        """
        low, high = surrogate.scaling.low, surrogate.scaling.high
        varied = surrogate.scaling.varied
        parameters = _nodal(surrogate.input_names, varied)
        bounds = np.stack((low[varied], high[varied]), axis=1)
        if responses is None:
            outputs = _nodal(surrogate.output_names, np.ones_like(surrogate.scaling.output_scale, dtype=bool))
            return cls(surrogate, parameters, outputs, bounds, None, varied, surrogate.kept)
        functions = functions_of(responses, surrogate.scaling.output_center)
        return cls(surrogate, parameters, tuple(responses), bounds, functions, varied, surrogate.kept)

    @property
    def units(self) -> dict[str, str]:
        """Unit of each nodal input and output that has one, by name."""
        units = self.surrogate.units
        names = self.parameters if self.functions is not None else self.parameters + self.responses
        found = {name: units.get(name.rpartition("[")[0], "") for name in names}
        return {name: unit for name, unit in found.items() if unit}

    @neutral()
    def evaluate(self, x: ArrayLike, *, jacobian: bool = True) -> tuple[Array, Array | None]:
        """Responses (m,) and, unless declined, dy/dx (m, n), in physical units at x (n,).

        Raises:
            ValueError: If x has the wrong shape, holds NaN or lies outside the bounds.
        """
        point = self._point(x)
        with torch.no_grad():
            y = self._map(point)
        if not jacobian:
            return y.double().numpy(), None
        load_forward_mode()
        by = jacrev if len(self.responses) <= len(self.parameters) else jacfwd
        return y.double().numpy(), by(self._map)(point).detach().double().numpy()

    def predict(self, x: ArrayLike, *, jacobian: bool = True) -> tuple[Array, Array | None]:
        """Responses (N, m) and, unless declined, Jacobians (N, m, n) at points (N, n), one after the other."""
        found = [self.evaluate(point, jacobian=jacobian) for point in as_points(x, self.parameters, self.bounds)]
        y = np.stack([values for values, _ in found])
        return y, np.stack([dy for _, dy in found if dy is not None]) if jacobian else None

    @neutral()
    def jvp(self, x: ArrayLike, directions: ArrayLike) -> Array:
        """Derivatives (k, m) of the responses at x (n,) along directions (k, n)."""
        point = self._point(x)
        V = torch.from_numpy(np.atleast_2d(arrays.numbers(directions, "directions")))
        load_forward_mode()
        found: Array = vmap(lambda v: jvp(self._map, (point,), (v,))[1])(V).detach().numpy()
        return found

    @neutral()
    def vjp(self, x: ArrayLike, weights: ArrayLike) -> Array:
        """Gradients (k, n) of the responses' sums with weights (k, m), at x (n,)."""
        W = torch.from_numpy(np.atleast_2d(arrays.numbers(weights, "weights")))
        _, pull = vjp(self._map, self._point(x))  # type: ignore[misc]
        found: Array = vmap(lambda w: pull(w)[0])(W).detach().numpy()
        return found

    def _point(self, x: ArrayLike) -> Tensor:
        return torch.from_numpy(as_points(arrays.point(x, self.parameters, "x")[None], self.parameters, self.bounds)[0])

    def _map(self, x: Tensor) -> Tensor:
        """Responses (m,) at x (n,), in float64 but for the network."""
        scaling, kept = self.surrogate.scaling, self.module
        weight = next(kept.parameters())
        fixed = torch.from_numpy(np.where(self.varied, 0.0, scaling.low))
        places = torch.from_numpy(np.flatnonzero(self.varied))
        inputs = torch.index_add(fixed.flatten(), 0, places, x).reshape(fixed.shape)
        scaled = (inputs - torch.from_numpy(scaling.input_center)) / torch.from_numpy(scaling.input_scale)
        y = kept(scaled.to(weight.dtype)[None])[0].to(x.dtype)
        field = torch.from_numpy(scaling.output_center) + torch.from_numpy(scaling.output_scale) * y
        if self.functions is None:
            return field.flatten()
        return torch.stack([function(field).reshape(()) for function in self.functions])


def functions_of(responses: Mapping[str, FieldResponse], field: Array) -> tuple[Callable[[Tensor], Tensor], ...]:
    """The responses' functions of a field, tried on one (P, c_out).

    Raises:
        ValueError: If weights of a response have the wrong shape, a function gives other than one number, or there are
            none.
    """
    if not responses:
        raise ValueError("responses are none; name one, or leave them out for all nodal outputs")
    functions = tuple(_function(name, each, field.shape) for name, each in responses.items())
    for name, function in zip(responses, functions, strict=True):
        found = function(torch.from_numpy(field))
        if not isinstance(found, Tensor) or found.numel() != 1:
            shown = f"a tensor {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
            raise ValueError(f"{name!r} of a field is {shown}; expected one number, by operations of torch alone")
    return functions


def _nodal(names: tuple[str, ...], which: np.ndarray) -> tuple[str, ...]:
    """Names of nodal values, those of a node beside each other."""
    return tuple(f"{names[channel]}[{node}]" for node, channel in np.argwhere(which))


def _function(name: str, response: Any, shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    if callable(response):
        return response  # type: ignore[no-any-return]
    weights = arrays.numbers(response, f"weights of {name!r}")
    if weights.shape != shape:
        raise ValueError(
            f"weights of {name!r} have shape {weights.shape}, expected {shape}, or a function of the field"
        )
    fixed = torch.from_numpy(weights)
    return lambda field: (fixed * field).sum()
