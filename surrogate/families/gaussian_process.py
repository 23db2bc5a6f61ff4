"""Gaussian processes conditioned on values and slopes: kernel and marginal likelihood."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite, log

import torch
from torch import Tensor

from sobofem.surrogate.families.base import Labels


def covariances(a: Tensor, b: Tensor, *, slopes: bool = True) -> Tensor:
    """Covariances of [f, ∇f] of a unit process with k = exp(−|a − b|²/2), in inputs divided by their length scales.

    Args:
        a: Points (A, n).
        b: Points (B, n).
        slopes: Whether those of slopes are wanted, too: there are (1 + n)² times as many with them.

    Returns:
        (A, 1 + n, B, 1 + n): entry 0 of the second and fourth axis is the value, the others the slopes. Without slopes
        (A, 1, B, 1).
    """
    if not slopes:
        distances = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")  # exact where points nearly coincide
        return torch.exp(-0.5 * distances.square())[:, None, :, None]
    return _with_slopes(*_gaps(a, b))


def _gaps(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Gaps (A, B, n) between points, and the kernel there (A, B)."""
    gap = a[:, None] - b
    return gap, torch.exp(-0.5 * gap.square().sum(-1))


def _with_slopes(gap: Tensor, k: Tensor) -> Tensor:
    """Covariances of values and slopes (A, 1 + n, B, 1 + n) from gaps and the kernel there."""
    tilt, (A, B, n) = k[..., None] * gap, gap.shape
    # Written where it belongs at once: with hundreds of labels, time goes into copies more than into factors.
    whole = gap.new_empty(A, 1 + n, B, 1 + n)
    whole[:, 0, :, 0], whole[:, 0, :, 1:] = k, tilt
    whole[:, 1:, :, 0] = -tilt.transpose(1, 2)
    torch.mul(-tilt.transpose(1, 2).unsqueeze(-1), gap.unsqueeze(1), out=whole[:, 1:, :, 1:])
    whole[:, 1:, :, 1:].diagonal(dim1=1, dim2=3).add_(k.unsqueeze(-1))
    return whole


JITTER = (1e-12, 1e-10, 1e-8)
"""Least noise over the variance of the process. Smooth responses are learned the better, the smaller it is: the first
mostly is what round-off allows, and the others are for many labels, whose covariance it leaves singular."""
LENGTH, NOISE = (1.0, 1.5), (-18.0, 6.0)
"""Mean and standard deviation of the normal priors of the logarithms of length scales, √n times as long with n inputs,
and of noise."""
USUAL = 3.0
"""Standard deviations within which priors are normal; beyond, they fall faster. Labels that are exactly zero, slopes by
an input that does not matter, would have an infinite density without variance, and draw all others there."""


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
        self._kinds = 1 if labels.slopes is None else 1 + n  # without slopes nothing is of their number
        there = torch.zeros(N, self._kinds, dtype=torch.bool, device=labels.x.device)
        there[:, 0] = True if labels.believed is None else labels.believed > 0.0
        if labels.slopes is not None:
            there[:, 1:] = True if labels.known is None else labels.known > 0.0
        self._rows = torch.nonzero(there.flatten()).flatten()
        self._all = len(self._rows) == N * self._kinds
        self._slopes = self._per_input(labels.x.new_ones(len(self._rows)))
        self._terms = labels.x.new_ones(1 + n)
        if len(self._rows) < 2 * (1 + n) or not bool((self._slopes > 0.0).all()):
            self._terms[1:] = 0.0
        priors = [(LENGTH[0] + 0.5 * log(n), LENGTH[1])] * n + [NOISE] * (1 + n)
        self._mean, self._width = labels.x.new_tensor(priors).T

    def __call__(self, theta: Tensor) -> tuple[float, Tensor]:
        """Value and gradient at θ (2 n + 1,); infinity and zeros where the factorization fails."""
        K, gap, k = self._covariance(theta)
        L = _factor(K)
        if L is None:
            return inf, torch.zeros_like(theta)
        z, N, n = self._targets(theta), len(L), self.labels.x.shape[1]
        alpha, trend, q = self._solve(theta, L, z)
        rest = z - self._basis(theta) @ trend
        value = float(0.5 * N * torch.log(q / N) + L.diagonal().log().sum())
        weights = alpha * (N / q).sqrt()
        pull = torch.cholesky_inverse(L, out=L).mT.addr_(weights, weights, alpha=-1.0)
        gradient = 0.5 * torch.cat((self._by_lengths(pull, gap, k), self._by_noise(theta, pull)))
        # Slopes are taken by inputs over length scales: labels and volume move with these.
        gradient[:n] += (N / q) * self._per_input(alpha * rest) - self._slopes
        value -= float(self._slopes @ theta[:n])
        gap = (theta - self._mean) / self._width
        beyond = (gap.abs() - USUAL).clamp(min=0.0)
        gradient += (gap + 4.0 * beyond**3 * gap.sign()) / self._width
        value += float((0.5 * gap.square() + beyond**4).sum())
        return (value, gradient) if isfinite(value) else (inf, torch.zeros_like(gradient))

    def _by_lengths(self, pull: Tensor, gap: Tensor, k: Tensor) -> Tensor:
        """Gradient by the logarithms of length scales (n,) from that by the covariance (R, R), kernel and gaps.

        With gaps g, a pair of points contributes P·K = k c, c = P₀₀ + 2 P₀ⱼ gⱼ + Pⱼⱼ − gⱼ vⱼ, v = P g, summed over j;
        by symmetry the two blocks between values and slopes count alike.
        """
        N, kinds = len(k), self._kinds
        if not self._all:
            pull = pull.new_zeros(N * kinds, N * kinds).index_put((self._rows[:, None], self._rows), pull)
        if kinds == 1:
            points, shared = gap, pull * k
            return 2.0 * (points * (points * shared.sum(1, keepdim=True) - shared @ points)).sum(0)
        P = pull.view(N, kinds, N, kinds)
        across = P[:, 0, :, 1:]
        v = (P[:, 1:, :, 1:] * gap.unsqueeze(1)).sum(3).transpose(1, 2)
        c = P[:, 0, :, 0] + P[:, 1:, :, 1:].diagonal(dim1=1, dim2=3).sum(2) + (gap * (2.0 * across - v)).sum(2)
        by_length = (gap * c.unsqueeze(2)).add_(v - across, alpha=2.0).mul_(gap)
        return torch.einsum("ij,ija->a", k, by_length)

    def _by_noise(self, theta: Tensor, pull: Tensor) -> Tensor:
        """Likewise by the logarithms of the noise (1 + n,)."""
        (N, n), kinds = self.labels.x.shape, self._kinds
        noise = theta.new_zeros(1 + n)
        noise[:kinds] = pull.new_zeros(N * kinds).index_put((self._rows,), pull.diagonal()).view(N, kinds).sum(0)
        return noise * torch.exp(theta[n:])

    def condition(self, theta: Tensor) -> Conditioned:
        """The process at θ.

        Raises:
            ArithmeticError: If its covariance can't be factorized.
        """
        with torch.no_grad():
            N, n = self.labels.x.shape
            L = self._factorized(theta)
            alpha, trend, q = self._solve(theta, L, self._targets(theta))
            if not bool(torch.isfinite(alpha).all()):
                raise ArithmeticError(
                    "the trend of a Gaussian process is not finite: labels are out of proportion, or samples coincide"
                )
            weights = alpha.new_zeros(N * self._kinds)
            weights[self._rows] = alpha
            full = alpha.new_zeros(N, 1 + n)
            full[:, : self._kinds] = weights.view(N, self._kinds)
            variance = q / len(L)
            noise = (variance * torch.exp(theta[n:])).sqrt() / torch.cat((theta.new_ones(1), torch.exp(theta[:n])))
            noise[1:][self._slopes == 0.0] = torch.nan
            return Conditioned(full, trend, variance, noise)

    def left_out(self, theta: Tensor) -> Tensor:
        """Labels of each sample less what those of all others predict for them (N, 1 + n); zero without a label.

        With P the inverse of the covariance less its part along the trend, that is P_SS⁻¹ (P z)_S (Dubrule 1983).

        Raises:
            ArithmeticError: If the covariance can't be factorized.
        """
        with torch.no_grad():
            (N, n), L, kinds = self.labels.x.shape, self._factorized(theta), self._kinds
            B = self._basis(theta)[:, [0, *range(1, 1 + n * int(self._terms[-1] > 0.0))]]
            P = torch.cholesky_inverse(L)
            across = P @ B
            P -= across @ torch.linalg.lstsq(B.T @ across, across.T).solution
            full, right = torch.eye(N * kinds, dtype=P.dtype, device=P.device), P.new_zeros(N * kinds)
            full[self._rows[:, None], self._rows] = P
            right[self._rows] = P @ self._targets(theta)
            blocks = full.view(N, kinds, N, kinds).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
            errors, _ = torch.linalg.solve_ex(blocks, right.view(N, kinds, 1))
            found = P.new_zeros(N, 1 + n)
            found[:, :kinds] = errors[..., 0]
            return found / torch.cat((theta.new_ones(1), torch.exp(theta[:n])))

    def start(self, noise: float) -> Tensor:
        """θ with length scales of √n and the logarithm of the noise as given (2 n + 1,)."""
        n = self.labels.x.shape[1]
        return self.labels.x.new_tensor([0.5 * log(n)] * n + [noise] * (1 + n))

    def _factorized(self, theta: Tensor) -> Tensor:
        """The Cholesky factor at θ, with the least noise that allows one.

        Raises:
            ArithmeticError: If none does.
        """
        factors = (_factor(self._covariance(theta, jitter)[0]) for jitter in JITTER)
        L = next((factor for factor in factors if factor is not None), None)
        if L is None:
            raise ArithmeticError("the covariance of a Gaussian process can't be factorized: do samples coincide?")
        return L

    def _covariance(self, theta: Tensor, jitter: float = JITTER[0]) -> tuple[Tensor, Tensor, Tensor]:
        """Of values, and of slopes times their length scale: a unit process in unit inputs, noise on the diagonal.

        And gaps between points (N, N, n), or without slopes the points (N, n); and the kernel (N, N).
        """
        (N, n), kinds = self.labels.x.shape, self._kinds
        points = self.labels.x / torch.exp(theta[:n])
        if kinds == 1:
            gap, k = points, covariances(points, points, slopes=False)[:, 0, :, 0]
            K = k.clone()
        else:
            gap, k = _gaps(points, points)
            K = _with_slopes(gap, k).flatten(2).flatten(0, 1)
        if not self._all:
            K = K[self._rows][:, self._rows]
        K.diagonal().add_((torch.exp(theta[n : n + kinds]) + jitter).repeat(N)[self._rows])
        return K, gap, k

    def _targets(self, theta: Tensor) -> Tensor:
        y, slopes = self.labels.y[:, None], self.labels.slopes
        if slopes is None:
            return self.labels.y if self.labels.believed is None else self.labels.y[self.labels.believed > 0.0]
        return torch.cat((y, slopes * torch.exp(theta[: self.labels.x.shape[1]])), 1).flatten()[self._rows]

    def _basis(self, theta: Tensor) -> Tensor:
        """Values and slopes of a constant and, unless it is the mean, of inputs over length scales (R, 1 + n)."""
        N, n = self.labels.x.shape
        rows = torch.eye(self._kinds, 1 + n, dtype=theta.dtype, device=theta.device).repeat(N, 1, 1)
        rows[:, 0, 1:] = self.labels.x / torch.exp(theta[:n])
        return rows.flatten(0, 1)[self._rows] * self._terms

    def _solve(self, theta: Tensor, L: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        B = self._basis(theta)
        if not self._terms[-1]:  # a constant mean
            B = B[:, :1]
        white, rest = torch.linalg.solve_triangular(L, torch.cat((B, z[:, None]), 1), upper=False).tensor_split([-1], 1)
        ridge = 1e-10 * white.square().sum(0).mean() * torch.eye(B.shape[1], dtype=B.dtype, device=B.device)
        trend, _ = torch.linalg.solve_ex(white.T @ white + ridge, white.T @ rest)  # not finite where singular
        rest = rest - white @ trend
        alpha = torch.linalg.solve_triangular(L.T, rest, upper=True)
        every = trend.new_zeros(len(self._terms))
        every[: len(trend)] = trend[:, 0]
        return alpha[:, 0], every, rest.square().sum()

    def _per_input(self, rows: Tensor) -> Tensor:
        """Sums (n,) over the rows of each input's slopes."""
        (N, n), kinds = self.labels.x.shape, self._kinds
        if kinds == 1:
            return rows.new_zeros(n)
        full = rows.new_zeros(N * kinds)
        full[self._rows] = rows
        return full.view(N, kinds)[:, 1:].sum(0)


def _factor(K: Tensor) -> Tensor | None:
    """The Cholesky factor of K, in the memory of that; None where K is not positive definite or not finite."""
    L = K.mT
    _, failed = torch.linalg.cholesky_ex(L, out=(L, torch.empty(0, dtype=torch.int32, device=K.device)))
    # LAPACK takes an infinite pivot for a positive one: a line search that steps far out meets infinite noise.
    return None if failed or not bool(L.diagonal().isfinite().all()) else L
