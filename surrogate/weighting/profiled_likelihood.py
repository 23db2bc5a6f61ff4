"""Weights inverse to the losses themselves."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from surrogate.loss import Targets
from surrogate.weighting.base import Terms, Weights
from surrogate.weighting.groups import Groups, begin
from surrogate.weighting.likelihood import noise_levels
from surrogate.weighting.pieces import check_settings, smooth


@dataclass(frozen=True)
class ProfiledLikelihood:
    """w_g = 1 / mean loss of the group: the inverse of the noise variances that make the data most likely.

    A Gaussian likelihood with an unknown noise level for each group is largest where its variances are the mean
    losses; what is left is ½ Σ_g c_g log L_g, of which w_g = c_g / L_g is the derivative, c_g the number of terms
    in the group (Kendall & Gal 2018, *Multi-task learning using uncertainty to weigh losses*, minimized over the
    noise levels). A group that is fitted better weighs more and is fitted still better: the floor restrains that, and
    `PowerMean` with an exponent between zero and one.

    Attributes:
        floor: Smallest mean loss of a group that counts, as a share of the largest.
        memory: Share of the old weights that an update keeps.
        groups: Which terms share a weight (`Grouping`).
        scaled: Whether terms are measured per channel first.
        interval: Steps between two updates.
    """

    floor: float = 1e-4
    memory: float = 0.0
    groups: str = "two"
    scaled: bool = True
    interval: int = 100
    uses_jacobian = True

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        check_settings(self, shares=("floor", "memory"))

    def start(self, targets: Targets) -> Weights:
        """One for every group."""
        return begin(self, targets)

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """Inverse mean losses; where all losses are zero, the same weights."""
        groups = Groups(self, weights, terms)
        means = groups.losses / groups.counts
        largest = means.max()
        if not largest > 0.0:
            return weights
        means = means.clamp(min=float(max(self.floor, 1e-12) * largest))
        return groups.give(smooth(groups.weights, 1.0 / means, self.memory))

    def noise(self, weights: Weights, terms: Terms) -> Tensor:
        """Standard deviations of the labels' noise (m, T), given the network: where the weights would come to rest."""
        return noise_levels(self, weights, terms)
