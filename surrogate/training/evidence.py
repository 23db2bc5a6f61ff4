"""How likely a trained network makes its labels: Laplace's approximation, by which networks are compared."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log, pi

import torch
from torch import Tensor

from sobofem.surrogate.training.least_squares import LeastSquares, gram
from sobofem.surrogate.training.objective import Objective

MAX_CHANGE = 1.5
"""Largest change of a logarithm of a level at an update."""
NOISE_PRECISIONS, PRECISIONS = (1e-4, 1e12), (1e-6, 1e8)
"""Between which inverse variances stay: of the weighted labels' noise, and of the priors."""


def noise_variance(squares: LeastSquares, at: Tensor) -> float:
    """Variance of the weighted labels' noise that makes them likeliest, the decay given.

    Args:
        squares: Residuals and their derivatives at a minimum.
        at: The parameters there (P,).
    """
    total = squares.residuals @ squares.residuals + squares.decay @ at.square()
    return float(total) / len(squares.residuals)


def precisions(squares: LeastSquares, variance: float) -> Tensor:
    """Inverse variances of the parameters' normal priors (P,): the decay's, over the noise; one for biases."""
    return torch.where(squares.decay > 0.0, squares.decay / variance, 1.0)


def log_evidence(squares: LeastSquares, at: Tensor) -> float:
    """Logarithm of the labels' probability, all weights of the network integrated out (MacKay 1992).

    The decay is a normal prior of the matrices, biases have one of variance one, and labels are off by normal noise,
    their weights being the inverse variances but for one factor, which is taken where it is likeliest. Around the
    minimum the network is linear in its weights, with Gauss and Newton. So the labels are normal, with covariance
    s² I + J Λ⁻¹ Jᵀ; of that and of its other side, JᵀJ + s² Λ, the smaller is factorized.

    Args:
        squares: Residuals and their derivatives at a minimum.
        at: The parameters there (P,).

    Returns:
        Minus infinity where it can't be computed. Networks, decays and weights of the same labels compare.
    """
    variance, count = noise_variance(squares, at), len(squares.residuals)
    if not 0.0 < variance < float("inf"):
        return -float("inf")
    X = squares.jacobian / (variance * precisions(squares, variance)).sqrt()
    A = gram(X.T if len(X) < X.shape[1] else X)
    A.diagonal().add_(1.0)
    factor, info = torch.linalg.cholesky_ex(A)
    if info:
        return -float("inf")
    biases = float(at[squares.decay == 0.0].square().sum())
    half_log_determinant = float(factor.diagonal().log().sum())
    fit = -0.5 * count * (1.0 + log(2.0 * pi * variance)) - 0.5 * biases
    return fit - half_log_determinant + float(squares.scales.log().sum())


def determined(squares: LeastSquares, variance: float) -> Tensor:
    """How far the labels determine each parameter (P,): from zero, where the prior alone does, to one."""
    X = squares.jacobian / (variance * precisions(squares, variance)).sqrt()
    if len(X) < X.shape[1]:
        A = gram(X.T)
        A.diagonal().add_(1.0)
        solved = torch.linalg.solve_triangular(torch.linalg.cholesky(A), X, upper=False)
        return solved.square().sum(0)
    A = gram(X)
    A.diagonal().add_(1.0)
    return 1.0 - torch.cholesky_inverse(torch.linalg.cholesky(A)).diagonal()


@dataclass(frozen=True)
class Levels:
    """Inverse variances of noise and priors, as MacKay (1992) updates them: each by what the labels determine.

    Attributes:
        noise: Of the weighted labels.
        priors: Of each tensor of parameters.
    """

    noise: float
    priors: tuple[float, ...]

    @classmethod
    def of(cls, objective: Objective) -> Levels:
        """Those that the decay stands for, at the present parameters."""
        squares, at = LeastSquares.of(objective), _at(objective)
        variance = noise_variance(squares, at)
        each = precisions(squares, variance).split([p.numel() for p in objective.parameters])
        return cls(1.0 / variance, tuple(float(part[0]) for part in each))

    def updated(self, objective: Objective) -> Levels:
        """Noise by the degrees of freedom that are left, priors by those used, at the present parameters."""
        squares, at = LeastSquares.of(objective), _at(objective)
        sizes = [p.numel() for p in objective.parameters]
        known = determined(squares, 1.0 / self.noise)
        error = float(squares.residuals @ squares.residuals)
        free = max(len(squares.residuals) - float(known.sum()), 1e-3)
        noise = _limited(self.noise, free / max(error, 1e-300), NOISE_PRECISIONS)
        pairs = zip(self.priors, known.split(sizes), at.split(sizes), strict=True)
        priors = [_limited(a, float(k.sum()) / max(float(t @ t), 1e-300), PRECISIONS) for a, k, t in pairs]
        return Levels(noise, tuple(priors))

    def apply(self, objective: Objective) -> None:
        """Have the objective be what is minimized at these levels."""
        objective.shares = [alpha / self.noise / objective.decay for alpha in self.priors]


def _at(objective: Objective) -> Tensor:
    return torch.cat([p.detach().flatten() for p in objective.parameters])


def _limited(old: float, new: float, bounds: tuple[float, float]) -> float:
    """The new level, no farther from the old one than one update may go."""
    change = min(max(log(max(new, 1e-300) / old), -MAX_CHANGE), MAX_CHANGE)
    return min(max(old * exp(change), bounds[0]), bounds[1])
