"""Every term measured on its own scale."""

from __future__ import annotations

from dataclasses import dataclass

from surrogate.loss import Targets
from surrogate.weighting.base import Terms, Weights
from surrogate.weighting.scale import FLOOR, per_channel


@dataclass(frozen=True)
class PerChannel:
    """Each Jacobian entry divided by its own mean square over the training set, so that all terms weigh alike.

    Its own, that is, down to a floor. An entry that nearly vanishes tells that its response hardly depends on
    its parameter, which is worth knowing, but its relative accuracy is not: measured by itself it would
    drown all others. Its yardstick is a share of the response's root mean square slope. Where a response has no
    slope at all, that share is nothing either: its entries are measured by the response itself, whose scaled
    variance is one. Actions of the Hessian are measured in the same way, among themselves.

    Attributes:
        sensitivities: Weight of each derivative term against its response's weight of one.
        floor: Smallest yardstick of an entry, as a share of its response's root mean square slope over all
            parameters.
    """

    sensitivities: float = 1.0
    floor: float = FLOOR
    interval = 0
    uses_jacobian = True

    def __post_init__(self) -> None:
        """Refuse settings that leave a vanishing entry without a scale."""
        if not (self.sensitivities > 0.0 and self.floor > 0.0):
            raise ValueError(
                f"sensitivities are {self.sensitivities:g} and floor {self.floor:g}; expected both positive"
            )

    def start(self, targets: Targets) -> Weights:
        """The inverse mean squares, and one in column 0."""
        weights = per_channel(targets.mean_squares(), targets.x.shape[1], self.floor)
        weights[:, 1:] *= self.sensitivities
        return Weights(weights)

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """The same weights."""
        return weights
