"""A saddle point: weights ascend while the network descends."""

from __future__ import annotations

from dataclasses import dataclass

from surrogate.loss import Targets
from surrogate.weighting.base import Terms, Weights
from surrogate.weighting.groups import Groups, begin
from surrogate.weighting.pieces import TINY, check_settings, onto_simplex


@dataclass(frozen=True)
class SelfAdaptive:
    """w ← Π(w + rate · L / mean L), with Π the projection on weights that are not negative and sum to their number.

    McClenny & Braga-Neto 2023, *Self-adaptive physics-informed neural networks*, with the constraint that they
    lack: without it the ascent would raise all weights for ever, which is nothing but a longer step. Losses are
    measured by their mean, so that the ascent doesn't stall as they fall.

    Attributes:
        rate: Of the ascent.
        per_sample: Whether each sample has its own weight within its group, by its squared residual; groups keep
            theirs. For `train` with full batches or batches; not for samples that come and go.
        groups: Which terms share a weight (`Grouping`).
        scaled: Whether terms are measured per channel first.
        interval: Steps between two updates.
    """

    rate: float = 0.05
    per_sample: bool = False
    groups: str = "two"
    scaled: bool = True
    interval: int = 10
    uses_jacobian = True

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        check_settings(self, positive=("rate",))

    @property
    def weighs_samples(self) -> bool:
        """Whether each has its own weight."""
        return self.per_sample

    def start(self, targets: Targets) -> Weights:
        """One for every group, and every sample."""
        return begin(self, targets)

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """One projected step of ascent."""
        groups = Groups(self, weights, terms)
        if self.per_sample:
            squares = groups.squares()
            old = groups.recall("each")
            old = squares.new_ones(squares.shape) if old is None else old
            ascended = old + self.rate * squares / squares.mean(dim=0).clamp(min=TINY)
            samples = onto_simplex(ascended.T, len(squares)).T
            return groups.give(groups.weights, samples=samples, each=samples)
        ascended = groups.weights + self.rate * groups.losses / groups.losses.mean().clamp(min=TINY)
        return groups.give(onto_simplex(ascended, len(groups)))
