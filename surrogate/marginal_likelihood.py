"""The marginal likelihood of a Gaussian process on values and slopes."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite, log

import torch
from torch import Tensor

from surrogate.kernel import covariances
from surrogate.labels import Labels

JITTER = 1e-9
LENGTH, NOISE = (1.0, 1.5), (-18.0, 6.0)
"""Mean and standard deviation of the normal priors of the logarithms of length scales, √n times as long with n inputs,
and of noise."""


@dataclass(frozen=True, eq=False)
class Conditioned:
    """A process given its labels.

    Attributes:
        alpha: Weights of the covariances (N, 1 + n), slopes' times length scale; zero where a label is missing.
        trend: Value at the origin and slopes by the inputs over length scales (1 + n,), by generalized least squares.
        variance: Of the process, profiled.
        noise: Standard deviations of the noise of values, and of slopes by each input (1 + n,); NaN without labels.
    """

    alpha: Tensor
    trend: Tensor
    variance: Tensor
    noise: Tensor


class MarginalLikelihood:
    """Negative logarithm of the marginal likelihood by logarithms of length scales and noise, priors included.

    Its mean is linear, or constant where there are no slopes; that and the variance are profiled. Values have a noise
    of their own, and so have the slopes by each input, relative to the process's variance of them: what a smooth
    kernel can't follow is learned as noise, and so the likelihood weighs values against slopes.

    Attributes:
        labels: What it is conditioned on.
    """

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        N, n = labels.x.shape
        there = torch.zeros(N, 1 + n, dtype=torch.bool, device=labels.x.device)
        there[:, 0] = True if labels.believed is None else labels.believed > 0.0
        if labels.slopes is not None:
            there[:, 1:] = True if labels.known is None else labels.known > 0.0
        self._rows = torch.nonzero(there.flatten()).flatten()
        self._all = len(self._rows) == N * (1 + n)
        self._ones = (self._rows % (1 + n) == 0).to(labels.x.dtype)
        self._slopes = self._per_input(torch.ones_like(self._ones))
        self._terms = labels.x.new_ones(1 + n)
        if len(self._rows) < 2 * (1 + n) or not bool((self._slopes > 0.0).all()):
            self._terms[1:] = 0.0
        priors = [(LENGTH[0] + 0.5 * log(n), LENGTH[1])] * n + [NOISE] * (1 + n)
        self._mean, self._width = labels.x.new_tensor(priors).T

    def __call__(self, theta: Tensor) -> tuple[float, Tensor]:
        """Value and gradient at θ (2 n + 1,); infinity and zeros where the factorization fails."""
        theta = theta.detach().requires_grad_()
        K = self._covariance(theta)
        with torch.no_grad():
            L = _factor(K)
            if L is None:
                return inf, torch.zeros_like(theta)
            z, N, n = self._targets(theta.detach()), len(K), self.labels.x.shape[1]
            inverse = torch.cholesky_inverse(L)
            alpha, trend, q = self._solve(theta.detach(), L, z)
            rest = z - self._basis(theta.detach()) @ trend
            pull = 0.5 * (inverse - torch.outer(alpha, alpha) * (N / q))
            value = float(0.5 * N * torch.log(q / N) + L.diagonal().log().sum())
        K.backward(pull)
        assert theta.grad is not None
        gradient, theta = theta.grad, theta.detach()
        # Slopes are taken by inputs over length scales: labels and volume move with these.
        gradient[:n] += (N / q) * self._per_input(alpha * rest) - self._slopes
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
            L = _factor(self._covariance(theta))
            if L is None:
                raise ArithmeticError("the covariance of a Gaussian process can't be factorized: samples coincide?")
            alpha, trend, q = self._solve(theta, L, self._targets(theta))
            if not bool(torch.isfinite(alpha).all()):
                raise ArithmeticError("the trend of a Gaussian process can't be solved for: samples coincide?")
            full = alpha.new_zeros(N * (1 + n))
            full[self._rows] = alpha
            variance = q / len(L)
            noise = (variance * torch.exp(theta[n:])).sqrt() / torch.cat((theta.new_ones(1), torch.exp(theta[:n])))
            noise[1:][self._slopes == 0.0] = torch.nan
            return Conditioned(full.view(N, 1 + n), trend, variance, noise)

    def start(self, noise: float) -> Tensor:
        """θ with length scales of √n and the logarithm of the noise as given (2 n + 1,)."""
        n = self.labels.x.shape[1]
        return self.labels.x.new_tensor([0.5 * log(n)] * n + [noise] * (1 + n))

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
            return self.labels.y if self.labels.believed is None else self.labels.y[self.labels.believed > 0.0]
        return torch.cat((y, slopes * torch.exp(theta[: self.labels.x.shape[1]])), 1).flatten()[self._rows]

    def _basis(self, theta: Tensor) -> Tensor:
        """Values and slopes of a constant and, unless it is the mean, of inputs over length scales (R, 1 + n)."""
        N, n = self.labels.x.shape
        rows = torch.eye(1 + n, dtype=theta.dtype, device=theta.device).repeat(N, 1, 1)
        rows[:, 0, 1:] = self.labels.x / torch.exp(theta[:n])
        return rows.flatten(0, 1)[self._rows] * self._terms

    def _solve(self, theta: Tensor, L: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        B = self._basis(theta)
        white, rest = (torch.linalg.solve_triangular(L, part, upper=False) for part in (B, z[:, None]))
        ridge = 1e-10 * white.square().sum(0).mean() * torch.eye(B.shape[1], dtype=B.dtype, device=B.device)
        trend, _ = torch.linalg.solve_ex(white.T @ white + ridge, white.T @ rest)  # not finite where singular
        rest = rest - white @ trend
        alpha = torch.linalg.solve_triangular(L.T, rest, upper=True)
        return alpha[:, 0], trend[:, 0], rest.square().sum()

    def _per_input(self, rows: Tensor) -> Tensor:
        """Sums (n,) over the rows of each input's slopes."""
        N, n = self.labels.x.shape
        full = rows.new_zeros(N * (1 + n))
        full[self._rows] = rows
        return full.view(N, 1 + n)[:, 1:].sum(0)


def _factor(K: Tensor) -> Tensor | None:
    """The Cholesky factor of K, or None where K is not positive definite or not finite."""
    L, failed = torch.linalg.cholesky_ex(K)
    # LAPACK takes an infinite pivot for a positive one: a line search that steps far out meets infinite noise.
    return None if failed or not bool(L.isfinite().all()) else L
