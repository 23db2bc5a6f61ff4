"""Standard deviations of one trained network."""

from __future__ import annotations

from statistics import NormalDist

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from sobofem.surrogate.device import CPU
from sobofem.surrogate.loss import residuals
from sobofem.surrogate.networks.base import Network
from sobofem.surrogate.networks.composed import Linearized, LinearizedModule
from sobofem.surrogate.training.evidence import Levels, noise_variance
from sobofem.surrogate.training.least_squares import LeastSquares, NoLeastSquares, check_least_squares, label_scales
from sobofem.surrogate.training.objective import Objective

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
