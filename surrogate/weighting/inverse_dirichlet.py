"""Weights from the spread of each term's gradient."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from surrogate.loss import Targets
from surrogate.weighting.base import Terms, Weights


@dataclass(frozen=True)
class InverseDirichlet:
    """Terms weigh inversely to the standard deviation of their gradients (Maddu et al. 2022).

    ŵ_k = max_j std(g_j) / std(g_k), w ← α w + (1 − α) ŵ, with g_k the gradient of term k by all parameters:
    a term with flat gradients is lifted until it pulls as hard as the steepest.

    Attributes:
        memory: α, share of the old weights that an update keeps.
        interval: Steps between two updates.
    """

    memory: float = 0.5
    interval: int = 5
    uses_jacobian = True

    def start(self, targets: Targets) -> Weights:
        """One for every term."""
        return Weights(torch.ones_like(targets.mean_squares()))

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """Moving average towards ŵ; a term without any gradient keeps its weight."""
        spread = terms.gradients().std(dim=1, correction=0).reshape(terms.losses.shape)
        wanted = torch.where(spread > 0.0, spread.max() / spread, weights.values)
        return replace(weights, values=self.memory * weights.values + (1.0 - self.memory) * wanted)
