"""How likely a trained network makes its labels: Laplace's approximation, and the standard deviations that follow."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log, pi
from statistics import NormalDist

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from sobofem.surrogate.device import CPU
from sobofem.surrogate.loss import residuals, term_losses
from sobofem.surrogate.networks.base import Network
from sobofem.surrogate.networks.composed import Linearized, LinearizedModule
from sobofem.surrogate.training.least_squares import (
    LeastSquares,
    NoLeastSquares,
    check_least_squares,
    gram,
    label_scales,
)
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

    def reweighed(self, objective: Objective, step: int) -> Levels | None:
        """Those of the same noise once the weighting has updated its weights; None where these stay.

        Weights measure all labels again: the noise of the weighted ones is another number.
        """
        before = _squared_errors(objective)
        if not objective.update_weights(step):
            return None
        return Levels(self.noise * before / max(_squared_errors(objective), 1e-300), self.priors)

    def apply(self, objective: Objective) -> None:
        """Have the objective be what is minimized at these levels."""
        objective.shares = [alpha / self.noise / objective.decay for alpha in self.priors]


def _squared_errors(objective: Objective) -> float:
    with torch.no_grad():
        return float(objective.of_losses(term_losses(objective.module, objective.targets)))


def _at(objective: Objective) -> Tensor:
    return torch.cat([p.detach().flatten() for p in objective.parameters])


def _limited(old: float, new: float, bounds: tuple[float, float]) -> float:
    """The new level, no farther from the old one than one update may go."""
    change = min(max(log(max(new, 1e-300) / old), -MAX_CHANGE), MAX_CHANGE)
    return min(max(old * exp(change), bounds[0]), bounds[1])


COVERED = 0.95
"""Share of the labels left out that lie within the interval of this level after inflation."""
BEYOND = 3.0
"""Samples, at least, that are to lie beyond: the linearization is far off at single ones, at corners of the box."""
MOST_WEIGHTS = 6000
"""Weights whose covariance is factorized: it takes 0.3 GB."""


def linearized(network: Network, objective: Objective) -> tuple[Linearized, LinearizedModule]:
    """A trained network with standard deviations, inflated until they cover labels that are left out.

    The labels of each sample are left out in turn, of the linearized network, in closed form. Noise and prior are those
    of `log_evidence`.

    Args:
        network: What the module was built from.
        objective: With the module, trained.

    Raises:
        NoLeastSquares: As `check_linearized` says.
    """
    check_linearized(objective)
    targets, module = objective.targets, objective.module
    squares = LeastSquares.of(objective)
    variance = noise_variance(squares, parameters_to_vector(objective.parameters).detach())
    (N, n), m = targets.x.shape, targets.y.shape[1]
    slopes = objective.weighting.uses_jacobian and targets.jacobian is not None
    with CPU:
        found = LinearizedModule(module.cpu(), N, n, m, slopes=slopes)
    with torch.no_grad():
        errors = residuals(module, targets.to("cpu"), jacobian=slopes)[..., : 1 + n if slopes else 1]
    scales = label_scales(objective).cpu()[..., : errors.shape[2]] / variance**0.5
    found.points.copy_(targets.x.cpu())
    found.scales.copy_(scales)
    found.precisions.copy_(torch.tensor(Levels.of(objective).priors))
    found.noise.zero_()
    found.noise[:, : scales.shape[2]] = _noise(scales)
    ratios = found.leave_one_out(errors).abs()
    found.value_factors.copy_(_inflation(ratios[..., :1]).nan_to_num(nan=1.0))
    if slopes:
        found.slope_factors.copy_(_inflation(ratios[..., 1:]))
    else:
        found.slope_factors.fill_(torch.nan)
    return Linearized(network, N, slopes), found.eval()


def check_linearized(objective: Objective) -> None:
    """Check that a network trained on the objective can have standard deviations; before it is trained, too.

    Raises:
        NoLeastSquares: If the objective is no sum of squares without curvature, or has too many weights.
    """
    targets, module = objective.targets, objective.module
    count = sum(p.numel() for p in objective.parameters)
    if count > MOST_WEIGHTS or not objective.decay or targets.directions is not None:
        raise NoLeastSquares(
            f"standard deviations need a decay, labels without curvature and at most {MOST_WEIGHTS} weights, of which "
            f"there are {count}; use train_ensemble, or fit"
        )
    if not all(p.requires_grad for p in module.parameters()):
        raise NoLeastSquares(f"{type(module).__name__} has parameters that are not trained; use train_ensemble, or fit")
    check_least_squares(objective)


def _noise(scales: Tensor) -> Tensor:
    """Standard deviation of the noise of each term (m, T), in the mean over the labels that are there."""
    there = scales > 0.0
    variances = torch.where(there, scales, 1.0).pow(-2) * there
    return (variances.sum(0) / there.sum(0).clamp(min=1)).sqrt()


def _inflation(ratios: Tensor) -> Tensor:
    """What deviations of each response are multiplied by to cover what was left out (m,), at least one.

    The quantile of the ratios over that of the normal distribution, at a level that some samples are beyond.

    Args:
        ratios: Errors over deviations (N, m, K), NaN where there is no label; a response without any has NaN.
    """
    level = min(COVERED, max(0.5, 1.0 - BEYOND / len(ratios)))
    quantile = torch.nanquantile(ratios.transpose(1, 2).flatten(0, 1), level, dim=0)
    return (quantile / NormalDist().inv_cdf(0.5 + 0.5 * level)).clamp(min=1.0)
