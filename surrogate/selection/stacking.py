"""The mixture of families that errs least on samples they have not seen, and its standard deviations."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import ceil
from statistics import NormalDist

import torch
from torch import Tensor, nn

from sobofem.surrogate.files.registry import register
from sobofem.surrogate.networks.base import Network, NetworkModule, as_network_module, value_and_jacobian

CALIBRATED_LEVEL = 0.95
"""Share of the labels not seen that intervals are to cover."""
MIN_WEIGHT = 0.05
"""Weight of a part below which it is left out: it costs as much as any, and changes next to nothing."""
MAX_ERROR_RATIO = 2.0
"""Root mean square error of a part, over that of the best, from which on it has no share: a part that errs k times as
much and independently could save 1 / (2 k²) of the error at most, and what it spoils can be far more."""
EXACT_ERROR = 1e-20
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
VARIANCE_SHARES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
"""Shares of the predicted variance in the calibrated one that are tried, the rest being constant."""


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
        matrix += kind / kind.diagonal().min().clamp(min=EXACT_ERROR * len(relative))
    if not bool(matrix.any()):
        return errors.new_full((F,), 1.0 / F)
    good = torch.nonzero(matrix.diagonal() <= MAX_ERROR_RATIO**2 * matrix.diagonal().min()).flatten()
    weights = errors.new_zeros(F).index_put((good,), _least(matrix[good][:, good]))
    weights = torch.where(weights < MIN_WEIGHT, 0.0, weights)
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
        variances: Those that the mixture predicts there (L,).
    """
    if not float(errors.abs().max()) > 0.0:
        return 0.0, EXACT_ERROR
    mean = variances.mean()
    relative = variances / mean if mean > 0.0 else torch.ones_like(variances)
    # Twice the negative log likelihood over L, its size being free: only the shape of the variance decides.
    best, chosen = torch.inf, 0.0
    for share in VARIANCE_SHARES:
        shape = share * relative + (1.0 - share)
        if float(shape.min()) <= 0.0:
            continue
        value = float(torch.log((errors.square() / shape).mean()) + torch.log(shape).mean())
        if value < best:
            best, chosen = value, share
    shape = chosen * relative + (1.0 - chosen)
    ratios = (errors.square() / shape).sort().values
    N, rank = len(ratios), ceil((len(ratios) + 1) * CALIBRATED_LEVEL)
    squared = float(ratios[min(rank, N) - 1])
    if rank > N:
        freedom = max(N - 2, 1)
        squared = max(squared, STUDENT[freedom - 1] ** 2 * (1.0 + 1.0 / N) * float(ratios.sum()) / freedom)
    size = squared / NormalDist().inv_cdf(0.5 + 0.5 * CALIBRATED_LEVEL) ** 2
    return (chosen * size / float(mean) if mean > 0.0 else 0.0), max((1.0 - chosen) * size, EXACT_ERROR)


@register
@dataclass(frozen=True)
class Mixture:
    """A weighted mean of networks, the weights of each response its own.

    Attributes:
        parts: What is mixed.
    """

    parts: tuple[Network, ...]

    def __post_init__(self) -> None:
        """Refuse a mixture of nothing."""
        if not self.parts:
            raise ValueError("a mixture has no parts; expected at least one network")

    def build(self, n: int, m: int, generator: torch.Generator) -> MixtureModule:
        """An untrained module of the right shape."""
        return MixtureModule([part.build(n, m, generator) for part in self.parts], n, m)


class MixtureModule(NetworkModule):
    """Σ over parts of weight · part.

    The variance at a point is `gain` times what the parts say, each of itself and by their disagreement, plus `floor`:
    two numbers for each value and each slope, found on samples that the parts had not seen.

    Attributes:
        parts: Modules from (N, n) to (N, m).
        weights: (m, F), not negative, sums of one.
        gain: Column 0 for values, the others for slopes (m, 1 + n).
        floor: Likewise.
    """

    weights: Tensor
    gain: Tensor
    floor: Tensor

    def __init__(self, parts: list[nn.Module], n: int, m: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.register_buffer("weights", torch.full((m, len(parts)), 1.0 / len(parts), dtype=torch.float64))
        self.register_buffer("gain", torch.ones(m, 1 + n, dtype=torch.float64))
        self.register_buffer("floor", torch.zeros(m, 1 + n, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N, m) at inputs (N, n)."""
        return (torch.stack([part(x) for part in self.parts], -1) * self.weights).sum(-1)

    def value_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (N, m) and their Jacobian (N, m, n) at inputs (N, n), both differentiable."""
        y, slopes = zip(*(value_and_jacobian(part, x) for part in self.parts), strict=True)
        weights = self.weights.unsqueeze(1)
        return (torch.stack(y, -1) * self.weights).sum(-1), (torch.stack(slopes, -1) * weights).sum(-1)

    def standard_deviation(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Standard deviations of outputs (N, m) and Jacobians (N, m, n) at inputs (N, n)."""
        deviation = (self.gain * spread(*part_outputs(list(self.parts), x), self.weights) + self.floor).sqrt()
        return deviation[..., 0], deviation[..., 1:]


def part_outputs(parts: list[nn.Module], x: Tensor) -> tuple[Tensor, Tensor]:
    """Predictions of each part, values then slopes (N, m, 1 + n, F), and their variances; zero where it has none.

    That is its `disagreement(x)`, which is right up to a factor, if it has one.
    """
    means, variances = [], []
    for part in parts:
        y, slopes = value_and_jacobian(part, x)
        means.append(torch.cat((y.unsqueeze(-1), slopes), -1))
        if not as_network_module(part).has_disagreement:
            variances.append(torch.zeros_like(means[-1]))
        else:
            s, S = as_network_module(part).disagreement(x)
            variances.append(torch.cat((s.unsqueeze(-1), S), -1).square())
    return torch.stack(means, -1), torch.stack(variances, -1)


def spread(means: Tensor, variances: Tensor, weights: Tensor) -> Tensor:
    """Variance (N, m, k) of a mixture of means and variances (N, m, k, F) with weights (m, F)."""
    shares = weights.unsqueeze(1)
    center = (means * shares).sum(-1, keepdim=True)
    return ((variances + (means - center).square()) * shares).sum(-1)
