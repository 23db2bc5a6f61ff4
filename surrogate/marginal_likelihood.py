"""The marginal likelihood of a Gaussian process on values and slopes."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite, log

import torch
from torch import Tensor

from surrogate.kernel import covariances
from surrogate.labels import Labels

JITTER = 1e-12
LENGTH, NOISE = (1.5, 1.5), (-18.0, 6.0)
"""Mean and standard deviation of the normal priors of the logarithms of length scales, √n times as long with n inputs,
and of noise."""


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
    """Negative logarithm of the marginal likelihood by logarithms of length scales and noise, priors included.

    Mean and variance of the process are profiled. Values have a noise of their own, and so have the slopes by each
    input, relative to the process's variance of them: what a smooth kernel can't follow is learned as noise, and so
    the likelihood weighs values against slopes.

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
        priors = [(LENGTH[0] + 0.5 * log(n), LENGTH[1])] * n + [NOISE] * (1 + n)
        self._mean, self._width = torch.tensor(priors, dtype=torch.float64).T

    def __call__(self, theta: Tensor) -> tuple[float, Tensor]:
        """Value and gradient at θ (2 n + 1,); infinity and zeros where the factorization fails."""
        theta = theta.detach().requires_grad_()
        K = self._covariance(theta)
        with torch.no_grad():
            L, failed = torch.linalg.cholesky_ex(K)
            if failed:
                return inf, torch.zeros_like(theta)
            z, N, n = self._targets(theta.detach()), len(K), self.labels.x.shape[1]
            inverse = torch.cholesky_inverse(L)
            alpha, _, q = self._solve(L, z)
            pull = 0.5 * (inverse - torch.outer(alpha, alpha) * (N / q))
            value = float(0.5 * N * torch.log(q / N) + L.diagonal().log().sum())
        K.backward(pull)
        assert theta.grad is not None
        gradient, theta = theta.grad, theta.detach()
        # Slopes are taken by inputs over length scales: labels and volume move with these.
        gradient[:n] += (N / q) * self._per_input(alpha * z) - self._slopes
        value -= float(self._slopes @ theta[:n])
        gap = (theta - self._mean) / self._width
        gradient += gap / self._width
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

    def start(self, noise: float) -> Tensor:
        """θ with length scales of √n and the logarithm of the noise as given (2 n + 1,)."""
        n = self.labels.x.shape[1]
        return torch.tensor([0.5 * log(n)] * n + [noise] * (1 + n), dtype=torch.float64)

    def _covariance(self, theta: Tensor) -> Tensor:
        """Of values, and of slopes times their length scale: a unit process in unit inputs, noise on the diagonal."""
        points = self.labels.x / torch.exp(theta[: self.labels.x.shape[1]])
        K = covariances(points, points).flatten(2).flatten(0, 1)
        if not self._all:
            K = K[self._rows][:, self._rows]
        noise = (torch.exp(theta[self.labels.x.shape[1] :]) + JITTER).repeat(len(self.labels.x))[self._rows]
        return K + torch.diag(noise)

    def _targets(self, theta: Tensor) -> Tensor:
        y, slopes = self.labels.y[:, None], self.labels.slopes
        if slopes is None:
            return self.labels.y
        return torch.cat((y, slopes * torch.exp(theta[: self.labels.x.shape[1]])), 1).flatten()[self._rows]

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
