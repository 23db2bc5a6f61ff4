"""Random Fourier features in front of a network."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from sobofem.surrogate.files.registry import register
from sobofem.surrogate.networks.base import Composite, Network, value_and_jacobian
from sobofem.surrogate.networks.perceptron import MLP, check_counts


@register
@dataclass(frozen=True)
class Fourier:
    """A network of the inputs and of √2 cos Bz and √2 sin Bz, where z are the inputs over their length scales.

    The entries of B are normal and stay (Tancik et al. 2020, *Fourier features let networks learn high frequency
    functions in low dimensional domains*); one length scale an input is learned.

    Attributes:
        features: Rows of B.
        length: Length scale that all inputs start with, in units of the scaled inputs' standard deviation.
        network: What the features go into.
    """

    features: int = 32
    length: float = 3.0
    network: Network = field(default_factory=lambda: MLP(48, 2))

    def __post_init__(self) -> None:
        """Refuse what can't be built, where it is written."""
        check_counts(self, "features")
        if not 0.0 < self.length < float("inf"):
            raise ValueError(f"length of Fourier is {self.length:g}; expected a positive number")

    def build(self, n: int, m: int, generator: torch.Generator) -> FourierModule:
        """Features of n inputs in front of a network with m outputs, in float64."""
        frequencies = torch.randn(self.features, n, dtype=torch.float64, generator=generator)
        inner = self.network.build(n + 2 * self.features, m, generator)
        return FourierModule(inner, frequencies, self.length)


class FourierModule(Composite):
    """What `Fourier` builds."""

    frequencies: Tensor

    def __init__(self, inner: nn.Module, frequencies: Tensor, length: float) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("frequencies", frequencies)
        self.log_length = nn.Parameter(torch.full_like(frequencies[0], log(length)))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N, m) at inputs (N, n)."""
        z = linear(x, self._scaled())
        y: Tensor = self.inner(_features(x, z.cos(), z.sin()))
        return y

    def value_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (N, m) and their Jacobian (N, m, n) at inputs (N, n), both differentiable."""
        B = self._scaled()
        z = linear(x, B)
        cos, sin = z.cos(), z.sin()
        y, dy = value_and_jacobian(self.inner, _features(x, cos, sin))
        straight, by_cos, by_sin = dy.split([x.shape[1], len(B), len(B)], dim=2)
        return y, straight + 2.0**0.5 * (by_sin * cos.unsqueeze(1) - by_cos * sin.unsqueeze(1)) @ B

    def _scaled(self) -> Tensor:
        return self.frequencies * (-self.log_length).exp()


def _features(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return torch.cat((x, 2.0**0.5 * cos, 2.0**0.5 * sin), dim=1)
