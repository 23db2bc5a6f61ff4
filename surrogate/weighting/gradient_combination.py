"""Gradients of the loss terms combined to a direction that serves all of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sobofem.surrogate.files.registry import register
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.weighting.base import Terms, Weights
from sobofem.surrogate.weighting.groups import LEAST_DIVISOR, Grouped, Groups, check_settings


@register
@dataclass(frozen=True)
class MGDA(Grouped):
    """w minimizes ‖Σ w_g g_g‖ with w not negative and Σ w = 1.

    Along that combination all losses fall, at one rate; where it vanishes no direction lowers all of them (Désidéri
    2012, *Multiple-gradient descent algorithm*). The smallest gradient weighs most. Made for first-order steps and an
    interval of one.

    Attributes:
        normalized: Whether gradients are divided by their losses first, so that relative descents are equal.
        groups, scaled, interval: As in `Grouped`.
    """

    normalized: bool = False
    groups: str = "two"
    scaled: bool = True
    interval: int = 1

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """The weights of the shortest combination."""
        groups = Groups(self, weights, terms)
        gradients = groups.gradients()
        scale = torch.ones_like(groups.losses)
        if self.normalized:
            scale = 1.0 / torch.where(groups.losses > 0.0, groups.losses, 1.0)
            gradients = gradients * scale.unsqueeze(1)
        return groups.to_weights(shortest(gradients @ gradients.T) * scale)


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
        # Lagrange's system of the shortest combination of sum one; scaled, so that the cutoff of pinv is relative.
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
        # Go towards the wanted point until the first weight vanishes, and leave that vector out.
        leaving = wanted <= 0.0
        step = (now / (now - wanted).clamp(min=1e-300))[leaving].min().clamp(max=1.0)
        moved = now + step * (wanted - now)
        moved[leaving & (moved <= 1e-15)] = 0.0
        if (moved > 0.0).all():
            moved[leaving.nonzero().flatten()[0]] = 0.0
        w = torch.zeros_like(w)
        w[active] = moved
        active = [k for k, value in zip(active, moved.tolist(), strict=True) if value > 0.0]


@register
@dataclass(frozen=True)
class ConFIG(Grouped):
    """d = pinv(U) 1, U the gradients over their norms; its length is the sum of their projections on it.

    The direction has the same positive cosine with every gradient, as long as these are independent (Liu et al. 2024,
    *ConFIG: towards conflict-free training of physics informed neural networks*). With two groups its weights are
    positive; with more, one may be negative: the loss then counts such a term so that it has the gradient wanted where
    the weights were found, and is bounded below. Made for first-order steps and an interval of one.

    Attributes:
        groups, scaled, interval: As in `Grouped`.
    """

    groups: str = "two"
    scaled: bool = True
    interval: int = 1

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
        return groups.to_weights(new)


@register
@dataclass(frozen=True)
class DualBalanced(Grouped):
    """What sensitivities weigh together follows from gradients; how they share it, from their losses.

    ŵ = Σ_g stat(g_ref) / stat(g_g) over the groups of sensitivities; group g's part of it is in proportion to L_g over
    its running mean, how hard it is to fit at present; and weights are the running means of these parts. The
    reference is what holds the responses, weighed by one (Zhou et al. 2025, *Dual-balancing for physics-informed neural
    networks*).

    Attributes:
        statistic: `mean`: max|g_ref| / mean|g_g|; `std`: ratio of standard deviations; `kurtosis`: ratio of standard
            deviation over kurtosis.
        groups, scaled, interval: As in `Grouped`.
    """

    statistic: str = "mean"
    groups: str = "inputs"
    scaled: bool = True
    interval: int = 10
    remembered = ("means",)

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        check_settings(self)
        if self.statistic not in ("mean", "std", "kurtosis"):
            raise ValueError(f"statistic is {self.statistic!r}; expected 'mean', 'std' or 'kurtosis'")

    def start(self, targets: Targets) -> Weights:
        """One for every group."""
        return self.initial_weights(targets, count=0)

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """Running means of weights and losses; groups of responses keep one."""
        groups = Groups(self, weights, terms)
        others = ~groups.of_values
        if not others.any():
            return weights
        count = groups.memory("count") + 1
        before = groups.memory("means")
        means = groups.losses if before is None else before + (groups.losses - before) / count
        gradients = groups.gradients()
        together = self._ratios(gradients[groups.of_values].sum(dim=0), gradients[others]).sum()
        difficulty = groups.losses[others] / means[others].clamp(min=LEAST_DIVISOR)
        wanted = together * difficulty / difficulty.sum().clamp(min=LEAST_DIVISOR)
        average = groups.memory("average")
        average = torch.zeros_like(groups.weights) if average is None else average
        average[others] += (wanted - average[others]) / count
        new = torch.where(others, average, groups.weights)
        return groups.to_weights(new, means=means, average=average, count=count)

    def _ratios(self, reference: Tensor, gradients: Tensor) -> Tensor:
        """Statistic of the reference (P,) over that of each gradient (G, P); one where there is no gradient."""
        if self.statistic == "mean":
            above, below = reference.abs().max(), gradients.abs().mean(dim=1)
        elif self.statistic == "std":
            above, below = reference.std(correction=0), gradients.std(dim=1, correction=0)
        else:
            above, below = _tailed(reference.unsqueeze(0))[0], _tailed(gradients)
        sound = (below > 0.0) & (above > 0.0)
        return torch.where(sound, above / torch.where(sound, below, 1.0), 1.0)


def _tailed(gradients: Tensor) -> Tensor:
    """Standard deviation over kurtosis of each row."""
    centered = gradients - gradients.mean(dim=1, keepdim=True)
    variance = centered.square().mean(dim=1)
    kurtosis = centered.pow(4).mean(dim=1) / variance.square().clamp(min=LEAST_DIVISOR)
    return variance.sqrt() / kurtosis.clamp(min=LEAST_DIVISOR)


@register
@dataclass(frozen=True)
class PCGrad(Grouped):
    """Each gradient loses its component against every other that it conflicts with, in random order; then the sum.

    Yu et al. 2020, *Gradient surgery for multi-task learning*. What is taken off is a negative multiple of the other
    gradient, so that the sum is Σ w_g g_g with weights of one and more. The weights hold where they were found: made
    for first-order steps and an interval of one.

    Attributes:
        groups, scaled, interval: As in `Grouped`.
    """

    groups: str = "two"
    scaled: bool = True
    interval: int = 1

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """The weights of the sum of projected gradients."""
        groups = Groups(self, weights, terms)
        gradients = groups.gradients()
        products = gradients @ gradients.T
        parts = torch.eye(len(groups), dtype=products.dtype, device=products.device)
        for i, part in enumerate(parts):
            for j in torch.randperm(len(groups), generator=terms.generator).tolist():
                dot = part @ products[:, j]
                if j != i and dot < 0.0:
                    part[j] -= dot / products[j, j]
        return groups.to_weights(parts.sum(dim=0))
