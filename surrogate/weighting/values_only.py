"""The baseline without sensitivities."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from surrogate.loss import Targets
from surrogate.weighting.base import Terms, Weights


@dataclass(frozen=True)
class ValuesOnly:
    """Weight one on each response, none on sensitivities."""

    interval = 0
    uses_jacobian = False

    def start(self, targets: Targets) -> Weights:
        """One in column 0."""
        weights = torch.zeros_like(targets.mean_squares())
        weights[:, 0] = 1.0
        return Weights(weights)

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """The same weights."""
        return weights
