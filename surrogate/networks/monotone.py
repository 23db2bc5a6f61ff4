"""Responses that only grow, or only fall, with some inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sobofem.surrogate.files.registry import register
from sobofem.surrogate.networks import layers
from sobofem.surrogate.networks.base import NetworkModule
from sobofem.surrogate.networks.layers import Activation, activation
from sobofem.surrogate.networks.perceptron import MLP, gaussian


@register
@dataclass(frozen=True)
class Monotone:
    """A perceptron whose responses all increase in some inputs, decrease in some, and do as they like in the others.

    Weights on the way from such an input are squares, with the sign of its direction where they leave it. Half of the
    units have the activation mirrored, -a(-z): convex ones alone would add up to convex responses only (Runje &
    Shankaranarayana 2023, *Constrained monotonic neural networks*). It holds everywhere, by construction.

    Attributes:
        network: Its size and activation; `sine` is not monotone and refused.
        increasing: Inputs that no response falls with, counted from 0.
        decreasing: Inputs that no response grows with.
    """

    network: MLP = field(default_factory=MLP)
    increasing: tuple[int, ...] = ()
    decreasing: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what can't be built, where it is written."""
        if not isinstance(self.network, MLP):
            raise TypeError(
                f"Monotone got a {type(self.network).__name__}; expected an MLP, whose weights it constrains "
                "(to bound a monotone network, write Bounded(Monotone(...)))"
            )
        if not activation(self.network.activation).monotone:
            raise ValueError(f"the activation {self.network.activation!r} is not monotone; use 'softplus' or 'tanh'")
        chosen = self.increasing + self.decreasing
        if not chosen or len(set(chosen)) < len(chosen) or min(chosen) < 0:
            raise ValueError(
                f"increasing is {self.increasing} and decreasing {self.decreasing}; "
                "expected at least one input, counted from 0, and none twice"
            )

    def build(self, n: int, m: int, generator: torch.Generator) -> MonotonePerceptron:
        """A monotone perceptron from n inputs to m outputs, in float64.

        Raises:
            ValueError: If a chosen input is none of the n.
        """
        if max(self.increasing + self.decreasing) >= n:
            raise ValueError(
                f"increasing is {self.increasing} and decreasing {self.decreasing}; expected inputs from 0 to {n - 1}"
            )
        signs = torch.zeros(n, dtype=torch.float64)
        signs[list(self.increasing)], signs[list(self.decreasing)] = 1.0, -1.0
        sizes = [n, *[self.network.width] * self.network.depth, m]
        return MonotonePerceptron(activation(self.network.activation), gaussian(sizes, 1.0, generator), signs)


class MonotonePerceptron(NetworkModule):
    """What `Monotone` builds, and `Convex` without free inputs.

    Args:
        act: The activation, increasing.
        weights: Matrices (out, in) to start from: free weights, and roots of the constrained ones.
        signs: 1 for inputs to increase with, -1 to decrease with, 0 for others (n,).
        mirrored: Whether half of the units are mirrored. Without that, convex activations make convex outputs.
    """

    signs: Tensor
    mirror: Tensor

    def __init__(self, act: Activation, weights: Sequence[Tensor], signs: Tensor, *, mirrored: bool = True) -> None:
        super().__init__()
        self.act = act
        self.roots = nn.ParameterList(weights)
        self.biases = nn.ParameterList(torch.zeros(len(W), dtype=torch.float64) for W in weights)
        self.register_buffer("signs", signs, persistent=False)
        mirror = torch.ones(len(weights[0]), dtype=torch.float64)
        mirror[1::2] = -1.0 if mirrored else 1.0
        self.register_buffer("mirror", mirror, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N, m) at inputs (N, n)."""
        return layers.value(self.weights(), list(self.biases), self._mirrored(), x)

    def value_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (N, m) and their Jacobian (N, m, n) at inputs (N, n), both differentiable."""
        return layers.value_and_jacobian(self.weights(), list(self.biases), self._mirrored(), x)

    def derivatives(self, x: Tensor, order: int) -> list[Tensor]:
        """Outputs (N, m) and their derivatives up to an order, in closed form, detached."""
        with torch.no_grad():
            return layers.derivatives(self.weights(), list(self.biases), self._mirrored(), x, order)

    def penalty(self) -> Tensor:
        """Sum of squared weights: of the squares, that is, not of their roots."""
        return torch.stack([W.square().sum() for W in self.weights()]).sum()

    def rescale(self, factor: Tensor, shift: Tensor) -> None:
        """Make the outputs factor times what they were, plus shift, both (m,), the factor positive."""
        with torch.no_grad():
            self.roots[-1].mul_(factor.sqrt().unsqueeze(1))
            self.biases[-1].mul_(factor).add_(shift)

    def weights(self) -> list[Tensor]:
        """Matrices (out, in) as they are used."""
        first, *others = self.roots
        constrained = torch.where(self.signs == 0.0, first, self.signs * first.square())
        return [constrained, *(V.square() for V in others)]

    def _mirrored(self) -> Activation:
        """The activation of every other unit turned about the origin."""
        s, act = self.mirror, self.act

        def value(z: Tensor) -> Tensor:
            return s * act.value(s * z)

        def value_and_slope(z: Tensor) -> tuple[Tensor, Tensor]:
            a, slope = act.value_and_slope(s * z)
            return s * a, slope

        def bends(a: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
            assert act.bends is not None
            second, third = act.bends(s * a, slope)
            return s * second, third

        return Activation(value, value_and_slope, act.gain, act.monotone, None if act.bends is None else bends)
