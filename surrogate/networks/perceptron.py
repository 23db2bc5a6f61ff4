"""Multilayer perceptrons: plain ones, with matrices that are products of two, with connections past layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from sobofem.surrogate.files.registry import register
from sobofem.surrogate.networks import layers, passes
from sobofem.surrogate.networks.base import NetworkModule
from sobofem.surrogate.networks.layers import Activation, Mode, activation
from sobofem.surrogate.samples.checks import check_counts


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
        weights, biases = list(self.weights), list(self.biases)
        if mode is None and passes.welcome(self.act, [*weights, *biases], x):
            return passes.value_and_jacobian(weights, biases, self.act, x)
        return layers.value_and_jacobian(weights, biases, self.act, x, mode=mode)

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


@register
@dataclass(frozen=True)
class Factorized:
    """A perceptron with U Vᵀ for each matrix but the last.

    A low rank makes a wide layer cheap; a full one changes the path of training, in favor of matrices of low rank. The
    product starts as the best approximation of that rank to a perceptron's start, its singular values shared evenly
    (spectral initialization), and the decay acts on the product (Frobenius decay), which is not the same as on the
    factors: Khodak, Tenenholtz, Mackey & Fusi 2021, *Initialization and regularization of factorized neural layers*.

    Attributes:
        width: Units of a hidden layer.
        depth: Number of hidden layers.
        activation: `tanh`, `softplus` or `sine`.
        rank: Largest rank of a product; a layer of fewer inputs or units has their number.
    """

    width: int = 64
    depth: int = 3
    activation: str = "softplus"
    rank: int = 16

    def __post_init__(self) -> None:
        """Refuse what can't be built, where it is written."""
        activation(self.activation)
        check_counts(self, "width", "depth", "rank")

    def build(self, n: int, m: int, generator: torch.Generator) -> FactorizedPerceptron:
        """A factorized perceptron from n inputs to m outputs, in float64."""
        act = activation(self.activation)
        weights = gaussian([n, *[self.width] * self.depth, m], act.gain, generator)
        return FactorizedPerceptron(act, weights, self.rank)


class FactorizedPerceptron(NetworkModule):
    """Affine maps with an activation between each two, all but the last with a product of two matrices.

    Args:
        act: The activation.
        weights: Matrices (out, in) to start from.
        rank: Largest rank of a product.
    """

    def __init__(self, act: Activation, weights: Sequence[Tensor], rank: int) -> None:
        super().__init__()
        factors = [_split(W, rank) for W in weights[:-1]]
        self.act = act
        self.left = nn.ParameterList(U for U, _ in factors)
        self.right = nn.ParameterList(V for _, V in factors)
        self.last = nn.Parameter(weights[-1])
        self.biases = nn.ParameterList(torch.zeros(len(W), dtype=torch.float64) for W in weights)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N, m) at inputs (N, n)."""
        return layers.value(self._products(), list(self.biases), self.act, x)

    def value_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (N, m) and their Jacobian (N, m, n) at inputs (N, n), both differentiable."""
        return layers.value_and_jacobian(self._products(), list(self.biases), self.act, x)

    def penalty(self) -> Tensor:
        """Sum of squares of the products and of the last matrix; ‖U Vᵀ‖² is the trace of UᵀU VᵀV."""
        squares = [((U.T @ U) * (V.T @ V)).sum() for U, V in zip(self.left, self.right, strict=True)]
        return torch.stack([*squares, self.last.square().sum()]).sum()

    def rescale(self, factor: Tensor, shift: Tensor) -> None:
        """Change the last layer so that the outputs become factor times what they were, plus shift, both (m,)."""
        rescale(self.last, self.biases[-1], factor, shift)

    def _products(self) -> list[Tensor]:
        return [*(U @ V.T for U, V in zip(self.left, self.right, strict=True)), self.last]


def _split(W: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Factors (out, r) and (in, r) of the best approximation of rank r, with equal singular values."""
    U, S, Vh = torch.linalg.svd(W, full_matrices=False)
    root = S[:rank].sqrt()
    return (U[:, :rank] * root).contiguous(), (Vh[:rank].T * root).contiguous()


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
