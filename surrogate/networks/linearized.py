"""A network that knows how far it may be off: linear in its weights, which the labels leave uncertain."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sobofem.surrogate.files.registry import register
from sobofem.surrogate.networks.base import Composite, Network, as_network_module, value_and_jacobian
from sobofem.surrogate.networks.perceptron import MLP, check_counts

ROWS_AT_ONCE = 20_000
"""Outputs whose derivatives by all weights are held at once."""


@register
@dataclass(frozen=True)
class Linearized:
    """A network with the standard deviations of Laplace's approximation (MacKay 1992; Immer et al. 2021).

    Attributes:
        network: What predicts.
        points: Samples that it was trained on.
        slopes: Whether it was on their slopes, too.
    """

    network: Network = field(default_factory=MLP)
    points: int = 1
    slopes: bool = True

    def __post_init__(self) -> None:
        """Refuse what was trained on nothing."""
        check_counts(self, "points")

    def build(self, n: int, m: int, generator: torch.Generator) -> LinearizedModule:
        """An untrained module of the right shape."""
        return LinearizedModule(self.network.build(n, m, generator), self.points, n, m, slopes=self.slopes)


class LinearizedModule(Composite):
    """A module around the minimum where training left it, with what it was trained on.

    There its outputs are linear in the weights, whose covariance is the inverse of JᵀJ + Λ, J being the derivatives of
    the weighted training outputs and Λ the prior's precisions. It is factorized when it is first asked for: the file
    holds the samples, not the factor.

    Attributes:
        inner: What predicts.
        points: Scaled training points (N, n).
        scales: Inverse standard deviations of the labels' noise (N, m, T), zero where a label is missing.
        precisions: Inverse prior variances of the entries of each tensor of parameters.
        noise: Standard deviation of the noise of each term (m, 1 + n).
        value_factors: What standard deviations of each output are multiplied by (m,), so that they cover.
        slope_factors: The same for the rows of the Jacobian (m,); NaN without any label.
    """

    points: Tensor
    scales: Tensor
    precisions: Tensor
    noise: Tensor
    value_factors: Tensor
    slope_factors: Tensor

    def __init__(self, inner: nn.Module, points: int, n: int, m: int, *, slopes: bool) -> None:
        super().__init__()
        self.inner = inner
        shapes = {
            "points": (points, n),
            "scales": (points, m, 1 + n if slopes else 1),
            "precisions": (len(self._free()),),
        }
        shapes |= {"noise": (m, 1 + n), "value_factors": (m,), "slope_factors": (m,)}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.ones(shape, dtype=torch.float64))
        self._factor: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N, m) at inputs (N, n)."""
        y: Tensor = self.inner(x)
        return y

    def value_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (N, m) and their Jacobian (N, m, n) at inputs (N, n), both differentiable."""
        return value_and_jacobian(self.inner, x)

    @property
    def differentiates_itself(self) -> bool:
        """As the network inside."""
        return as_network_module(self.inner).differentiates_itself

    @property
    def exported(self) -> nn.Module:
        """The network inside: files for other programs don't hold what its deviations need."""
        return self.inner

    def standard_deviation(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Calibrated standard deviations of outputs (N, m) and of their Jacobian (N, m, n) at inputs (N, n)."""
        m, T = self.noise.shape
        pieces = [self._variance(part) for part in x.split(max(1, ROWS_AT_ONCE // (m * T)))]
        deviation = (torch.cat(pieces) + self.noise.square()).sqrt()
        return deviation[..., 0] * self.value_factors, deviation[..., 1:] * self.slope_factors.unsqueeze(1)

    def leave_one_out(self, errors: Tensor) -> Tensor:
        """Errors at each training sample without it, over what their deviations would be: (N, m, T), NaN if missing.

        With H the hat matrix, its block of a sample, all labels of which are left out at once, turns errors e into
        (I − H)⁻¹ e, whose covariance is (I − H)⁻¹ times that of the noise.

        Args:
            errors: Those of training (N, m, T).
        """
        rows = torch.linalg.solve_triangular(self.factor(), self._rows().T, upper=False).T
        blocks = rows.unflatten(0, (len(self.points), -1))
        left = torch.eye(blocks.shape[1], dtype=rows.dtype) - blocks @ blocks.mT
        inverse = torch.linalg.pinv(left, hermitian=True)
        weighted = (errors * self.scales).flatten(1)
        found = (inverse @ weighted.unsqueeze(2)).squeeze(2) / inverse.diagonal(dim1=1, dim2=2).clamp(min=1.0).sqrt()
        return torch.where(self.scales > 0.0, found.reshape(errors.shape), torch.nan)

    def factor(self) -> Tensor:
        """Lower triangle (P, P) whose square is the inverse covariance of the weights over the prior's."""
        if self._factor is None:
            rows = self._rows()
            A = rows.T @ rows
            A.diagonal().add_(1.0)
            self._factor = torch.linalg.cholesky(A)
        return self._factor

    def _rows(self) -> Tensor:
        """Derivatives of all weighted training outputs by the weights over their prior deviations (N·m·T, P)."""
        found = self._by_weights(self.points, slopes=self.scales.shape[2] > 1)
        return (found * self.scales.unsqueeze(3)).flatten(0, 2)

    def _by_weights(self, x: Tensor, *, slopes: bool) -> Tensor:
        """Derivatives of outputs by the weights over their prior deviations (N, m, T, P)."""
        sizes = torch.tensor([p.numel() for p in self._free()])
        each = self.precisions.repeat_interleave(sizes)
        return as_network_module(self.inner).by_parameters(x, slopes=slopes) / each.sqrt()

    def _free(self) -> list[Tensor]:
        return [p for p in self.inner.parameters() if p.requires_grad]

    def _variance(self, x: Tensor) -> Tensor:
        """Variances (N, m, 1 + n) of outputs and slopes, before the noise."""
        rows = self._by_weights(x, slopes=True)
        solved = torch.linalg.solve_triangular(self.factor(), rows.flatten(0, 2).T, upper=False)
        return solved.square().sum(0).reshape(rows.shape[:3])
