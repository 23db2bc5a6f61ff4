"""Weights from how fast the losses fall."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from surrogate.loss import Targets
from surrogate.weighting.base import Terms, Weights
from surrogate.weighting.groups import Groups, begin, remeasured
from surrogate.weighting.pieces import TINY, check_settings, sum_to


@dataclass(frozen=True)
class SoftAdapt:
    """w = softmax(β · slope of L_g): what falls slowest, or rises, weighs most; the sum is one.

    Heydari, Thompson & Mehmood 2019, *SoftAdapt: techniques for adaptive loss weighting*. The slope is the change of
    the loss since the last update.

    Attributes:
        beta: β; negative favors what falls fastest.
        normalized: Whether slopes are divided by the sum of their magnitudes.
        loss_weighted: Whether each exponential is multiplied by its loss.
        groups: Which terms share a weight (`Grouping`).
        scaled: Whether terms are measured per channel first.
        interval: Steps between two updates.
    """

    beta: float = 0.1
    normalized: bool = False
    loss_weighted: bool = False
    groups: str = "two"
    scaled: bool = True
    interval: int = 5
    uses_jacobian = True

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        check_settings(self, finite=("beta",))

    def start(self, targets: Targets) -> Weights:
        """One for every group."""
        return begin(self, targets)

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """The softmax of the slopes; the first update only takes note of the losses."""
        groups = Groups(self, weights, terms)
        before = groups.recall("losses")
        if before is None:
            return groups.give(groups.weights, losses=groups.losses)
        slopes = groups.losses - before
        if self.normalized:
            slopes = slopes / slopes.abs().sum().clamp(min=TINY)
        parts = torch.softmax(self.beta * slopes, dim=0)
        if self.loss_weighted and bool(groups.losses.sum() > 0.0):
            parts = sum_to(parts * groups.losses, 1.0)
        return groups.give(parts, losses=groups.losses)

    def remeasured(self, weights: Weights, before: Terms, after: Terms) -> Weights:
        """The losses remembered, in another scale of the responses."""
        return remeasured(self, weights, before, after, "losses")
