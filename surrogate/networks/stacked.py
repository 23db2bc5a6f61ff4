"""Perceptrons of one output side by side: values and gradients of all in closed form, by products of batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from surrogate.activations import Activation
from surrogate.networks.perceptron import Perceptron

Layers = tuple[list[Tensor], list[Tensor], Activation]


def stack(members: Sequence[Perceptron]) -> Layers:
    """Weights (K, out, in), biases (K, 1, out) and the activation of K perceptrons of equal layers."""
    weights = [torch.stack(list(layer)) for layer in zip(*(member.weights for member in members), strict=True)]
    biases = [torch.stack(list(layer)) for layer in zip(*(member.biases for member in members), strict=True)]
    return weights, [b.unsqueeze(1) for b in biases], members[0].act


def value(stacked: Layers, x: Tensor) -> Tensor:
    """Outputs (N, K) at inputs (N, n)."""
    weights, biases, act = stacked
    h = x.expand(len(weights[0]), -1, -1)
    for V, c in zip(weights[:-1], biases[:-1], strict=True):
        h = act.value(torch.baddbmm(c, h, V.mT))
    return torch.baddbmm(biases[-1], h, weights[-1].mT).squeeze(2).T


def value_and_jacobian(stacked: Layers, x: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs (N, K) and their Jacobian (N, K, n) at inputs (N, n), both differentiable."""
    weights, biases, act = stacked
    h, slopes = x.expand(len(weights[0]), -1, -1), []
    for V, c in zip(weights[:-1], biases[:-1], strict=True):
        h, slope = act.value_and_slope(torch.baddbmm(c, h, V.mT))
        slopes.append(slope)
    A = weights[-1] * slopes[-1]
    for V, slope in zip(reversed(weights[1:-1]), reversed(slopes[:-1]), strict=True):
        A = torch.bmm(A, V) * slope
    y = torch.baddbmm(biases[-1], h, weights[-1].mT)
    return y.squeeze(2).T, torch.bmm(A, weights[0]).transpose(0, 1)
