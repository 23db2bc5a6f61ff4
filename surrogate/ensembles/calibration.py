"""Factors that make the disagreement of networks a standard deviation that covers what it should."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from statistics import NormalDist

import torch
from torch import Tensor

from surrogate.ensembles.module import EnsembleModule
from surrogate.loss import Targets

LEVEL = 0.95
"""Share of held-out labels that lie within the interval of this level after calibration."""


class Ratios:
    """Errors over standard deviations at samples that the networks haven't seen, collected fold by fold."""

    def __init__(self) -> None:
        self._values: list[Tensor] = []
        self._slopes: list[Tensor] = []

    def add(self, module: EnsembleModule, held_out: Targets) -> None:
        """Take in what an ensemble that is not calibrated yet makes of held-out samples."""
        with torch.no_grad():
            y, slopes = module.value_and_jacobian(held_out.x)
            deviation, slope_deviation = module.standard_deviation(held_out.x)
        tiny = torch.finfo(y.dtype).tiny
        self._values.append((y - held_out.y).abs() / deviation.clamp(min=tiny))
        if held_out.jacobian is None:
            return
        ratios = (slopes - held_out.jacobian).abs() / slope_deviation.clamp(min=tiny)
        if held_out.presence is not None:
            known = held_out.presence[..., : ratios.shape[2]] > 0.0
            ratios = torch.where(known, ratios, torch.nan)
        self._slopes.append(ratios)

    def factors(self) -> tuple[Tensor, Tensor]:
        """What to multiply standard deviations of values and of slopes by (m,), (m,).

        The interval of the level then covers that share of the held-out labels of each response, and of a label that
        is exchangeable with them (split conformal prediction: Papadopoulos et al. 2002; Lei et al. 2018). Without
        Jacobians, or without any of a response, the slopes take the factors of the values.
        """
        values = _factors(torch.cat(self._values).T)
        if not self._slopes:
            return values, values.clone()
        slopes = _factors(torch.cat(self._slopes).transpose(0, 1).flatten(1))
        return values, torch.where(slopes.isnan(), values, slopes)


def folds(N: int, count: int, generator: torch.Generator) -> Sequence[Tensor]:
    """Row numbers in random order, split into so many nearly equal parts."""
    return torch.randperm(N, generator=generator).tensor_split(count)


def _factors(ratios: Tensor) -> Tensor:
    """Quantile of each response's ratios (m, L), over that of the normal distribution; NaN where there is no label."""
    return torch.stack([_quantile(row[~row.isnan()]) for row in ratios]) / NormalDist().inv_cdf(0.5 + 0.5 * LEVEL)


def _quantile(ratios: Tensor) -> Tensor:
    """The ratio that a further one exceeds with probability 1 − LEVEL; the largest if there are too few."""
    if not len(ratios):
        return ratios.new_tensor(torch.nan)
    rank = min(ceil((len(ratios) + 1) * LEVEL), len(ratios))
    return ratios.sort().values[rank - 1]
