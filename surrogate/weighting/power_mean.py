"""A mean of the losses other than the arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from surrogate.loss import Targets
from surrogate.weighting.base import Terms, Weights
from surrogate.weighting.grouping import Grouping
from surrogate.weighting.groups import begin
from surrogate.weighting.scale import per_channel

SMALLEST = 1e-16


@dataclass(frozen=True)
class PowerMean:
    """The loss is (Σ_g c_g l_g^p)^(1/p), l_g the mean (scaled) loss of a group's terms, c_g their share of all terms.

    Its gradient weighs groups by l_g^(p − 1) at every moment, without an update that an optimizer would have to learn
    anew. At p = 1 it is the weighted sum. Below, what is fitted well weighs more, down to the likelihood with unknown
    noise levels at p = 0, exp(Σ c_g log l_g), the limit that `ProfiledLikelihood` approaches by updates. Above, what is
    fitted badly does, up to the worst group alone for large p. It is relative to its
    value for a network that predicts zero.

    Attributes:
        p: Exponent of the mean.
        groups: Which terms are summed into one loss (`Grouping`).
        scaled: Whether terms are measured per channel first.
    """

    p: float = 0.5
    groups: str = "two"
    scaled: bool = True
    interval = 0
    uses_jacobian = True

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        Grouping(self.groups)
        if not isfinite(self.p):
            raise ValueError(f"p is {self.p:g}; expected a finite number")

    def start(self, targets: Targets) -> Weights:
        """The weights of terms within their groups."""
        return Weights(begin(self, targets).values)

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """The same weights."""
        return weights

    def combined(self, mean_squares: Tensor, inputs: int) -> Callable[[Tensor], Tensor]:
        """What makes the mean, relative to that of the mean squares, of the losses of the terms (m, T); differentiable.

        Args:
            mean_squares: Of the targets (m, T).
            inputs: Number n of inputs.
        """
        base = per_channel(mean_squares, inputs) if self.scaled else torch.ones_like(mean_squares)
        membership = Grouping(self.groups).membership(mean_squares)
        counts = membership @ (mean_squares > 0.0).to(mean_squares).flatten()
        labelled = counts > 0.0
        parts = membership[labelled] * base.flatten() / counts[labelled].unsqueeze(1)
        shares = counts[labelled] / counts.sum()

        def mean(losses: Tensor) -> Tensor:
            each = (parts @ losses.flatten()).clamp(min=SMALLEST)
            if self.p == 0.0:
                return (shares @ each.log()).exp()
            largest = each.detach().max()
            return largest * (shares @ (each / largest) ** self.p) ** (1.0 / self.p)

        of_nothing = mean(mean_squares)
        return lambda losses: mean(losses) / of_nothing
