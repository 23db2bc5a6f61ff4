"""The shortest combination of gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from surrogate.loss import Targets
from surrogate.weighting.base import Terms, Weights
from surrogate.weighting.groups import Groups, begin
from surrogate.weighting.pieces import check_settings


@dataclass(frozen=True)
class MGDA:
    """w minimizes ‖Σ w_g g_g‖ with w not negative and Σ w = 1.

    Along that combination all losses fall, at one rate; where it vanishes no direction lowers all of them (Désidéri
    2012, *Multiple-gradient descent algorithm*). The smallest gradient weighs most. Made for first-order steps and an
    interval of one.

    Attributes:
        normalized: Whether gradients are divided by their losses first, so that relative descents are equal.
        groups: Which terms share a weight (`Grouping`).
        scaled: Whether terms are measured per channel first.
        interval: Steps between two updates.
    """

    normalized: bool = False
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
        """The weights of the shortest combination."""
        groups = Groups(self, weights, terms)
        gradients = groups.gradients()
        scale = torch.ones_like(groups.losses)
        if self.normalized:
            scale = 1.0 / torch.where(groups.losses > 0.0, groups.losses, 1.0)
            gradients = gradients * scale.unsqueeze(1)
        return groups.give(shortest(gradients @ gradients.T) * scale)


def shortest(products: Tensor) -> Tensor:
    """Weights (G,), not negative and of sum one, of the shortest combination of vectors with these products (G, G).

    Wolfe 1976, *Finding the nearest point in a polytope*, finite and exact: vectors join as long as one lies on the
    near side of the present point, and leave where the nearest point of their affine hull lies outside of the polytope.
    """
    G = len(products)
    size = products.diagonal().max()
    w = torch.zeros_like(products[0])
    w[products.diagonal().argmin()] = 1.0
    for _ in range(10 * G + 20):
        slopes = products @ w
        joining = int(slopes.argmin())
        if w[joining] > 0.0 or slopes[joining] >= w @ slopes - 1e-14 * size:
            break
        active = [*(w > 0.0).nonzero().flatten().tolist(), joining]
        w = _nearest(products, w, active)
    return w / w.sum()


def _nearest(products: Tensor, w: Tensor, active: list[int]) -> Tensor:
    """The nearest point among combinations of the active vectors that aren't negative, starting from w."""
    while True:
        bordered = products.new_zeros(len(active) + 1, len(active) + 1)
        bordered[0, 1:] = bordered[1:, 0] = 1.0
        size = products.diagonal().max()
        bordered[1:, 1:] = products[active][:, active] / torch.where(size > 0.0, size, 1.0)
        right = products.new_zeros(len(active) + 1)
        right[0] = 1.0
        wanted = (torch.linalg.pinv(bordered, hermitian=True) @ right)[1:]
        now = w[active]
        if (wanted > 0.0).all() or len(active) == 1:
            new = torch.zeros_like(w)
            new[active] = wanted
            return new
        leaving = wanted <= 0.0
        step = (now / (now - wanted).clamp(min=1e-300))[leaving].min().clamp(max=1.0)
        moved = now + step * (wanted - now)
        moved[leaving & (moved <= 1e-15)] = 0.0
        if (moved > 0.0).all():
            moved[leaving.nonzero().flatten()[0]] = 0.0
        w = torch.zeros_like(w)
        w[active] = moved
        active = [k for k, value in zip(active, moved.tolist(), strict=True) if value > 0.0]
