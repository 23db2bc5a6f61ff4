"""Derivatives of any module by its inputs beyond the first."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


def repeatedly_differentiated(module: nn.Module, x: Tensor, order: int) -> list[Tensor]:
    """Outputs (N, m) and their derivatives up to an order, (N, m, n, ...), by reverse mode, one entry at a time.

    Entries that differ in the order of differentiation are computed once.
    """
    with torch.enable_grad():
        inputs = x.detach().requires_grad_()
        y = module(inputs)
        m, n = y.shape[1], x.shape[1]
        found = [y]
        known: dict[tuple[int, ...], Tensor] = {(k,): y[:, k] for k in range(m)}
        for _ in range(order):
            gradients = {index: gradient(value, inputs) for index, value in known.items()}
            # an entry by inputs i <= j <= k: differentiating by k those by i <= j
            known = {
                (*index, j): gradient[:, j]
                for index, gradient in gradients.items()
                for j in range(index[-1] if len(index) > 1 else 0, n)
            }
            shape = len(found) * (n,)
            whole = [known[k, *sorted(by)] for k in range(m) for by in np.ndindex(shape)]
            found.append(torch.stack(whole, 1).reshape(len(x), m, *shape))
    return [part.detach() for part in found]


def gradient(values: Tensor, inputs: Tensor) -> Tensor:
    """Derivative (N, n) of one output (N,), differentiable again; zero where it depends on nothing."""
    if not values.requires_grad:
        return torch.zeros_like(inputs)
    unit = torch.ones_like(values)
    (found,) = torch.autograd.grad(values, inputs, unit, create_graph=True, allow_unused=True, materialize_grads=True)
    return found
