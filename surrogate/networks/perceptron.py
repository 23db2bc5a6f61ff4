"""The multilayer perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from sobofem.surrogate.files.registry import register
from sobofem.surrogate.networks import layers
from sobofem.surrogate.networks.activations import Activation, activation
from sobofem.surrogate.networks.base import NetworkModule
from sobofem.surrogate.networks.layers import Mode


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
        check_counts(self, "width", "depth")

    def build(self, n: int, m: int, generator: torch.Generator) -> Perceptron:
        """A perceptron from n inputs to m outputs, in float64."""
        act = activation(self.activation)
        weights = gaussian([n, *[self.width] * self.depth, m], act.gain, generator)
        return Perceptron(act, weights, [torch.zeros(len(W), dtype=torch.float64) for W in weights])


class Perceptron(NetworkModule):
    """Affine maps with an activation between each two.

    Args:
        act: The activation.
        weights: Initial matrices (out, in), two or more.
        biases: Initial biases (out,), one for each matrix.
    """

    def __init__(self, act: Activation, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> None:
        super().__init__()
        self.act = act
        self.weights, self.biases = nn.ParameterList(weights), nn.ParameterList(biases)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N, m) at inputs (N, n)."""
        return layers.value(list(self.weights), list(self.biases), self.act, x)

    def value_and_jacobian(self, x: Tensor, *, mode: Mode | None = None) -> tuple[Tensor, Tensor]:
        """Outputs (N, m) and their Jacobian (N, m, n) at inputs (N, n), both differentiable.

        Args:
            x: Inputs (N, n).
            mode: `reverse` carries m adjoints from the output back, `forward` n tangents from the input on;
                by default the fewer.
        """
        return layers.value_and_jacobian(list(self.weights), list(self.biases), self.act, x, mode=mode)

    def derivatives(self, x: Tensor, order: int) -> list[Tensor]:
        """Outputs (N, m) and their derivatives up to an order, in closed form, detached."""
        with torch.no_grad():
            return layers.derivatives(list(self.weights), list(self.biases), self.act, x, order)

    def by_parameters(self, x: Tensor, *, slopes: bool) -> Tensor:
        """Derivatives of outputs and, if wanted, slopes by the parameters that are free (N, m, T, P)."""
        with torch.no_grad():
            found = layers.by_parameters(list(self.weights), list(self.biases), self.act, x, slopes=slopes)
        pieces = zip((*found[0], *found[1]), self.parameters(), strict=True)
        return torch.cat([piece.flatten(3) for piece, parameter in pieces if parameter.requires_grad], dim=3)

    def rescale(self, factor: Tensor, shift: Tensor) -> None:
        """Change the last layer so that the outputs become factor times what they were, plus shift, both (m,)."""
        rescale(self.weights[-1], self.biases[-1], factor, shift)


def gaussian(sizes: Sequence[int], gain: float, generator: torch.Generator) -> list[Tensor]:
    """Matrices between layers of these sizes, entries of deviation gain / √fan_in, and 1 / √fan_in in the last."""
    gains = [gain] * (len(sizes) - 2) + [1.0]
    return [
        g / fan_in**0.5 * torch.randn(fan_out, fan_in, dtype=torch.float64, generator=generator)
        for g, (fan_in, fan_out) in zip(gains, pairwise(sizes), strict=True)
    ]


def rescale(weight: Tensor, bias: Tensor, factor: Tensor, shift: Tensor) -> None:
    """Change a last layer (m, in), (m,) in place so that its outputs become factor times themselves, plus shift."""
    with torch.no_grad():
        weight.mul_(factor.unsqueeze(1))
        bias.mul_(factor).add_(shift)


def check_counts(owner: object, *names: str) -> None:
    """Check that these attributes are whole numbers of at least one.

    Raises:
        ValueError: If one isn't.
    """
    counts = {name: vars(owner)[name] for name in names}
    if not all(isinstance(count, int) and count >= 1 for count in counts.values()):
        shown = " and ".join(f"{name} {count}" for name, count in counts.items())
        raise ValueError(f"{type(owner).__name__} has {shown}; expected whole numbers of at least 1")


HALF_WIDTH = 3.0**0.5
"""Scaled inputs are uniform on ±√3; the rules of initialization are written for ±1."""


@register
@dataclass(frozen=True)
class Siren:
    """A perceptron of sines whose layers all start out with the same distribution of values and slopes.

    Sitzmann, Martel, Bergman, Lindell & Wetzstein 2020, *Implicit neural representations with periodic activation
    functions*. Their factor ω₀ is part of the weights here, so that it decides the start only.

    Attributes:
        width: Units of a hidden layer.
        depth: Number of hidden layers.
        frequency: Bound ω₀ of the first layer's weights times the number of inputs, which have been scaled to ±1. 30
            is made for images; smooth responses of few samples want less.
    """

    width: int = 48
    depth: int = 3
    frequency: float = 3.0

    def __post_init__(self) -> None:
        """Refuse what can't be built, where it is written."""
        check_counts(self, "width", "depth")
        if not 0.0 < self.frequency < float("inf"):
            raise ValueError(f"frequency of Siren is {self.frequency:g}; expected a positive number")

    def build(self, n: int, m: int, generator: torch.Generator) -> Perceptron:
        """A perceptron of sines from n inputs to m outputs, in float64."""

        def uniform(bound: float, *shape: int) -> Tensor:
            return bound * (2.0 * torch.rand(*shape, dtype=torch.float64, generator=generator) - 1.0)

        weights, biases = [], []
        sizes = [n, *[self.width] * self.depth, m]
        for k, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            last = k == self.depth
            bound = self.frequency / (fan_in * HALF_WIDTH) if k == 0 else (6.0 / fan_in) ** 0.5
            weights.append(uniform(bound / max(self.frequency, 1.0) if last else bound, fan_out, fan_in))
            biases.append(uniform((1.0 if last else self.frequency) / fan_in**0.5, fan_out))
        return Perceptron(activation("sine"), weights, biases)
