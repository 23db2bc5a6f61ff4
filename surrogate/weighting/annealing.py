"""Learning rate annealing."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from surrogate.loss import Targets
from surrogate.weighting.base import Terms, Weights
from surrogate.weighting.groups import Groups, begin
from surrogate.weighting.pieces import check_settings, smooth


@dataclass(frozen=True)
class Annealing:
    """ŵ_g = max|g_ref| / mean|g_g|, w ← memory · w + (1 − memory) ŵ, over all parameters.

    Wang, Teng & Perdikaris 2021, *Understanding and mitigating gradient flow pathologies in physics-informed neural
    networks*. The reference is what holds the responses, weighed by one; sensitivities are lifted to it.

    Attributes:
        memory: Share of the old weights that an update keeps.
        groups: Which terms share a weight (`Grouping`).
        scaled: Whether terms are measured per channel first.
        interval: Steps between two updates.
    """

    memory: float = 0.9
    groups: str = "two"
    scaled: bool = True
    interval: int = 10
    uses_jacobian = True

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        check_settings(self, shares=("memory",))

    def start(self, targets: Targets) -> Weights:
        """One for every group."""
        return begin(self, targets)

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """Moving average towards ŵ; groups of responses, and those without any gradient, keep their weights."""
        groups = Groups(self, weights, terms)
        gradients = groups.gradients()
        steepest = gradients[groups.of_values].sum(dim=0).abs().max()
        mean = gradients.abs().mean(dim=1)
        keep = groups.of_values | ~(mean > 0.0) | ~(steepest > 0.0)
        wanted = torch.where(keep, groups.weights, steepest / torch.where(keep, 1.0, mean))
        return groups.give(smooth(groups.weights, wanted, self.memory))
