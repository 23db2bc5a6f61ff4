"""The marginal likelihood of a Gaussian process on values and slopes."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite

import torch
from torch import Tensor

from surrogate.kernel import covariances
from surrogate.labels import Labels

JITTER = 1e-12
LENGTH, WIDTH = 1.5, 1.5
"""Normal prior of a length scale's logarithm, √n of them more: wide, and with many inputs in favour of smooth ones."""


@dataclass(frozen=True, eq=False)
class Conditioned:
    """A process given its labels.

    Attributes:
        alpha: Weights of the covariances (N, 1 + n), slopes' times length scale; zero where a label is missing.
        mean: Of the process, by generalized least squares.
        variance: Of the process, profiled.
        whitening: Inverse Cholesky factor of the covariance of the labels that are there, of a unit process (R, R).
    """

    alpha: Tensor
    mean: Tensor
    variance: Tensor
    whitening: Tensor


class MarginalLikelihood:
    """Negative logarithm of the marginal likelihood by the length scales' logarithms and that of the noise.

    Mean and variance of the process are profiled. Noise is relative to the process: its variance for values, its
    slopes' variance for slopes.

    Attributes:
        labels: What it is conditioned on.
    """

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        N, n = labels.x.shape
        there = torch.zeros(N, 1 + n, dtype=torch.bool, device=labels.x.device)
        there[:, 0] = True
        if labels.slopes is not None:
            there[:, 1:] = True if labels.known is None else labels.known > 0.0
        self._rows = torch.nonzero(there.flatten()).flatten()
        self._all = len(self._rows) == N * (1 + n)
        self._ones = (self._rows % (1 + n) == 0).to(labels.x.dtype)
        self._slopes = self._per_input(torch.ones_like(self._ones))
        self._prior = LENGTH + 0.5 * torch.log(torch.tensor(float(n)))

    def __call__(self, theta: Tensor) -> tuple[float, Tensor]:
        """Value and gradient at θ (n + 1,); infinity and zeros where the factorization fails."""
        theta = theta.detach().requires_grad_()
        K = self._covariance(theta)
        with torch.no_grad():
            L, failed = torch.linalg.cholesky_ex(K)
            if failed:
                return inf, torch.zeros_like(theta)
            z, N = self._targets(theta.detach()), len(K)
            inverse = torch.cholesky_inverse(L)
            alpha, _, q = self._solve(L, z)
            pull = 0.5 * (inverse - torch.outer(alpha, alpha) * (N / q))
            value = float(0.5 * N * torch.log(q / N) + L.diagonal().log().sum())
        K.backward(pull)
        assert theta.grad is not None
        gradient, theta = theta.grad, theta.detach()
        # Slopes are taken by inputs over length scales: labels and volume move with these.
        gradient[:-1] += (N / q) * self._per_input(alpha * z) - self._slopes
        value -= float(self._slopes @ theta[:-1])
        gap = (theta[:-1] - self._prior) / WIDTH
        gradient[:-1] += gap / WIDTH
        value += 0.5 * float(gap.square().sum())
        return (value, gradient) if isfinite(value) else (inf, torch.zeros_like(gradient))

    def condition(self, theta: Tensor) -> Conditioned:
        """The process at θ.

        Raises:
            ArithmeticError: If its covariance can't be factorized.
        """
        with torch.no_grad():
            N, n = self.labels.x.shape
            L, failed = torch.linalg.cholesky_ex(self._covariance(theta))
            if failed:
                raise ArithmeticError("the covariance of a Gaussian process can't be factorized: samples coincide?")
            alpha, mean, q = self._solve(L, self._targets(theta))
            full = alpha.new_zeros(N * (1 + n))
            full[self._rows] = alpha
            whitening = torch.linalg.solve_triangular(L, torch.eye(len(L), dtype=L.dtype), upper=False)
            return Conditioned(full.view(N, 1 + n), mean, q / len(L), whitening)

    def scattered(self, whitening: Tensor) -> Tensor:
        """A factor (R, R) of the labels that are there among all N (1 + n)."""
        if self._all:
            return whitening
        N, n = self.labels.x.shape
        full = whitening.new_zeros(N * (1 + n), N * (1 + n))
        full[self._rows[:, None], self._rows] = whitening
        return full

    def _covariance(self, theta: Tensor) -> Tensor:
        """Of values, and of slopes times their length scale: a unit process in unit inputs, noise on the diagonal."""
        points = self.labels.x / torch.exp(theta[:-1])
        K = covariances(points, points).flatten(2).flatten(0, 1)
        if not self._all:
            K = K[self._rows][:, self._rows]
        return K + torch.eye(len(K), dtype=K.dtype, device=K.device) * (torch.exp(theta[-1]) + JITTER)

    def _targets(self, theta: Tensor) -> Tensor:
        y, slopes = self.labels.y[:, None], self.labels.slopes
        if slopes is None:
            return self.labels.y
        return torch.cat((y, slopes * torch.exp(theta[:-1])), 1).flatten()[self._rows]

    def _solve(self, L: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        both = torch.cholesky_solve(torch.stack((z, self._ones), 1), L)
        mean = (self._ones @ both[:, 0]) / (self._ones @ both[:, 1])
        alpha = both[:, 0] - mean * both[:, 1]
        return alpha, mean, (z - mean * self._ones) @ alpha

    def _per_input(self, rows: Tensor) -> Tensor:
        """Sums (n,) over the rows of each input's slopes."""
        N, n = self.labels.x.shape
        full = rows.new_zeros(N * (1 + n))
        full[self._rows] = rows
        return full.view(N, 1 + n)[:, 1:].sum(0)
