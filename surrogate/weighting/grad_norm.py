"""Gradient norms held together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from surrogate.loss import Targets
from surrogate.weighting.base import Terms, Weights
from surrogate.weighting.groups import Groups, begin, remeasured
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
            network, or `all` for every parameter, as where each response has a network of its own.
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
        check_settings(self, positive=("rate", "smallest"), finite=("alpha",))
        if self.layer not in ("shared", "all"):
            raise ValueError(f"layer is {self.layer!r}; expected 'shared' or 'all'")

    def start(self, targets: Targets) -> Weights:
        """One for every group."""
        return begin(self, targets, adam=None, count=0)

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """One step of Adam on the weights.

        Raises:
            ValueError: If the layer that is to be shared doesn't move all responses.
        """
        groups = Groups(self, weights, terms)
        columns = self._columns(terms.parameters)
        if not groups.recall("count"):
            _check_shared(terms, columns)
        first = groups.recall("first")
        first = groups.losses if first is None else first
        norms = groups.gradients()[:, columns].norm(dim=1)
        ratios = groups.losses / first.clamp(min=TINY)
        ratios = ratios / ratios.mean().clamp(min=TINY)
        pulls = groups.weights * norms
        slope = torch.sign(pulls - pulls.mean() * ratios**self.alpha) * norms
        count = groups.recall("count") + 1
        step, state = adam(slope, groups.recall("adam"), self.rate, count)
        new = sum_to((groups.weights + step).clamp(min=self.smallest), len(groups))
        return groups.give(new, first=first, adam=state, count=count)

    def remeasured(self, weights: Weights, before: Terms, after: Terms) -> Weights:
        """The losses remembered, in another scale of the responses."""
        return remeasured(self, weights, before, after, "first")

    def _columns(self, parameters: Sequence[Tensor]) -> slice:
        matrices = [k for k, p in enumerate(parameters) if p.ndim > 1]
        if self.layer == "all" or not matrices:
            return slice(None)
        shared = matrices[-2] if len(matrices) > 1 else matrices[-1]
        start = sum(p.numel() for p in parameters[:shared])
        return slice(start, start + parameters[shared].numel())


def _check_shared(terms: Terms, columns: slice) -> None:
    """Check that each response whose gradient isn't zero has one by the parameters in these columns, too.

    Raises:
        ValueError: If one hasn't.
    """
    m, T = terms.losses.shape
    each = torch.eye(m).to(terms.losses).repeat_interleave(T, dim=1)
    gradients = terms.gradients(each).abs()
    apart = (gradients.amax(dim=1) > 0.0) & ~(gradients[:, columns].amax(dim=1) > 0.0)
    if apart.any():
        raise ValueError(
            f"the last weight matrix but one doesn't move response {int(apart.nonzero()[0])}, so that it is no layer "
            "that all share; take GradNorm(layer='all')"
        )
