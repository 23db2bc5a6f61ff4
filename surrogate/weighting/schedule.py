"""Sensitivities phased in, or out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from surrogate.loss import Targets
from surrogate.weighting.base import Terms, Weights
from surrogate.weighting.pieces import check_settings
from surrogate.weighting.scale import per_channel


@dataclass(frozen=True)
class Schedule:
    """Sensitivities weigh `first` at the start and `last` after so many steps, linearly between them.

    Phased in after Bouhlel, He & Martins 2020, *Scalable gradient-enhanced artificial neural networks*; phased out
    (`first=1.0, last=0.0`) after Kissel & Diepold 2019, *Sobolev training with approximated derivatives*.

    Attributes:
        first: Factor of the sensitivities at step 0.
        last: Factor from step `steps` on.
        steps: How long the change takes.
        scaled: Whether terms are measured per channel first.
        interval: Steps between two updates.
    """

    first: float = 0.0
    last: float = 1.0
    steps: int = 500
    scaled: bool = True
    interval: int = 50
    uses_jacobian = True

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        check_settings(self, positive=("steps",), finite=("first", "last"))
        if min(self.first, self.last) < 0.0 or self.first + self.last <= 0.0:
            raise ValueError(
                f"Schedule goes from {self.first:g} to {self.last:g}; expected none negative, not both zero"
            )

    def start(self, targets: Targets) -> Weights:
        """Sensitivities times `first`."""
        return self._at(0, targets.mean_squares(), targets.x.shape[1])

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """Sensitivities times the factor of this step."""
        return self._at(terms.step, terms.mean_squares, terms.inputs)

    def _at(self, step: int, mean_squares: Tensor, inputs: int) -> Weights:
        share = min(step / self.steps, 1.0)
        values = per_channel(mean_squares, inputs) if self.scaled else torch.ones_like(mean_squares)
        values[:, 1:] *= (1.0 - share) * self.first + share * self.last
        return Weights(values)
