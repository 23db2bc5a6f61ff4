"""Gradient norms held together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from surrogate.loss import Targets
from surrogate.weighting.base import Terms, Weights
from surrogate.weighting.groups import Groups, begin
from surrogate.weighting.pieces import TINY, adam, check_settings, sum_to


@dataclass(frozen=True)
class GradNorm:
    """Descent of w on Σ_g |‖∇_W w_g L_g‖ − target_g|; the weights sum to the number of groups.

    target_g is the mean of these norms times r_g^α and held constant in the descent; r_g = L_g / L_g(first) over the
    mean of these ratios tells how much slower a group learns than the others (Chen et al. 2018, *GradNorm*).

    Attributes:
        alpha: α: how much harder a slow group shall pull.
        rate: Learning rate of the weights, by Adam.
        layer: W: `shared` for the weight matrix of the last layer that all responses share, the last but one of the
            network, or `all` for every parameter.
        smallest: Weight below which none is moved.
        groups: Which terms share a weight (`Grouping`).
        scaled: Whether terms are measured per channel first.
        interval: Steps between two updates.
    """

    alpha: float = 1.0
    rate: float = 0.025
    layer: str = "shared"
    smallest: float = 1e-3
    groups: str = "two"
    scaled: bool = True
    interval: int = 5
    uses_jacobian = True

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        check_settings(self, positive=("rate", "smallest"))
        if self.layer not in ("shared", "all"):
            raise ValueError(f"layer is {self.layer!r}; expected 'shared' or 'all'")

    def start(self, targets: Targets) -> Weights:
        """One for every group."""
        return begin(self, targets, adam=None, count=0)

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """One step of Adam on the weights."""
        groups = Groups(self, weights, terms)
        first = groups.recall("first")
        first = groups.losses if first is None else first
        norms = groups.gradients()[:, self._columns(terms.parameters)].norm(dim=1)
        ratios = groups.losses / first.clamp(min=TINY)
        ratios = ratios / ratios.mean().clamp(min=TINY)
        pulls = groups.weights * norms
        slope = torch.sign(pulls - pulls.mean() * ratios**self.alpha) * norms
        count = groups.recall("count") + 1
        step, state = adam(slope, groups.recall("adam"), self.rate, count)
        new = sum_to((groups.weights + step).clamp(min=self.smallest), len(groups))
        return groups.give(new, first=first, adam=state, count=count)

    def _columns(self, parameters: Sequence[Tensor]) -> slice:
        matrices = [k for k, p in enumerate(parameters) if p.ndim > 1]
        if self.layer == "all" or not matrices:
            return slice(None)
        shared = matrices[-2] if len(matrices) > 1 else matrices[-1]
        start = sum(p.numel() for p in parameters[:shared])
        return slice(start, start + parameters[shared].numel())
