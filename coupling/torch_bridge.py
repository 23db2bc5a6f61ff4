"""A model as a differentiable function of PyTorch: finite elements inside a network, or a loss over finite elements.

response = torch_function(problem)
loss = (response(x) - observed).square().sum()
loss.backward()
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from coupling.contract import Curved, Model, Products, checked_evaluation

MANY = 100_000
"""Entries of a Jacobian above which a model's own products with it are used instead."""


def torch_function(model: Model) -> Callable[[Tensor], Tensor]:
    """The model as a function of tensors, differentiable once, and twice if the model has an `hvp`.

    Tensors of any floating type on any device go in and come out; in between the model computes in double precision
    on the CPU. Where a derivative is wanted, the Jacobian is computed with the responses, as it is almost free then.

    Args:
        model: Any model; collective on its communicator, as the function is then, in both directions.

    Returns:
        Maps x (..., n), in physical units and within bounds, to responses (..., m).
    """

    def function(x: Tensor) -> Tensor:
        n = len(model.parameters)
        if x.ndim == 0 or x.shape[-1] != n:
            raise ValueError(f"x has shape {tuple(x.shape)}, expected (..., {n}) for parameters {model.parameters}")
        rows = [_Responses.apply(row, model) for row in x.reshape(-1, n)]
        empty = x.new_zeros((0, len(model.responses)))
        return (torch.stack(rows) if rows else empty).reshape(*x.shape[:-1], len(model.responses))

    return function


class _Responses(torch.autograd.Function):
    """Responses at one point."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, model: Model) -> Tensor:
        point = _array(x)
        wanted = ctx.needs_input_grad[0] and not _by_products(model)
        response, jacobian = checked_evaluation(model, point, jacobian=wanted)
        ctx.save_for_backward(x)
        ctx.model, ctx.jacobian = model, jacobian
        return _like(x, response)

    @staticmethod
    def backward(ctx: Any, weights: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return _Gradient.apply(x, weights, ctx.model, ctx.jacobian), None


class _Gradient(torch.autograd.Function):
    """Gradient of a weighted sum of the responses at one point, as a function of both."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, model: Any, jacobian: np.ndarray | None) -> Tensor:
        ctx.save_for_backward(x, weights)
        ctx.model, ctx.jacobian = model, jacobian
        w = _array(weights)
        return _like(x, model.vjp(_array(x), w) if jacobian is None else w @ jacobian)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, direction: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weights = ctx.saved_tensors
        d, by_x, by_weights = _array(direction), None, None
        if ctx.needs_input_grad[0]:
            if not isinstance(ctx.model, Curved):
                raise TypeError(f"{type(ctx.model).__name__} has no hvp, hence no second derivatives")
            by_x = _like(x, ctx.model.hvp(_array(x), _array(weights), d))
        if ctx.needs_input_grad[1]:
            moved = ctx.model.jvp(_array(x), d) if ctx.jacobian is None else ctx.jacobian @ d
            by_weights = _like(weights, moved)
        return by_x, by_weights, None, None


def _by_products(model: Model) -> bool:
    return isinstance(model, Products) and len(model.parameters) * len(model.responses) > MANY


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float64).numpy()


def _like(tensor: Tensor, values: np.ndarray) -> Tensor:
    return torch.as_tensor(values, dtype=tensor.dtype, device=tensor.device)
