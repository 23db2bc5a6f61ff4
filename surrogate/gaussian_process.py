"""Gaussian processes conditioned on values and slopes, one for each response, as one module."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from surrogate.kernel import covariances
from surrogate.registry import register


@register
@dataclass(frozen=True)
class GaussianProcesses:
    """Posterior means of Gaussian processes with a squared exponential kernel.

    Attributes:
        samples: Points that they are conditioned on.
        rows: Labels of each whose covariance the standard deviation needs; 0 where it is not offered.
    """

    samples: int
    rows: int

    def build(self, n: int, m: int, generator: torch.Generator) -> Posterior:
        """An empty one, to be filled."""
        return Posterior(n, m, self)


class Posterior(nn.Module):
    """Mean + k(x, X) α for each of m responses.

    Attributes:
        x: Points X (N, n).
        lengths: Length scales (m, n).
        alpha: Weights of the values' and, times the length scale, of the slopes' covariances (m, N, 1 + n); zero where
            a label is missing.
        mean: (m,).
        variance: Of the process (m,).
        whitening: Inverse Cholesky factor of the labels' covariance (m, R, R) of a unit process, R = N (1 + n), zero
            where a label is missing; R is 0 where no standard deviation is offered.
    """

    x: Tensor
    lengths: Tensor
    alpha: Tensor
    mean: Tensor
    variance: Tensor
    whitening: Tensor

    def __init__(self, n: int, m: int, spec: GaussianProcesses) -> None:
        super().__init__()
        N, R = spec.samples, spec.rows
        shapes = {"x": (N, n), "alpha": (m, N, 1 + n), "mean": (m,), "whitening": (m, R, R)}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("lengths", torch.ones(m, n, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(m, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N, m) at inputs (N, n)."""
        return torch.stack([self._mean(x, r)[0] for r in range(len(self.mean))], 1)

    def value_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (N, m) and their Jacobian (N, m, n) at inputs (N, n), both differentiable."""
        y, slopes = zip(*(self._slopes(x, r) for r in range(len(self.mean))), strict=True)
        return torch.stack(y, 1), torch.stack(slopes, 1)

    def standard_deviation(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior standard deviations of outputs (N, m) and Jacobians (N, m, n).

        Zero where the process was conditioned on too many labels to keep their covariance.
        """
        pairs = [self._deviations(x, r) for r in range(len(self.mean))]
        return torch.stack([s for s, _ in pairs], 1), torch.stack([S for _, S in pairs], 1)

    def _mean(self, x: Tensor, r: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Mean (N,), and what its slope needs: k, the sums in front of k, scaled points and centers."""
        points, centers = x / self.lengths[r], self.x / self.lengths[r]
        a0, a = self.alpha[r, :, 0], self.alpha[r, :, 1:]
        squares = points.square().sum(1)[:, None] + centers.square().sum(1) - 2.0 * points @ centers.T
        k = torch.exp(-0.5 * squares.clamp(min=0.0))
        sums = a0 - (centers * a).sum(1) + points @ a.T
        return (k * sums).sum(1) + self.mean[r], k, sums, points, centers

    def _slopes(self, x: Tensor, r: int) -> tuple[Tensor, Tensor]:
        y, k, sums, points, centers = self._mean(x, r)
        pulled = k * sums
        slopes = k @ self.alpha[r, :, 1:] - points * pulled.sum(1, keepdim=True) + pulled @ centers
        return y, slopes / self.lengths[r]

    def _deviations(self, x: Tensor, r: int) -> tuple[Tensor, Tensor]:
        N, n = x.shape
        if not self.whitening.shape[1]:
            return x.new_zeros(N), x.new_zeros(N, n)
        K = covariances(x / self.lengths[r], self.x / self.lengths[r]).flatten(2).flatten(0, 1)
        known = (K @ self.whitening[r].T).square().sum(1)
        left = (1.0 - known).clamp(min=0.0).view(N, 1 + n)
        deviation = (left * self.variance[r]).sqrt()
        return deviation[:, 0], deviation[:, 1:] / self.lengths[r]
