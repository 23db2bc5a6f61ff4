"""Residual networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from sobofem.surrogate.files.registry import register
from sobofem.surrogate.networks import layers
from sobofem.surrogate.networks.activations import Activation, activation
from sobofem.surrogate.networks.base import NetworkModule
from sobofem.surrogate.networks.perceptron import check_counts, rescale


@register
@dataclass(frozen=True)
class Residual:
    """A linear map into a state, blocks that each add to it, and a linear map out of it.

    A block adds V a(U h + c) / √depth to the state h: scaled so, the sum of all keeps its size at the start whatever
    the depth, and so do its derivatives (Marion, Fermanian, Biau & Vert 2025, *Scaling ResNets in the large-depth
    regime*, JMLR 26).

    Attributes:
        width: Size of the state, and units of a block.
        depth: Number of blocks.
        activation: `tanh`, `softplus` or `sine`.
    """

    width: int = 32
    depth: int = 4
    activation: str = "softplus"

    def __post_init__(self) -> None:
        """Refuse what can't be built, where it is written."""
        activation(self.activation)
        check_counts(self, "width", "depth")

    def build(self, n: int, m: int, generator: torch.Generator) -> ResidualModule:
        """A residual network from n inputs to m outputs, in float64."""
        return ResidualModule(n, m, self.width, self.depth, activation(self.activation), generator)


class ResidualModule(NetworkModule):
    """What `Residual` builds."""

    def __init__(self, n: int, m: int, width: int, depth: int, act: Activation, generator: torch.Generator) -> None:
        super().__init__()

        def gaussian(fan_out: int, fan_in: int, gain: float) -> nn.Parameter:
            return nn.Parameter(
                gain / fan_in**0.5 * torch.randn(fan_out, fan_in, dtype=torch.float64, generator=generator)
            )

        def zeros(size: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(size, dtype=torch.float64))

        self.act, self.share = act, depth**-0.5
        self.first = gaussian(width, n, 1.0)
        self.inner = nn.ParameterList(gaussian(width, width, act.gain) for _ in range(depth))
        self.biases = nn.ParameterList(zeros(width) for _ in range(depth))
        self.outer = nn.ParameterList(gaussian(width, width, 1.0) for _ in range(depth))
        self.last, self.bias = gaussian(m, width, 1.0), zeros(m)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N, m) at inputs (N, n)."""
        h = linear(x, self.first)
        for U, c, V in zip(self.inner, self.biases, self.outer, strict=True):
            h = torch.addmm(h, self.act.value(linear(h, U, c)), (self.share * V).T)
        return linear(h, self.last, self.bias)

    def value_and_jacobian(self, x: Tensor, *, mode: layers.Mode | None = None) -> tuple[Tensor, Tensor]:
        """Outputs (N, m) and their Jacobian (N, m, n) at inputs (N, n), both differentiable.

        Args:
            x: Inputs (N, n).
            mode: `reverse` carries m adjoints from the output back, `forward` n tangents from the input on;
                by default the fewer.
        """
        h, slopes = linear(x, self.first), []
        for U, c, V in zip(self.inner, self.biases, self.outer, strict=True):
            a, slope = self.act.value_and_slope(linear(h, U, c))
            h = torch.addmm(h, a, (self.share * V).T)
            slopes.append(self.share * slope.unsqueeze(1))
        (m, _), (_, n) = self.last.shape, self.first.shape
        mode = mode or ("reverse" if m <= n else "forward")
        return linear(h, self.last, self.bias), (self._adjoints if mode == "reverse" else self._tangents)(slopes)

    def rescale(self, factor: Tensor, shift: Tensor) -> None:
        """Change the last layer so that the outputs become factor times what they were, plus shift, both (m,)."""
        rescale(self.last, self.bias, factor, shift)

    def _adjoints(self, slopes: list[Tensor]) -> Tensor:
        A = self.last.unsqueeze(0)
        for U, V, slope in zip(reversed(self.inner), reversed(self.outer), reversed(slopes), strict=True):
            A = A + ((A @ V) * slope) @ U
        return A @ self.first

    def _tangents(self, slopes: list[Tensor]) -> Tensor:
        T = self.first.T.unsqueeze(0)
        for U, V, slope in zip(self.inner, self.outer, slopes, strict=True):
            T = T + linear(linear(T, U) * slope, V)
        return linear(T, self.last).transpose(1, 2)
