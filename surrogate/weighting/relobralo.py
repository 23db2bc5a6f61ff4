"""Relative loss balancing with random lookback."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from surrogate.loss import Targets
from surrogate.weighting.base import Terms, Weights
from surrogate.weighting.groups import Groups, begin, remeasured
from surrogate.weighting.pieces import TINY, check_settings, smooth


@dataclass(frozen=True)
class ReLoBRaLo:
    """w = α (ρ w + (1 − ρ) ŵ(first)) + (1 − α) ŵ(before), ŵ(t) = G softmax(L / (T L(t))), ρ drawn of 0 and 1.

    Bischof & Kraus 2021, *Multi-objective loss balancing for physics-informed deep learning*: a loss that has fallen
    less than the others since the start, or the last update, weighs more. With G groups, the weights sum to G.

    Attributes:
        alpha: α, share of the past.
        expected: Probability that ρ is one; else the weights are compared with the first losses.
        temperature: T; the lower, the more only the worst counts.
        groups: Which terms share a weight (`Grouping`).
        scaled: Whether terms are measured per channel first.
        interval: Steps between two updates.
    """

    alpha: float = 0.999
    expected: float = 0.999
    temperature: float = 1.0
    groups: str = "two"
    scaled: bool = True
    interval: int = 1
    uses_jacobian = True

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        check_settings(self, positive=("temperature",), shares=("alpha", "expected"))

    def start(self, targets: Targets) -> Weights:
        """One for every group."""
        return begin(self, targets)

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """A step of the average; the first update only takes note of the losses."""
        groups = Groups(self, weights, terms)
        first, before = groups.recall("first"), groups.recall("before")
        if first is None:
            return groups.give(groups.weights, first=groups.losses, before=groups.losses)
        keep = bool(torch.rand((), generator=terms.generator) < self.expected)
        past = groups.weights if keep else self._relative(groups.losses, first)
        new = smooth(past, self._relative(groups.losses, before), self.alpha)
        return groups.give(new, first=first, before=groups.losses)

    def remeasured(self, weights: Weights, before: Terms, after: Terms) -> Weights:
        """The losses remembered, in another scale of the responses."""
        return remeasured(self, weights, before, after, "first", "before")

    def _relative(self, losses: Tensor, past: Tensor) -> Tensor:
        ratios = losses / (self.temperature * past).clamp(min=TINY)
        return len(losses) * torch.softmax(ratios, dim=0)
