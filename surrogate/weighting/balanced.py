"""Sensitivities measured by their root mean squares, and balanced against values by their number."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from surrogate.loss import Targets
from surrogate.weighting.base import Terms, Weights


@dataclass(frozen=True)
class Balanced:
    """Values α = 1 / (1 + λ n), sensitivities (1 − α) times the mean over inputs of λ_j² r_j².

    λ_j = 1 / √mean((∂ỹ/∂x̃_j)²) makes every input count alike (Huge & Savine 2020, *Differential machine
    learning*). With λ = 1 all terms weigh as in `PerChannel` without its floor. An entry that vanishes at all
    samples is measured by the response itself.

    Attributes:
        sensitivities: λ, weight of one sensitivity against the value.
    """

    sensitivities: float = 1.0
    interval = 0
    uses_jacobian = True

    def __post_init__(self) -> None:
        """Refuse what is no weight."""
        if not 0.0 < self.sensitivities < float("inf"):
            raise ValueError(f"sensitivities is {self.sensitivities:g}; expected a positive number")

    def start(self, targets: Targets) -> Weights:
        """α, and (1 − α) λ_j² / n."""
        squares = targets.mean_squares()
        n = squares.shape[1] - 1
        alpha = 1.0 / (1.0 + self.sensitivities * n)
        weights = (1.0 - alpha) / n / torch.where(squares > 0.0, squares, 1.0)
        weights[:, 0] = alpha
        return Weights(weights)

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """The same weights."""
        return weights
