"""Weights from the neural tangent kernel."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from surrogate.loss import Targets
from surrogate.weighting.base import Terms, Weights
from surrogate.weighting.groups import Groups, begin
from surrogate.weighting.pieces import check_settings, smooth


@dataclass(frozen=True)
class NeuralTangent:
    """ŵ_g = Σ_j ‖J_j‖² / ‖J_g‖², J_g the derivatives of group g's residuals by all parameters.

    ‖J_g‖² is the trace of the group's block of the neural tangent kernel, the sum of the rates at which gradient
    descent lowers its residuals: so weighted, all groups fall at equal mean rates (Wang, Yu & Perdikaris 2022, *When
    and why PINNs fail to train*). It costs a backward pass for every sample of every term.

    Attributes:
        memory: Share of the old weights that an update keeps; the first update keeps nothing.
        groups: Which terms share a weight (`Grouping`).
        scaled: Whether terms are measured per channel first.
        interval: Steps between two updates.
    """

    memory: float = 0.0
    groups: str = "two"
    scaled: bool = True
    interval: int = 100
    uses_jacobian = True

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        check_settings(self, shares=("memory",))

    def start(self, targets: Targets) -> Weights:
        """One for every group."""
        return begin(self, targets, seen=False)

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """The inverse shares in the trace; a group that no parameter moves keeps its weight."""
        groups = Groups(self, weights, terms)
        traces = groups.traces()
        wanted = torch.where(traces > 0.0, traces.sum() / traces, groups.weights)
        memory = self.memory if groups.recall("seen") else 0.0
        return groups.give(smooth(groups.weights, wanted, memory), seen=True)
