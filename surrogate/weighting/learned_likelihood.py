"""Noise levels that are learned beside the network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from surrogate.loss import Targets
from surrogate.weighting.base import Terms, Weights
from surrogate.weighting.groups import Groups, begin
from surrogate.weighting.likelihood import noise_levels
from surrogate.weighting.pieces import adam, check_settings


@dataclass(frozen=True)
class LearnedLikelihood:
    """Descent on Σ_g ½ e^(−s_g) L_g + ½ c_g s_g over s, while the network descends; w_g = e^(−s_g).

    s_g is the logarithm of a noise variance, c_g the number of terms in the group (Kendall & Gal 2018, *Multi-task
    learning using uncertainty to weigh losses*). Where it comes to rest, w_g = c_g / L_g, as in
    `ProfiledLikelihood`.

    Attributes:
        optimizer: `adam`, with its own state, or `gradient`, plain descent.
        rate: Learning rate of s.
        steps: Steps of descent at an update.
        groups: Which terms share a weight (`Grouping`).
        scaled: Whether terms are measured per channel first.
        interval: Steps of training between two updates.
    """

    optimizer: str = "adam"
    rate: float = 0.02
    steps: int = 1
    groups: str = "two"
    scaled: bool = True
    interval: int = 1
    uses_jacobian = True

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        check_settings(self, positive=("rate",))
        if self.optimizer not in ("adam", "gradient"):
            raise ValueError(f"optimizer is {self.optimizer!r}; expected 'adam' or 'gradient'")
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; expected at least 1")

    def start(self, targets: Targets) -> Weights:
        """One for every group: s is zero."""
        return begin(self, targets, adam=None, count=0)

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """So many steps of descent on s."""
        groups = Groups(self, weights, terms)
        s, state, count = -groups.weights.log(), groups.recall("adam"), groups.recall("count")
        for _ in range(self.steps):
            count += 1
            gradient = 0.5 * (groups.counts - torch.exp(-s) * groups.losses)
            if self.optimizer == "adam":
                step, state = adam(gradient, state, self.rate, count)
            else:
                step = -self.rate * gradient
            s = s + step
        return groups.give(torch.exp(-s), adam=state, count=count)

    def noise(self, weights: Weights, terms: Terms) -> Tensor:
        """Standard deviations of the labels' noise (m, T), given the network: where the weights would come to rest."""
        return noise_levels(self, weights, terms)
