"""A direction that agrees with every gradient alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from surrogate.loss import Targets
from surrogate.weighting.base import Terms, Weights
from surrogate.weighting.groups import Groups, begin
from surrogate.weighting.pieces import check_settings


@dataclass(frozen=True)
class ConFIG:
    """d = pinv(U) 1, U the gradients over their norms; its length is the sum of their projections on it.

    The direction has the same positive cosine with every gradient, as long as these are independent (Liu et al. 2024,
    *ConFIG: towards conflict-free training of physics informed neural networks*). With two groups its weights are
    positive; with more, one may be negative: the loss then counts such a term so that it has the gradient wanted where
    the weights were found, and is bounded below. Made for first-order steps and an interval of one.

    Attributes:
        groups: Which terms share a weight (`Grouping`).
        scaled: Whether terms are measured per channel first.
        interval: Steps between two updates.
    """

    groups: str = "two"
    scaled: bool = True
    interval: int = 1
    uses_jacobian = True

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        check_settings(self)

    def start(self, targets: Targets) -> Weights:
        """One for every group."""
        return begin(self, targets)

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """The weights of that direction; groups without any gradient keep theirs."""
        groups = Groups(self, weights, terms)
        gradients = groups.gradients()
        norms = gradients.norm(dim=1)
        alive = norms > 0.0
        units = gradients[alive] / norms[alive].unsqueeze(1)
        inverse = torch.linalg.pinv(units)
        direction = inverse.sum(dim=1)
        coefficients = inverse.T @ direction
        size = direction.norm()
        if not size > 0.0:
            return weights
        length = (gradients[alive] @ direction).sum() / size
        new = groups.weights.clone()
        new[alive] = coefficients / norms[alive] * (length / size)
        return groups.give(new)
