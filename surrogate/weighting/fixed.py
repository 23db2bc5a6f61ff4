"""Weights that the user gives."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from surrogate.loss import Targets
from surrogate.weighting.base import Terms, Weights


@dataclass(frozen=True)
class Fixed:
    """One weight for all responses and one for all Jacobian entries, both scaled (Czarnecki et al. 2017).

    Attributes:
        values: Weight of each response.
        sensitivities: Weight of each entry of the scaled Jacobian, and of each action of the scaled Hessian.
    """

    values: float = 1.0
    sensitivities: float = 1.0
    interval = 0

    def __post_init__(self) -> None:
        """Refuse weights that have no minimum."""
        low, high = sorted((self.values, self.sensitivities))
        if not (low >= 0.0 and 0.0 < low + high < float("inf")):
            raise ValueError(
                f"weights are {self.values:g} and {self.sensitivities:g}; "
                "expected finite numbers, none negative, one positive"
            )

    @property
    def uses_jacobian(self) -> bool:
        """Whether sensitivities count."""
        return self.sensitivities > 0.0

    def start(self, targets: Targets) -> Weights:
        """The given weights."""
        weights = torch.full_like(targets.mean_squares(), self.sensitivities)
        weights[:, 0] = self.values
        return Weights(weights)

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """The same weights."""
        return weights
