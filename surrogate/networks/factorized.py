"""Perceptrons whose matrices are products of two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sobofem.surrogate.files.registry import register
from sobofem.surrogate.networks import layers
from sobofem.surrogate.networks.activations import Activation, activation
from sobofem.surrogate.networks.base import NetworkModule
from sobofem.surrogate.networks.perceptron import check_counts, gaussian, rescale


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
