"""Weights that adapt for a while."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from surrogate.loss import Targets
from surrogate.weighting.base import Terms, Weighting, Weights, label_noise, remeasured, weighs_samples
from surrogate.weighting.pieces import check_weighting


@dataclass(frozen=True)
class Until:
    """An adaptive weighting up to a step, and the weights that it has found by then from there on.

    The curvature that L-BFGS has learned holds less and less while weights change: a weighting that changes them every
    few steps belongs to Adam, and L-BFGS afterwards to what it has found.

    Attributes:
        adaptive: The weighting.
        steps: Steps, over all stages, after which its weights stay.
    """

    adaptive: Weighting
    steps: int

    def __post_init__(self) -> None:
        """Refuse what is no weighting, and an end before the start."""
        check_weighting(self, "adaptive")
        if not self.steps >= 1:
            raise ValueError(f"steps of Until is {self.steps}; expected at least 1")

    @property
    def interval(self) -> int:
        """Of the adaptive weighting."""
        return self.adaptive.interval

    @property
    def weighs_samples(self) -> bool:
        """Whether the adaptive weighting does."""
        return weighs_samples(self.adaptive)

    @property
    def uses_jacobian(self) -> bool:
        """Whether the adaptive weighting does."""
        return self.adaptive.uses_jacobian

    def start(self, targets: Targets) -> Weights:
        """The adaptive weighting's start."""
        return self.adaptive.start(targets)

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """The adaptive weighting's update; afterwards the same weights, those that were negative left out."""
        if terms.step <= self.steps:
            return self.adaptive.update(weights, terms)
        if weights.reference is None:
            return weights
        return replace(weights, values=weights.values.clamp(min=0.0), reference=None)

    def noise(self, weights: Weights, terms: Terms) -> Tensor | None:
        """As the adaptive weighting has it."""
        return label_noise(self.adaptive, weights, terms)

    def remeasured(self, weights: Weights, before: Terms, after: Terms) -> Weights:
        """As the adaptive weighting does."""
        return remeasured(self.adaptive, weights, before, after)
