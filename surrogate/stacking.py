"""Weights of a mixture, and the calibration of its standard deviation, from predictions of samples not seen."""

from __future__ import annotations

from itertools import combinations
from math import ceil
from statistics import NormalDist

import torch
from torch import Tensor

LEVEL = 0.95
SMALL = 0.05
HOPELESS = 2.0
"""Root mean square error of a part, over that of the best, from which on it has no share: a part that errs k times as
much and independently could save 1 / (2 k²) of the error at most, and what it spoils can be far more."""
EXACT = 1e-20
"""Squared relative errors below this are as good as none: they are made of round-off."""
STUDENT = (
    12.706,
    4.303,
    3.182,
    2.776,
    2.571,
    2.447,
    2.365,
    2.306,
    2.262,
    2.228,
    2.201,
    2.179,
    2.160,
    2.145,
    2.131,
    2.120,
)
"""Quantiles of Student's t that hold the level on both sides, by degrees of freedom from one on."""
SHARES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)


def stacked_weights(errors: Tensor, scale: Tensor, known: Tensor) -> Tensor:
    """Weights of a mixture whose squared error on samples not seen is least (stacking; Wolpert 1992, Breiman 1996).

    Values and slopes count alike: each kind's mean squared error is measured by the best part's.

    Args:
        errors: Of each part for one response, values then slopes (N, 1 + n, F).
        scale: Mean squares of the labels (1 + n,), slopes' with a floor: what errors are relative to.
        known: Which labels are there (N, 1 + n).

    Returns:
        (F,), not negative, with a sum of one; parts of less than a twentieth are left out, and so are those that err
        more than twice as much as the best.
    """
    F = errors.shape[-1]
    relative = torch.where(known.unsqueeze(-1), errors, 0.0) / scale.sqrt().unsqueeze(-1)
    kinds = [torch.einsum("nkf,nkg->fg", part, part) for part in (relative[:, :1], relative[:, 1:])]
    matrix = errors.new_zeros(F, F)
    for kind in kinds:
        matrix += kind / kind.diagonal().min().clamp(min=EXACT * len(relative))
    if not bool(matrix.any()):
        return errors.new_full((F,), 1.0 / F)
    good = torch.nonzero(matrix.diagonal() <= HOPELESS**2 * matrix.diagonal().min()).flatten()
    weights = errors.new_zeros(F).index_put((good,), _least(matrix[good][:, good]))
    weights = torch.where(weights < SMALL, 0.0, weights)
    return weights / weights.sum()


def _least(matrix: Tensor) -> Tensor:
    """The point of the simplex at which w·Aw is least: the best of its faces' stationary points that lie inside."""
    F = len(matrix)
    one = torch.eye(F, dtype=matrix.dtype, device=matrix.device)
    best, found = torch.inf, one[0]
    for size in range(1, F + 1):
        for chosen in combinations(range(F), size):
            rows = torch.tensor(chosen, device=matrix.device)
            block = matrix[rows][:, rows]
            ridge = 1e-12 * block.diagonal().mean() * one[:size, :size]
            w = torch.linalg.solve(block + ridge + torch.finfo(matrix.dtype).tiny, matrix.new_ones(size))
            w = w / w.sum()
            value = float(w @ block @ w)
            if bool(torch.isfinite(w).all()) and bool((w >= 0.0).all()) and value < best:
                best, found = value, matrix.new_zeros(F).index_put((rows,), w)
    return found


def calibrated(errors: Tensor, variances: Tensor) -> tuple[float, float]:
    """Gain and floor that make gain · variance + floor the variance of these errors.

    Their ratio is that of the greatest likelihood; their size lets intervals of 95 % cover as many of the errors, and
    one further (split conformal prediction; Papadopoulos et al. 2002). Fewer than 19 errors hold no such quantile:
    there intervals are at least those by Student's t for the next of normal errors, of which two numbers are estimated.

    Args:
        errors: On samples not seen (L,).
        variances: What the mixture says there (L,).
    """
    if not float(errors.abs().max()) > 0.0:
        return 0.0, EXACT
    mean = variances.mean()
    relative = variances / mean if mean > 0.0 else torch.ones_like(variances)
    best, chosen = torch.inf, 0.0
    for share in SHARES:
        shape = share * relative + (1.0 - share)
        if float(shape.min()) <= 0.0:
            continue
        value = float(torch.log((errors.square() / shape).mean()) + torch.log(shape).mean())
        if value < best:
            best, chosen = value, share
    shape = chosen * relative + (1.0 - chosen)
    ratios = (errors.square() / shape).sort().values
    N, rank = len(ratios), ceil((len(ratios) + 1) * LEVEL)
    squared = float(ratios[min(rank, N) - 1])
    if rank > N:
        freedom = max(N - 2, 1)
        squared = max(squared, STUDENT[freedom - 1] ** 2 * (1.0 + 1.0 / N) * float(ratios.sum()) / freedom)
    size = squared / NormalDist().inv_cdf(0.5 + 0.5 * LEVEL) ** 2
    return (chosen * size / float(mean) if mean > 0.0 else 0.0), max((1.0 - chosen) * size, EXACT)
