"""A model as a differentiable function of PyTorch: finite elements inside a network, or a loss over finite elements.

response = torch_function(problem)
loss = (response(x) - observed).square().sum()
loss.backward()
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sobofem.coupling.contract import Curved, Model, Products
from sobofem.coupling.models.evaluation import checked_evaluation

MAX_DENSE_JACOBIAN_ENTRIES = 100_000
"""Entries of a Jacobian above which a model's own products with it are used instead."""


def torch_function(model: Model) -> Callable[[Tensor], Tensor]:
    """The model as a function of tensors, differentiable once, and twice if the model has an `hvp`.

    Tensors of any floating type on any device go in and come out; in between the model computes in double precision
    on the CPU. Where a derivative is wanted, the Jacobian is computed with the responses, as it is almost free then.
    `torch.func.grad`, `vjp`, `jacrev` and `vmap` work as well; forward mode does not: a Hessian is `jacrev(jacrev(f))`.

    Args:
        model: Any model; collective on its communicator, as the function is then, in both directions.

    Returns:
        Maps x (..., n), in physical units and within bounds, to responses (..., m).
    """

    def function(x: Tensor) -> Tensor:
        n = len(model.parameters)
        if x.ndim == 0 or x.shape[-1] != n:
            raise ValueError(f"x has shape {tuple(x.shape)}, expected (..., {n}) for parameters {model.parameters}")
        if not x.is_floating_point():
            raise TypeError(f"x is of type {x.dtype}, expected a floating type; take x.double()")
        wanted = torch.is_grad_enabled() and x.requires_grad and not _by_products(model)
        response, _ = _Responses.apply(x.reshape(-1, n), model, wanted)
        return response.reshape(*x.shape[:-1], len(model.responses))

    return function


class _Responses(torch.autograd.Function):
    """Responses (k, m) at points (k, n), and their Jacobians (k, m, n), or (k, 0, 0) where they were not wanted."""

    @staticmethod
    def forward(x: Tensor, model: Model, wanted: bool) -> tuple[Tensor, Tensor]:
        m, n = len(model.responses), len(model.parameters)
        points = _points(x, model)
        responses = np.zeros((len(points), m))
        jacobians = np.zeros((len(points), m, n) if wanted else (len(points), 0, 0))
        for k, point in enumerate(points):
            responses[k], slope = checked_evaluation(model, point, jacobian=wanted)
            if slope is not None and wanted:
                jacobians[k] = slope
        return _like(x, responses), torch.as_tensor(jacobians)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, ctx.model, _ = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(x, output[1])

    @staticmethod
    def backward(ctx: Any, weights: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        x, jacobians = ctx.saved_tensors
        return _gradients(x, weights, jacobians, ctx.model), None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], x: Tensor, model: Model, wanted: bool) -> tuple[Any, Any]:
        """A batch of batches is a batch."""
        size, rows = info.batch_size, x.movedim(in_dims[0], 0)
        found = _Responses.apply(rows.flatten(0, 1), model, wanted)
        return tuple(value.unflatten(0, (size, -1)) for value in found), (0, 0)


def _gradients(x: Tensor, weights: Tensor, jacobians: Tensor, model: Any) -> Tensor:
    """Gradients (k, n) of sums of the responses with weights (k, m), at points (k, n): Jᵀ w, row by row."""
    return _Gradients.apply(x, *_Point.apply(x, model), weights, jacobians, model)


def _tangents(x: Tensor, directions: Tensor, jacobians: Tensor, model: Any) -> Tensor:
    """Derivatives (k, m) of the responses along directions (k, n), at points (k, n): J d, row by row."""
    return _Tangents.apply(x, *_Point.apply(x, model), directions, jacobians, model)


class _Point(torch.autograd.Function):
    """Points on their way into a first derivative w · J d: a second derivative is computed only where it is wanted.

    The second output carries nothing forwards; backwards, the two carry d and w, of which the derivative by the points
    is the Hessian of w · y times d.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, model: Any) -> tuple[Tensor, Tensor]:
        return x.clone(), x.new_zeros((len(x), len(model.responses)))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, ctx.model = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, directions: Tensor, weights: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return _Curvatures.apply(_Last.apply(x), _Last.apply(weights), directions, ctx.model), None


class _Gradients(torch.autograd.Function):
    """See `_gradients`."""

    @staticmethod
    def forward(x: Tensor, _: Tensor, __: Tensor, weights: Tensor, jacobians: Tensor, model: Any) -> Tensor:
        if jacobians.numel():
            return (weights.to(jacobians)[:, None] @ jacobians)[:, 0].to(x)
        pairs = zip(_points(x, model), _array(weights), strict=True)
        return _like(x, _stacked((_pulled_back(model, point, w) for point, w in pairs), x.shape))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, _, _, weights, jacobians, ctx.model = inputs
        ctx.save_for_backward(x, weights, jacobians)

    @staticmethod
    def backward(ctx: Any, directions: Tensor) -> tuple[None, Tensor, Tensor, Tensor, None, None]:
        x, weights, jacobians = ctx.saved_tensors
        return None, directions, weights, _tangents(x, directions, jacobians, ctx.model), None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Tensor, int]:
        return _flattened(_Gradients, info.batch_size, in_dims, inputs)


class _Tangents(torch.autograd.Function):
    """See `_tangents`."""

    @staticmethod
    def forward(x: Tensor, _: Tensor, __: Tensor, directions: Tensor, jacobians: Tensor, model: Any) -> Tensor:
        if jacobians.numel():
            return (jacobians @ directions.to(jacobians)[:, :, None])[:, :, 0].to(x)
        pairs = zip(_points(x, model), _array(directions), strict=True)
        return _like(x, _stacked((_pushed(model, point, d) for point, d in pairs), (len(x), len(model.responses))))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, _, _, directions, jacobians, ctx.model = inputs
        ctx.save_for_backward(x, directions, jacobians)

    @staticmethod
    def backward(ctx: Any, weights: Tensor) -> tuple[None, Tensor, Tensor, Tensor, None, None]:
        x, directions, jacobians = ctx.saved_tensors
        return None, directions, weights, _gradients(x, weights, jacobians, ctx.model), None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Tensor, int]:
        return _flattened(_Tangents, info.batch_size, in_dims, inputs)


class _Curvatures(torch.autograd.Function):
    """Hessians of sums of the responses with weights (k, m), at points (k, n), times directions (k, n): (k, n)."""

    @staticmethod
    def forward(x: Tensor, weights: Tensor, directions: Tensor, model: Any) -> Tensor:
        if not isinstance(model, Curved):
            raise TypeError(f"{type(model).__name__} has no hvp, hence no second derivatives")
        curved: Any = model
        triples = zip(_points(x, curved), _array(weights), _array(directions), strict=True)
        return _like(x, _stacked((curved.hvp(point, w, d) for point, w, d in triples), x.shape))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weights, _, ctx.model = inputs
        ctx.save_for_backward(x, weights)

    @staticmethod
    def backward(ctx: Any, directions: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weights = ctx.saved_tensors
        by_directions = _Curvatures.apply(x, weights, directions, ctx.model)  # a Hessian is symmetric
        return torch.zeros_like(x), torch.zeros_like(weights), by_directions, None  # `_Last` refuses the first two

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Tensor, int]:
        return _flattened(_Curvatures, info.batch_size, in_dims, inputs)


class _Last(torch.autograd.Function):
    """What a second derivative depends on, to be differentiated no more."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Nothing to keep."""

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> None:
        raise RuntimeError("a model has first and second derivatives, and no third ones")


def _flattened(function: Any, size: int, in_dims: Sequence[Any], inputs: Sequence[Any]) -> tuple[Tensor, int]:
    """A function of batches, its model apart, on a batch of batches: equal points next to each other, solved once."""
    *tensors, model = inputs
    whole = [
        t.movedim(d, 1) if d is not None else t.unsqueeze(1).expand(-1, size, *t.shape[1:])
        for t, d in zip(tensors, in_dims[:-1], strict=True)
    ]
    return function.apply(*(t.flatten(0, 1) for t in whole), model).unflatten(0, (-1, size)), 1


def _by_products(model: Model) -> bool:
    return isinstance(model, Products) and len(model.parameters) * len(model.responses) > MAX_DENSE_JACOBIAN_ENTRIES


def _pulled_back(model: Any, point: np.ndarray, weights: np.ndarray) -> np.ndarray:
    if isinstance(model, Products):
        return model.vjp(point, weights)
    return weights @ _jacobian(model, point)


def _pushed(model: Any, point: np.ndarray, direction: np.ndarray) -> np.ndarray:
    if isinstance(model, Products):
        return model.jvp(point, direction)
    return _jacobian(model, point) @ direction


def _jacobian(model: Model, point: np.ndarray) -> np.ndarray:
    _, jacobian = checked_evaluation(model, point)
    assert jacobian is not None
    return jacobian


def _points(x: Tensor, model: Model) -> np.ndarray:
    """Points (k, n) in double precision; a bound that a shorter type has rounded out of the box is that bound."""
    values, (low, high) = _array(x), model.bounds.T
    inside = np.clip(values, low, high)
    slack = float(torch.finfo(x.dtype).eps) * np.maximum(np.abs(low), np.abs(high))
    return np.where(np.abs(values - inside) <= slack, inside, values)


def _stacked(rows: Iterable[np.ndarray], shape: Sequence[int]) -> np.ndarray:
    return np.array(list(rows), dtype=np.float64).reshape(shape)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float64).numpy()


def _like(tensor: Tensor, values: np.ndarray) -> Tensor:
    return torch.as_tensor(values, dtype=tensor.dtype, device=tensor.device)
