"""Sine networks, for responses that oscillate."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from surrogate.activations import activation
from surrogate.networks.perceptron import Perceptron, check_counts
from surrogate.registry import register

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
