"""Weights inverse to the size of the targets."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from surrogate.loss import Targets
from surrogate.weighting.base import Terms, Weights


@dataclass(frozen=True)
class EpsilonOptimal:
    """w_k ∝ 1 / mean(target_k²), with the sum one (Maddu et al. 2022, *Inverse-Dirichlet weighting*).

    So weighted, equal relative errors of all terms cost the same. A target that vanishes at all samples is measured
    by the response itself; a term without labels does, too, to no effect.
    """

    interval = 0
    uses_jacobian = True

    def start(self, targets: Targets) -> Weights:
        """The inverse mean squares over their sum."""
        squares = targets.mean_squares()
        inverse = 1.0 / torch.where(squares > 0.0, squares, 1.0)
        return Weights(inverse / inverse.sum())

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """The same weights."""
        return weights
