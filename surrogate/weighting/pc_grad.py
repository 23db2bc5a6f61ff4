"""Conflicts between gradients projected away."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from surrogate.loss import Targets
from surrogate.weighting.base import Terms, Weights
from surrogate.weighting.groups import Groups, begin
from surrogate.weighting.pieces import check_settings


@dataclass(frozen=True)
class PCGrad:
    """Each gradient loses its component against every other that it conflicts with, in random order; then the sum.

    Yu et al. 2020, *Gradient surgery for multi-task learning*. What is taken off is a negative multiple of the other
    gradient, so that the sum is Σ w_g g_g with weights of one and more. The weights hold where they were found: made
    for first-order steps and an interval of one.

    Attributes:
        groups: Which terms share a weight (`Grouping`).
        scaled: Whether terms are measured per channel first.
        interval: Steps between two updates.
    """

    groups: str = "two"
    scaled: bool = True
    interval: int = 1
    uses_jacobian = True

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        check_settings(self)

    def start(self, targets: Targets) -> Weights:
        """One for every group."""
        return begin(self, targets)

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """The weights of the sum of projected gradients."""
        groups = Groups(self, weights, terms)
        gradients = groups.gradients()
        products = gradients @ gradients.T
        parts = torch.eye(len(groups), dtype=products.dtype, device=products.device)
        for i, part in enumerate(parts):
            for j in torch.randperm(len(groups), generator=terms.generator).tolist():
                dot = part @ products[:, j]
                if j != i and dot < 0.0:
                    part[j] -= dot / products[j, j]
        return groups.give(parts.sum(dim=0))
