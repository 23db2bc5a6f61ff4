"""Weights that follow from the losses: their rates of decrease, relative balance, or a power mean of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from sobofem.surrogate.files.registry import register
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.weighting.base import Terms, Weights
from sobofem.surrogate.weighting.groups import (
    LEAST_DIVISOR,
    Grouped,
    Grouping,
    Groups,
    onto_simplex,
    smooth,
    sum_to,
)

SMALLEST_LOSS = 1e-16
"""Least loss of a group in a mean: its logarithm, or its negative power, stays finite at a perfect fit."""


@register
@dataclass(frozen=True)
class PowerMean(Grouped):
    """The loss is (Σ_g c_g l_g^p)^(1/p), l_g the mean (scaled) loss of a group's terms, c_g their share of all terms.

    Its gradient weighs groups by l_g^(p − 1) at every moment, without an update that an optimizer would have to learn
    again. At p = 1 it is the weighted sum. Below, what is fitted well weighs more, down to the likelihood with unknown
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

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        Grouping(self.groups)
        if not isfinite(self.p):
            raise ValueError(f"p is {self.p:g}; expected a finite number")

    def start(self, targets: Targets) -> Weights:
        """The weights of terms within their groups."""
        return Weights(self.initial_weights(targets).values)

    def combined(self, mean_squares: Tensor, inputs: int) -> Callable[[Tensor], Tensor]:
        """What makes the mean, relative to that of the mean squares, of the losses of the terms (m, T); differentiable.

        Args:
            mean_squares: Of the targets (m, T).
            inputs: Number n of inputs.
        """
        base = self.base(mean_squares, inputs)
        membership = Grouping(self.groups).membership(mean_squares)
        counts = membership @ (mean_squares > 0.0).to(mean_squares).flatten()
        labelled = counts > 0.0
        parts = membership[labelled] * base.flatten() / counts[labelled].unsqueeze(1)
        shares = counts[labelled] / counts.sum()

        def mean(losses: Tensor) -> Tensor:
            each = (parts @ losses.flatten()).clamp(min=SMALLEST_LOSS)
            if self.p == 0.0:
                return (shares @ each.log()).exp()
            largest = each.detach().max()
            return largest * (shares @ (each / largest) ** self.p) ** (1.0 / self.p)

        of_nothing = mean(mean_squares)
        return lambda losses: mean(losses) / of_nothing


@register
@dataclass(frozen=True)
class ReLoBRaLo(Grouped):
    """w = α (ρ w + (1 − ρ) ŵ(first)) + (1 − α) ŵ(before), ŵ(t) = G softmax(L / (T L(t))), ρ drawn of 0 and 1.

    Bischof & Kraus 2021, *Multi-objective loss balancing for physics-informed deep learning*: a loss that has fallen
    less than the others since the start, or the last update, weighs more. With G groups, the weights sum to G.

    Attributes:
        alpha: α, share of the past.
        expected: Probability that ρ is one; else the weights are compared with the first losses.
        temperature: T; the lower, the more only the worst counts.
        groups, scaled, interval: As in `Grouped`.
    """

    alpha: float = 0.999
    expected: float = 0.999
    temperature: float = 1.0
    groups: str = "two"
    scaled: bool = True
    interval: int = 1
    remembered = ("first", "before")
    positive = ("temperature",)
    shares = ("alpha", "expected")

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """A step of the average; the first update only takes note of the losses."""
        groups = Groups(self, weights, terms)
        first, before = groups.memory("first"), groups.memory("before")
        if first is None:
            return groups.to_weights(groups.weights, first=groups.losses, before=groups.losses)
        keep = bool(torch.rand((), generator=terms.generator) < self.expected)
        past = groups.weights if keep else self._relative(groups.losses, first)
        new = smooth(past, self._relative(groups.losses, before), self.alpha)
        return groups.to_weights(new, first=first, before=groups.losses)

    def _relative(self, losses: Tensor, past: Tensor) -> Tensor:
        ratios = losses / (self.temperature * past).clamp(min=LEAST_DIVISOR)
        return len(losses) * torch.softmax(ratios, dim=0)


@register
@dataclass(frozen=True)
class SoftAdapt(Grouped):
    """w = softmax(β · slope of L_g): what falls slowest, or rises, weighs most; the sum is one.

    Heydari, Thompson & Mehmood 2019, *SoftAdapt: techniques for adaptive loss weighting*. The slope is the change of
    the loss since the last update.

    Attributes:
        beta: β; negative favors what falls fastest.
        normalized: Whether slopes are divided by the sum of their magnitudes.
        loss_weighted: Whether each exponential is multiplied by its loss.
        groups, scaled, interval: As in `Grouped`.
    """

    beta: float = 0.1
    normalized: bool = False
    loss_weighted: bool = False
    groups: str = "two"
    scaled: bool = True
    interval: int = 5
    remembered = ("losses",)
    finite = ("beta",)

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """The softmax of the slopes; the first update only takes note of the losses."""
        groups = Groups(self, weights, terms)
        before = groups.memory("losses")
        if before is None:
            return groups.to_weights(groups.weights, losses=groups.losses)
        slopes = groups.losses - before
        if self.normalized:
            slopes = slopes / slopes.abs().sum().clamp(min=LEAST_DIVISOR)
        parts = torch.softmax(self.beta * slopes, dim=0)
        if self.loss_weighted and bool(groups.losses.sum() > 0.0):
            parts = sum_to(parts * groups.losses, 1.0)
        return groups.to_weights(parts, losses=groups.losses)


@register
@dataclass(frozen=True)
class SelfAdaptive(Grouped):
    """w ← Π(w + rate · L / mean L), with Π the projection on weights that are not negative and sum to their number.

    McClenny & Braga-Neto 2023, *Self-adaptive physics-informed neural networks*, with the constraint that they
    lack: without it the ascent would raise all weights for ever, which is nothing but a longer step. Losses are
    measured by their mean, so that the ascent doesn't stall as they fall.

    Attributes:
        rate: Of the ascent.
        per_sample: Whether each sample has its own weight within its group, by its squared residual; groups keep
            theirs. For `train` with full batches or batches; not for samples that come and go.
        groups, scaled, interval: As in `Grouped`.
    """

    rate: float = 0.05
    per_sample: bool = False
    groups: str = "two"
    scaled: bool = True
    interval: int = 10
    positive = ("rate",)

    @property
    def weighs_samples(self) -> bool:
        """Whether each has its own weight."""
        return self.per_sample

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """One projected step of ascent."""
        groups = Groups(self, weights, terms)
        if self.per_sample:
            squares = groups.squares()
            old = groups.memory("each")
            old = squares.new_ones(squares.shape) if old is None else old
            ascended = old + self.rate * squares / squares.mean(dim=0).clamp(min=LEAST_DIVISOR)
            samples = onto_simplex(ascended.T, len(squares)).T
            return groups.to_weights(groups.weights, samples=samples, each=samples)
        ascended = groups.weights + self.rate * groups.losses / groups.losses.mean().clamp(min=LEAST_DIVISOR)
        return groups.to_weights(onto_simplex(ascended, len(groups)))
