"""Which loss terms share a weight, and what adaptive weightings see of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf, isfinite
from numbers import Integral
from typing import Any, ClassVar

import torch
from torch import Tensor

from sobofem.surrogate.loss import Targets
from sobofem.surrogate.weighting.base import Terms, Weighting, Weights

FLOOR = 0.3
"""Least scale of a derivative, as a share of the root mean square over all derivatives of its kind and response."""


def per_channel(mean_squares: Tensor, inputs: int, floor: float = FLOOR) -> Tensor:
    """What makes all terms weigh alike (m, T): the inverse of each derivative's mean square, and one for responses.

    The mean square of a derivative counts down to a floor: a share of the mean over all derivatives of its kind of
    that response. Where these are all zero, they are measured by the response itself, whose scaled variance is one.

    Args:
        mean_squares: Of the targets (m, T).
        inputs: Number n of inputs: columns 1 to n are slopes, those after them actions of the Hessian.
        floor: The share, for root mean squares.
    """
    kinds = mean_squares[:, 1:].split(inputs, dim=1)
    scales = [torch.maximum(kind, floor**2 * kind.mean(dim=1, keepdim=True)) for kind in kinds]
    scale = torch.cat((torch.ones_like(mean_squares[:, :1]), *scales), dim=1)
    return 1.0 / torch.where(scale > 0.0, scale, 1.0)


GROUPINGS = ("two", "inputs", "responses", "all")


@dataclass(frozen=True)
class Grouping:
    """Which terms share a weight.

    Attributes:
        name: `two`: the values, and all sensitivities. `inputs`: the values, and each column of sensitivities, that is
            1 + n groups. `responses`: of each response its value and its sensitivities, 2 m groups. `all`: every term
            by itself.
    """

    name: str

    def __post_init__(self) -> None:
        """Refuse unknown names."""
        if self.name not in GROUPINGS:
            raise ValueError(f"groups is {self.name!r}; expected one of {', '.join(map(repr, GROUPINGS))}")

    def membership(self, like: Tensor) -> Tensor:
        """One where a term belongs to a group (G, m·T), zero elsewhere, for terms `like` this (m, T)."""
        m, T = like.shape
        row, column = torch.arange(m).unsqueeze(1), torch.arange(T).unsqueeze(0)
        number = {
            "two": (column > 0) + 0 * row,
            "inputs": column + 0 * row,
            "responses": 2 * row + (column > 0),
            "all": T * row + column,
        }[self.name].flatten()
        return torch.nn.functional.one_hot(number).T.to(like)

    def of_values(self, like: Tensor) -> Tensor:
        """Which groups hold responses, (G,) of bool."""
        column = torch.zeros_like(like)
        column[:, 0] = 1.0
        return (self.membership(like) @ column.flatten()) > 0.0


class Grouped(Weighting):
    """A strategy that weighs groups of terms: all start with the weight one.

    Attributes:
        groups: Which terms share a weight: the name of a `Grouping`.
        scaled: Whether terms are measured per channel first.
        interval: Steps between two updates.
        remembered: Names under which its memory holds losses of the groups, which change with their scale.
        positive: Settings that are to be positive.
        shares: Settings from 0 to 1.
        finite: Settings that may be any finite number.
    """

    remembered: ClassVar[tuple[str, ...]] = ()
    positive: ClassVar[tuple[str, ...]] = ()
    shares: ClassVar[tuple[str, ...]] = ()
    finite: ClassVar[tuple[str, ...]] = ()

    @property
    def groups(self) -> str:
        """Name of the `Grouping`."""
        return "two"

    @property
    def scaled(self) -> bool:
        """Whether terms are measured on their own scale first, as by `PerChannel`, whose weights are those of one."""
        return True

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        check_settings(self, positive=self.positive, shares=self.shares, finite=self.finite)

    def start(self, targets: Targets) -> Weights:
        """One for every group."""
        return self.initial_weights(targets)

    def initial_weights(self, targets: Targets, **memory: Any) -> Weights:
        """Weight one for every group, and what else is to be remembered."""
        mean_squares = targets.mean_squares()
        base = self.base(mean_squares, targets.x.shape[1])
        count = len(Grouping(self.groups).membership(mean_squares))
        return Weights(base, {"weights": torch.ones_like(base.flatten()[0]).repeat(count), **memory})

    def rescaled(self, weights: Weights, before: Terms, after: Terms) -> Weights:
        """Weights whose memory of losses is changed as the groups' losses are.

        A group without a loss has nothing to be measured by, and keeps what it has.
        """
        if not self.remembered:
            return weights
        membership = Grouping(self.groups).membership(after.losses)
        old, new = (
            membership @ (self.base(terms.mean_squares, terms.inputs) * terms.losses).flatten()
            for terms in (before, after)
        )
        ratios = torch.where((old > 0.0) & (new > 0.0), new / old, 1.0)
        memory = {name: ratios * kept if name in self.remembered else kept for name, kept in weights.memory.items()}
        return replace(weights, memory=memory)

    def base(self, mean_squares: Tensor, inputs: int) -> Tensor:
        """What the losses of the terms are multiplied by (m, T) before they are summed in their groups."""
        return per_channel(mean_squares, inputs) if self.scaled else torch.ones_like(mean_squares)


class Groups:
    """The labelled groups of loss terms, as one strategy weights them; the others keep their weights.

    The loss of a group is the sum of the (scaled) losses of its terms, so that the total loss is Σ_g w_g L_g as in
    the papers.

    Attributes:
        losses: (G,).
        weights: (G,), those now in force.
        counts: Number of terms with labels in each group (G,).
        of_values: Which groups hold responses (G,), of bool.
    """

    def __init__(self, strategy: Grouped, weights: Weights, terms: Terms) -> None:
        grouping = Grouping(strategy.groups)
        self._terms, self._memory = terms, weights.memory
        self._base = strategy.base(terms.mean_squares, terms.inputs)
        labelled = (terms.mean_squares > 0.0) | (terms.losses > 0.0)
        self._membership = grouping.membership(terms.losses)
        counts = self._membership @ labelled.flatten().to(terms.losses)
        self._labelled = counts > 0.0
        self.counts = counts[self._labelled]
        self._sums = self._membership[self._labelled] * self._base.flatten()
        self.losses = self._sums @ terms.losses.flatten()
        self.weights = self._memory["weights"][self._labelled]
        self.of_values = grouping.of_values(terms.losses)[self._labelled]

    def __len__(self) -> int:
        """Number of groups with labels."""
        return len(self.losses)

    def sum_terms(self, values: Tensor) -> Tensor:
        """Sums of values of terms (m, T) over the groups (G,)."""
        return self._membership[self._labelled] @ values.flatten()

    def gradients(self) -> Tensor:
        """Gradient of each group's loss by all parameters (G, P)."""
        return self._terms.gradients(self._sums)

    def traces(self) -> Tensor:
        """Trace of each group's block of the neural tangent kernel, over the number of samples (G,)."""
        return self._sums @ self._terms.traces().flatten()

    def squares(self) -> Tensor:
        """Squared residuals of each sample in each group (N, G), whose mean over the samples the losses are."""
        with torch.no_grad():
            return self._terms.residuals().square().flatten(1) @ self._sums.T

    def memory(self, name: str) -> Any:
        """What `to_weights` was last given under this name; None before."""
        kept = self._memory.get(name)
        return kept[..., self._labelled] if isinstance(kept, Tensor) else kept

    def to_weights(self, weights: Tensor, *, samples: Tensor | None = None, **memory: Any) -> Weights:
        """Weights of all terms.

        Args:
            weights: Of the groups (G,).
            samples: Weights of the samples in each group (N, G), if they differ.
            memory: What to remember: tensors (..., G) a group, and plain values.
        """
        kept = {name: self._whole(value, self._memory.get(name)) for name, value in memory.items()}
        new = {**self._memory, **kept, "weights": self._whole(weights, self._memory["weights"])}
        values = (new["weights"] @ self._membership).reshape(self._base.shape) * self._base
        if samples is None:
            return Weights(values, new, reference=self._terms.losses if bool((weights < 0.0).any()) else None)
        each = torch.ones_like(samples[:, :1]).repeat(1, len(self._labelled))
        each[:, self._labelled] = samples
        return Weights(values, new, samples=(each @ self._membership).reshape(-1, *self._base.shape))

    def _whole(self, part: Any, before: Any) -> Any:
        """A tensor (..., G) with the groups without labels put back, as they were before or zero."""
        if not isinstance(part, Tensor):
            return part
        shape = (*part.shape[:-1], len(self._labelled))
        whole = before.clone() if isinstance(before, Tensor) and before.shape == shape else part.new_zeros(shape)
        whole[..., self._labelled] = part
        return whole


LEAST_DIVISOR = 1e-30
"""Least that a sum of weights or losses is divided by: far below any loss, and no denormal number."""


def sum_to(weights: Tensor, total: float) -> Tensor:
    """Weights in the same ratios whose sum is the total."""
    return weights * (total / weights.sum().clamp(min=LEAST_DIVISOR))


def onto_simplex(points: Tensor, total: float) -> Tensor:
    """The nearest points (..., G) that are not negative and sum to the total.

    Held, Wolfe & Crowder 1974, *Validation of subgradient optimization*: what is too much in the sum is taken off
    every entry, and those that would become negative are set to zero.
    """
    sorted_, _ = points.sort(dim=-1, descending=True)
    excess = sorted_.cumsum(-1) - total
    counts = torch.arange(1, points.shape[-1] + 1, dtype=points.dtype, device=points.device)
    positive = (sorted_ * counts > excess).sum(-1, keepdim=True)
    return (points - excess.gather(-1, positive - 1) / positive).clamp(min=0.0)


def smooth(old: Tensor, new: Tensor, memory: float) -> Tensor:
    """Moving average: memory times the old, and the rest of the new."""
    return memory * old + (1.0 - memory) * new


def adam(gradient: Tensor, state: Tensor | None, rate: float, count: int) -> tuple[Tensor, Tensor]:
    """A descent step by Adam with its usual constants (Kingma & Ba 2015), and its new state (2, G).

    Args:
        gradient: (G,).
        state: Means of the gradient and its square (2, G); None at the first step.
        rate: Learning rate.
        count: Number of this step, from 1.
    """
    before = torch.zeros_like(gradient).repeat(2, 1) if state is None else state
    first = 0.9 * before[0] + 0.1 * gradient
    second = 0.999 * before[1] + 0.001 * gradient.square()
    step = -rate * (first / (1.0 - 0.9**count)) / ((second / (1.0 - 0.999**count)).sqrt() + 1e-8)
    return step, torch.stack((first, second))


def check_settings(
    strategy: Weighting,
    *,
    positive: tuple[str, ...] = (),
    shares: tuple[str, ...] = (),
    finite: tuple[str, ...] = (),
    least: int = 1,
) -> None:
    """Check the numbers that a strategy was given, its `interval` and its `groups` among them.

    Args:
        strategy: Whose settings they are.
        positive: Names of those that are to be positive.
        shares: Of those from 0 to 1.
        finite: Of those that may be any finite number.
        least: The least `interval`.

    Raises:
        ValueError: If `interval` is no whole number of at least that, `groups` is unknown, one of `positive` is not
            positive and finite, one of `shares` is not from 0 to 1, or one of `finite` is NaN or infinite; the message
            names it.
    """
    name, settings = type(strategy).__name__, vars(strategy)
    interval: object = strategy.interval  # which may be anything until it is checked
    Grouping(settings.get("groups", "all"))
    if not isinstance(interval, Integral) or interval < least:
        raise ValueError(f"interval of {name} is {interval!r}; expected a whole number of at least {least}")
    for fields, allowed, expected in (
        (positive, lambda value: 0.0 < value < inf, "a positive number"),
        (shares, lambda value: 0.0 <= value <= 1.0, "a share from 0 to 1"),
        (finite, isfinite, "a finite number"),
    ):
        for field in fields:
            if not allowed(settings[field]):
                raise ValueError(f"{field} of {name} is {settings[field]:g}; expected {expected}")


def check_weighting(owner: object, **weightings: object) -> None:
    """Check that these attributes are weightings that sum the losses.

    Raises:
        TypeError: If one isn't a weighting; the message names it.
        ValueError: If one makes one number of the losses its own way.
    """
    for name, value in weightings.items():
        if not isinstance(value, Weighting):
            raise TypeError(f"{name} of {type(owner).__name__} is {value!r}; expected a weighting, as PerChannel()")
        if not value.sums_losses:
            raise ValueError(
                f"{value!r} makes one number of the losses its own way; "
                f"{type(owner).__name__} takes weightings that sum them"
            )
