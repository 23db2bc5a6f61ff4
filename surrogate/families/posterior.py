"""What Gaussian processes predict, one for each response."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sobofem.surrogate.files.registry import register
from sobofem.surrogate.networks.base import NetworkModule


@register
@dataclass(frozen=True)
class GaussianProcesses:
    """Posterior means of Gaussian processes with a squared exponential kernel.

    Attributes:
        samples: Points that they are conditioned on.
    """

    samples: int

    def build(self, n: int, m: int, generator: torch.Generator) -> Posterior:
        """An untrained module of the right shape."""
        return Posterior(n, m, self)


class Posterior(NetworkModule):
    """A linear trend and k(x, X) α for each of m responses.

    Attributes:
        x: Points X (N, n).
        lengths: Length scales (m, n).
        alpha: Weights of the values' and, times the length scale, of the slopes' covariances (m, N, 1 + n); zero where
            a label is missing.
        trend: Value at the origin and slopes by the inputs over length scales (m, 1 + n).
        variance: Of the process (m,).
        needs_double: Its weights are large and of either sign: single precision would leave nothing of their sums.
    """

    needs_double = True
    x: Tensor
    lengths: Tensor
    alpha: Tensor
    trend: Tensor
    variance: Tensor

    def __init__(self, n: int, m: int, spec: GaussianProcesses) -> None:
        super().__init__()
        N = spec.samples
        shapes = {"x": (N, n), "alpha": (m, N, 1 + n), "trend": (m, 1 + n)}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("lengths", torch.ones(m, n, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(m, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N, m) at inputs (N, n)."""
        return torch.stack([self._mean(x, r)[0] for r in range(len(self.trend))], 1)

    def value_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (N, m) and their Jacobian (N, m, n) at inputs (N, n), both differentiable."""
        y, slopes = zip(*(self._slopes(x, r) for r in range(len(self.trend))), strict=True)
        return torch.stack(y, 1), torch.stack(slopes, 1)

    def disagreement(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """How far outputs (N, m) and Jacobians (N, m, n) may be off, up to a factor: the distance to the next sample.

        In length scales, times the standard deviation of the process. The posterior variance would be the textbook's
        answer; with gradients it is a difference of numbers that agree in all but their last digits.
        """
        pairs = [self._distances(x, r) for r in range(len(self.trend))]
        return torch.stack([s for s, _ in pairs], 1), torch.stack([S for _, S in pairs], 1)

    def _mean(self, x: Tensor, r: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Mean (N,), and what its slope needs: k, the sums in front of k, scaled points and centers."""
        points, centers = x / self.lengths[r], self.x / self.lengths[r]
        a0, a = self.alpha[r, :, 0], self.alpha[r, :, 1:]
        k = torch.exp(-0.5 * _squared_distances(points, centers))
        sums = a0 - (centers * a).sum(1) + points @ a.T
        trend = self.trend[r, 0] + points @ self.trend[r, 1:]
        return (k * sums).sum(1) + trend, k, sums, points, centers

    def _slopes(self, x: Tensor, r: int) -> tuple[Tensor, Tensor]:
        y, k, sums, points, centers = self._mean(x, r)
        pulled = k * sums
        slopes = k @ self.alpha[r, :, 1:] - points * pulled.sum(1, keepdim=True) + pulled @ centers
        return y, (slopes + self.trend[r, 1:]) / self.lengths[r]

    def _distances(self, x: Tensor, r: int) -> tuple[Tensor, Tensor]:
        squares = _squared_distances(x / self.lengths[r], self.x / self.lengths[r])
        distance = (squares.min(1).values * self.variance[r]).sqrt()
        return distance, distance.unsqueeze(1) / self.lengths[r]


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Between points (A, n) and (B, n): (A, B)."""
    return (a.square().sum(1)[:, None] + b.square().sum(1) - 2.0 * a @ b.T).clamp(min=0.0)
