"""Responses that only grow, or only fall, with some inputs; and convex ones, such as energies of stable materials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from sobofem.surrogate.files.registry import register
from sobofem.surrogate.networks import layers
from sobofem.surrogate.networks.base import NetworkModule
from sobofem.surrogate.networks.layers import Activation, activation, softplus
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


@register
@dataclass(frozen=True)
class Convex:
    """A perceptron whose responses are convex in its inputs, but for some that it depends on as it likes.

    Its units are convex and increasing, and weights between them are squares (Amos, Xu & Kolter 2017, *Input convex
    neural networks*). Inputs in `free` set the biases of all units and a positive factor of each in the last layer, by
    a layer of their own. It holds everywhere, by construction. Convex in I₁, I₂ and J and increasing in the first two,
    an energy is polyconvex in the deformation gradient; so it is with the isochoric I₁ and I₂^(3/2).

    Attributes:
        network: Its size; the activation is softplus.
        increasing: Inputs that no response falls with, counted from 0.
        free: Inputs in which responses need not be convex, such as a temperature or a volume fraction.
    """

    network: MLP = field(default_factory=MLP)
    increasing: tuple[int, ...] = ()
    free: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what can't be built, where it is written."""
        if not isinstance(self.network, MLP) or self.network.activation != "softplus":
            raise ValueError(f"network of Convex is {self.network}; expected an MLP with the activation 'softplus'")
        chosen = self.increasing + self.free
        if len(set(chosen)) < len(chosen) or min(chosen, default=0) < 0:
            raise ValueError(
                f"increasing is {self.increasing} and free {self.free}; expected inputs counted from 0, none twice"
            )

    def build(self, n: int, m: int, generator: torch.Generator) -> MonotonePerceptron | PartlyConvexPerceptron:
        """A convex perceptron from n inputs to m outputs, in float64.

        Raises:
            ValueError: If a chosen input is none of the n, or all are free.
        """
        if max(self.increasing + self.free, default=0) >= n or len(self.free) == n:
            raise ValueError(
                f"increasing is {self.increasing} and free {self.free}; expected inputs from 0 to {n - 1}, "
                "of which not all are free"
            )
        convex = [k for k in range(n) if k not in self.free]
        signs = torch.tensor([float(k in self.increasing) for k in convex], dtype=torch.float64)
        hidden = [self.network.width] * self.network.depth
        weights = gaussian([len(convex), *hidden, m], 1.0, generator)
        inner = MonotonePerceptron(activation("softplus"), weights, signs, mirrored=False)
        if not self.free:
            return inner
        outer = gaussian([len(self.free), self.network.width, sum(hidden) + m + hidden[-1]], 1.0, generator)
        return PartlyConvexPerceptron(inner, outer, self.free)


class PartlyConvexPerceptron(NetworkModule):
    """What `Convex` builds where some inputs are free.

    Args:
        inner: The convex perceptron of the others.
        outer: Matrices (out, in) of the layer of free inputs, and of what it sets: biases of all layers, and factors.
        free: The free inputs.
    """

    def __init__(self, inner: MonotonePerceptron, outer: Sequence[Tensor], free: Sequence[int]) -> None:
        super().__init__()
        self.inner, self.outer = inner, nn.ParameterList(outer)
        self.bias = nn.Parameter(torch.zeros(len(outer[0]), dtype=torch.float64))
        self.factor = nn.Parameter(torch.full((inner.roots[-1].shape[1],), UNIT, dtype=torch.float64))
        self.free = tuple(free)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N, m) at inputs (N, n)."""
        free = list(self.free)
        z = x[:, [k for k in range(x.shape[1]) if k not in free]]
        set_by_free = linear(torch.tanh(linear(x[:, free], self.outer[0], self.bias)), self.outer[1])
        weights, biases = self.inner.weights(), cast(Sequence[Tensor], self.inner.biases)
        *shifts, factor = set_by_free.split([*map(len, biases), len(self.factor)], dim=1)
        for W, c, shift in zip(weights[:-1], biases[:-1], shifts[:-1], strict=True):
            z = softplus(linear(z, W, c) + shift)
        return linear(z * softplus(factor + self.factor), weights[-1], biases[-1]) + shifts[-1]

    def penalty(self) -> Tensor:
        """Sum of squared weights: of the squares, where weights are squares."""
        return self.inner.penalty() + torch.stack([W.square().sum() for W in self.outer]).sum()

    def rescale(self, factor: Tensor, shift: Tensor) -> None:
        """Make the outputs factor times what they were, plus shift, both (m,), the factor positive."""
        start = self.outer[1].shape[0] - len(self.factor) - len(factor)
        with torch.no_grad():
            self.outer[1][start : start + len(factor)].mul_(factor.unsqueeze(1))
        self.inner.rescale(factor, shift)


UNIT = 0.5413248546129181
"""Where softplus is one."""
