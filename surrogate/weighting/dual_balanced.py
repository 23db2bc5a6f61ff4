"""Balance between values and sensitivities, and among the sensitivities."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from surrogate.loss import Targets
from surrogate.weighting.base import Terms, Weights
from surrogate.weighting.groups import Groups, begin, remeasured
from surrogate.weighting.pieces import TINY, check_settings


@dataclass(frozen=True)
class DualBalanced:
    """What sensitivities weigh together follows from gradients; how they share it, from their losses.

    ŵ = Σ_g stat(g_ref) / stat(g_g) over the groups of sensitivities; group g's part of it is in proportion to L_g over
    its running mean, how hard it is to fit at present; and weights are the running means of these parts. The
    reference is what holds the responses, weighed by one (Zhou et al. 2025, *Dual-balancing for physics-informed neural
    networks*).

    Attributes:
        statistic: `mean`: max|g_ref| / mean|g_g|; `std`: ratio of standard deviations; `kurtosis`: ratio of standard
            deviation over kurtosis.
        groups: Which terms share a weight (`Grouping`).
        scaled: Whether terms are measured per channel first.
        interval: Steps between two updates.
    """

    statistic: str = "mean"
    groups: str = "inputs"
    scaled: bool = True
    interval: int = 10
    uses_jacobian = True

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        check_settings(self)
        if self.statistic not in ("mean", "std", "kurtosis"):
            raise ValueError(f"statistic is {self.statistic!r}; expected 'mean', 'std' or 'kurtosis'")

    def start(self, targets: Targets) -> Weights:
        """One for every group."""
        return begin(self, targets, count=0)

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """Running means of weights and losses; groups of responses keep one."""
        groups = Groups(self, weights, terms)
        others = ~groups.of_values
        if not others.any():
            return weights
        count = groups.recall("count") + 1
        before = groups.recall("means")
        means = groups.losses if before is None else before + (groups.losses - before) / count
        gradients = groups.gradients()
        together = self._ratios(gradients[groups.of_values].sum(dim=0), gradients[others]).sum()
        difficulty = groups.losses[others] / means[others].clamp(min=TINY)
        wanted = together * difficulty / difficulty.sum().clamp(min=TINY)
        average = groups.recall("average")
        average = torch.zeros_like(groups.weights) if average is None else average
        average[others] += (wanted - average[others]) / count
        new = torch.where(others, average, groups.weights)
        return groups.give(new, means=means, average=average, count=count)

    def remeasured(self, weights: Weights, before: Terms, after: Terms) -> Weights:
        """The losses remembered, in another scale of the responses."""
        return remeasured(self, weights, before, after, "means")

    def _ratios(self, reference: Tensor, gradients: Tensor) -> Tensor:
        """Statistic of the reference (P,) over that of each gradient (G, P); one where there is no gradient."""
        if self.statistic == "mean":
            above, below = reference.abs().max(), gradients.abs().mean(dim=1)
        elif self.statistic == "std":
            above, below = reference.std(correction=0), gradients.std(dim=1, correction=0)
        else:
            above, below = _tailed(reference.unsqueeze(0))[0], _tailed(gradients)
        sound = (below > 0.0) & (above > 0.0)
        return torch.where(sound, above / torch.where(sound, below, 1.0), 1.0)


def _tailed(gradients: Tensor) -> Tensor:
    """Standard deviation over kurtosis of each row."""
    centered = gradients - gradients.mean(dim=1, keepdim=True)
    variance = centered.square().mean(dim=1)
    kurtosis = centered.pow(4).mean(dim=1) / variance.square().clamp(min=TINY)
    return variance.sqrt() / kurtosis.clamp(min=TINY)
