"""Weights from the spread of each term's gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from surrogate.loss import Targets
from surrogate.weighting.base import Terms, Weights
from surrogate.weighting.groups import Groups, begin
from surrogate.weighting.pieces import check_settings, smooth


@dataclass(frozen=True)
class InverseDirichlet:
    """Groups weigh inversely to the standard deviation of their gradients (Maddu et al. 2022).

    ŵ_g = max_j std(g_j) / std(g_g), w ← α w + (1 − α) ŵ, with g_g the gradient of group g by all parameters:
    a group with flat gradients is lifted until it pulls as hard as the steepest.

    Attributes:
        memory: α, share of the old weights that an update keeps.
        groups: Which terms share a weight (`Grouping`).
        scaled: Whether terms are measured per channel first.
        interval: Steps between two updates.
    """

    memory: float = 0.5
    groups: str = "all"
    scaled: bool = False
    interval: int = 5
    uses_jacobian = True

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        check_settings(self, shares=("memory",))

    def start(self, targets: Targets) -> Weights:
        """One for every group."""
        return begin(self, targets)

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """Moving average towards ŵ; a group without any gradient keeps its weight."""
        groups = Groups(self, weights, terms)
        spread = groups.gradients().std(dim=1, correction=0)
        wanted = torch.where(spread > 0.0, spread.max() / spread, groups.weights)
        return groups.give(smooth(groups.weights, wanted, self.memory))
