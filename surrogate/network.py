"""The multilayer perceptron, with values and Jacobians in one pass of closed form."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from surrogate.activations import Activation, activation
from surrogate.registry import register

Mode = Literal["reverse", "forward"]


@register
@dataclass(frozen=True)
class MLP:
    """A perceptron of equal hidden layers.

    Attributes:
        width: Units of a hidden layer.
        depth: Number of hidden layers.
        activation: `tanh`, `softplus` or `sine`.
    """

    width: int = 48
    depth: int = 3
    activation: str = "softplus"

    def __post_init__(self) -> None:
        """Refuse what can't be built, where it is written."""
        activation(self.activation)
        if self.width < 1 or self.depth < 1:
            raise ValueError(f"MLP has width {self.width} and depth {self.depth}; expected at least 1 of each")

    def build(self, n: int, m: int, generator: torch.Generator) -> Perceptron:
        """A perceptron from n inputs to m outputs, in float64."""
        return Perceptron([n, *[self.width] * self.depth, m], activation(self.activation), generator)


class Perceptron(nn.Module):
    """Affine maps with an activation between each two."""

    def __init__(self, sizes: list[int], act: Activation, generator: torch.Generator) -> None:
        super().__init__()
        self.act = act
        pairs = list(pairwise(sizes))
        gains = [act.gain] * (len(pairs) - 1) + [1.0]
        self.weights = nn.ParameterList(
            gain / fan_in**0.5 * torch.randn(fan_out, fan_in, dtype=torch.float64, generator=generator)
            for gain, (fan_in, fan_out) in zip(gains, pairs, strict=True)
        )
        self.biases = nn.ParameterList(torch.zeros(fan_out, dtype=torch.float64) for _, fan_out in pairs)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N, m) at inputs (N, n)."""
        *hidden, (W, b) = zip(self.weights, self.biases, strict=True)
        for V, c in hidden:
            x = self.act.value(linear(x, V, c))
        return linear(x, W, b)

    def value_and_jacobian(self, x: Tensor, *, mode: Mode | None = None) -> tuple[Tensor, Tensor]:
        """Outputs (N, m) and their Jacobian (N, m, n) at inputs (N, n), both differentiable.

        Args:
            x: Inputs (N, n).
            mode: `reverse` carries m adjoints from the output back, `forward` n tangents from the input on;
                by default the fewer.
        """
        *hidden, (W, b) = zip(self.weights, self.biases, strict=True)
        slopes = []
        for V, c in hidden:
            x, slope = self.act.value_and_slope(linear(x, V, c))
            slopes.append(slope.unsqueeze(1))
        m, n = W.shape[0], self.weights[0].shape[1]
        mode = mode or ("reverse" if m <= n else "forward")
        return linear(x, W, b), (self._adjoints if mode == "reverse" else self._tangents)(slopes)

    def rescale(self, factor: Tensor, shift: Tensor) -> None:
        """Change the last layer so that the outputs become factor times what they were, plus shift, both (m,)."""
        with torch.no_grad():
            self.weights[-1].mul_(factor.unsqueeze(1))
            self.biases[-1].mul_(factor).add_(shift)

    def _adjoints(self, slopes: list[Tensor]) -> Tensor:
        first, *middle, last = self.weights
        A = last * slopes[-1]
        for V, slope in zip(reversed(middle), reversed(slopes[:-1]), strict=True):
            A = (A @ V) * slope
        return A @ first

    def _tangents(self, slopes: list[Tensor]) -> Tensor:
        first, *middle, last = self.weights
        T = first.T * slopes[0]
        for V, slope in zip(middle, slopes[1:], strict=True):
            T = linear(T, V) * slope
        return linear(T, last).transpose(1, 2)
