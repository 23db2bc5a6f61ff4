"""Small pieces that several strategies are made of."""

from __future__ import annotations

from math import isfinite
from numbers import Integral

import torch
from torch import Tensor

from surrogate.weighting.grouping import Grouping

TINY = 1e-30


def sum_to(weights: Tensor, total: float) -> Tensor:
    """Weights in the same ratios whose sum is the total."""
    return weights * (total / weights.sum().clamp(min=TINY))


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
    owner: object, *, positive: tuple[str, ...] = (), shares: tuple[str, ...] = (), finite: tuple[str, ...] = ()
) -> None:
    """Check the numbers that a strategy was given, its `interval` and its `groups` among them.

    Raises:
        ValueError: If `interval` is no whole number of at least one, `groups` is unknown, one of `positive` is not
            positive and finite, one of `shares` is not from 0 to 1, or one of `finite` is NaN or infinite; the message
            names it.
    """
    name = type(owner).__name__
    Grouping(getattr(owner, "groups", "all"))
    interval = getattr(owner, "interval", None)
    if not isinstance(interval, Integral) or interval < 1:
        raise ValueError(f"interval of {name} is {interval!r}; expected a whole number of at least 1")
    for field in positive:
        value = getattr(owner, field)
        if not 0.0 < value < float("inf"):
            raise ValueError(f"{field} of {name} is {value:g}; expected a positive number")
    for field in shares:
        value = getattr(owner, field)
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{field} of {name} is {value:g}; expected a share from 0 to 1")
    for field in finite:
        value = getattr(owner, field)
        if not isfinite(value):
            raise ValueError(f"{field} of {name} is {value:g}; expected a finite number")


def check_weighting(owner: object, *fields: str) -> None:
    """Check that these attributes are weightings, and that they sum the losses.

    Raises:
        TypeError: If one isn't; the message names it.
        ValueError: If one makes one number of the losses its own way.
    """
    for field in fields:
        value = getattr(owner, field)
        if not (callable(getattr(value, "start", None)) and callable(getattr(value, "update", None))):
            raise TypeError(f"{field} of {type(owner).__name__} is {value!r}; expected a weighting, as PerChannel()")
        if hasattr(value, "combined"):
            raise ValueError(
                f"{value!r} makes one number of the losses its own way; "
                f"{type(owner).__name__} takes weightings that sum them"
            )
