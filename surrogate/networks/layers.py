"""Affine maps with an activation between each two: values and Jacobians in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor
from torch.nn.functional import linear

from sobofem.surrogate.networks.activations import Activation

Mode = Literal["reverse", "forward"]
Tensors = Sequence[Tensor]


def value(weights: Tensors, biases: Tensors, act: Activation, x: Tensor) -> Tensor:
    """Outputs (N, m) at inputs (N, n) of layers with these weights (out, in) and biases (out,)."""
    for V, c in zip(weights[:-1], biases[:-1], strict=True):
        x = act.value(linear(x, V, c))
    return linear(x, weights[-1], biases[-1])


def value_and_jacobian(
    weights: Tensors, biases: Tensors, act: Activation, x: Tensor, *, mode: Mode | None = None
) -> tuple[Tensor, Tensor]:
    """Outputs (N, m) and their Jacobian (N, m, n) at inputs (N, n), both differentiable.

    Args:
        weights: Matrices (out, in), two or more, the last one m rows high, the first one n columns wide.
        biases: One (out,) for each.
        act: Between each two layers.
        x: Inputs.
        mode: `reverse` carries m adjoints from the output back, `forward` n tangents from the input on;
            by default the fewer.
    """
    slopes = []
    for V, c in zip(weights[:-1], biases[:-1], strict=True):
        x, slope = act.value_and_slope(linear(x, V, c))
        slopes.append(slope.unsqueeze(1))
    m, n = weights[-1].shape[0], weights[0].shape[1]
    mode = mode or ("reverse" if m <= n else "forward")
    return linear(x, weights[-1], biases[-1]), (_adjoints if mode == "reverse" else _tangents)(weights, slopes)


def _adjoints(weights: Tensors, slopes: list[Tensor]) -> Tensor:
    A = weights[-1] * slopes[-1]
    for V, slope in zip(reversed(weights[1:-1]), reversed(slopes[:-1]), strict=True):
        A = (A @ V) * slope
    return A @ weights[0]


def _tangents(weights: Tensors, slopes: list[Tensor]) -> Tensor:
    T = weights[0].T * slopes[0]
    for V, slope in zip(weights[1:-1], slopes[1:], strict=True):
        T = linear(T, V) * slope
    return linear(T, weights[-1]).transpose(1, 2)
