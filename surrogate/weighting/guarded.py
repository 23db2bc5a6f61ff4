"""Weightings around another one: guarded where it goes astray, followed until a step, or times an importance."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any
import warnings

import numpy as np
import torch
from torch import Tensor

from sobofem.surrogate.files.registry import register
from sobofem.surrogate.loss import Targets, weighted
from sobofem.surrogate.samples import Samples
from sobofem.surrogate.weighting.base import Terms, Weighting, Weights
from sobofem.surrogate.weighting.fixed import Fixed, PerChannel, ValuesOnly
from sobofem.surrogate.weighting.groups import check_weighting


class Around(Weighting):
    """A weighting that does as another one inside it, but for what it overrides."""

    @property
    @abstractmethod
    def inner(self) -> Weighting:
        """The other one."""

    @property
    def interval(self) -> int:
        """Steps between two updates: those of the inner one."""
        return self.inner.interval

    @property
    def late(self) -> bool:
        """Whether the inner one is."""
        return self.inner.late

    @property
    def weighs_samples(self) -> bool:
        """Whether the inner one does."""
        return self.inner.weighs_samples

    @property
    def uses_jacobian(self) -> bool:
        """Whether sensitivities count: as in the inner one."""
        return self.inner.uses_jacobian

    def start(self, targets: Targets) -> Weights:
        """The inner one's start."""
        return self.inner.start(targets)

    def rescaled(self, weights: Weights, before: Terms, after: Terms) -> Weights:
        """As the inner one has it."""
        return self.inner.rescaled(weights, before, after)

    def noise(self, weights: Weights, terms: Terms) -> Tensor | None:
        """As the inner one has it."""
        return self.inner.noise(weights, terms)


@register
@dataclass(frozen=True)
class Guarded(Around):
    """An adaptive weighting until it goes astray, and the fallback's start weights from then on.

    Astray is: a weight that is not finite, weights that have spread too far from the fallback's, or a loss, measured
    with the fallback's weights, that stays above its best. It is said by a warning, and `memory["astray"]` has the
    reason.

    Attributes:
        adaptive: The weighting that is guarded.
        fallback: The weighting that is trusted; its weights at the start are the yardstick.
        spread: Most that the ratio of two weights may differ from the fallback's.
        worse: Factor above its best at which the loss by the yardstick counts as too high.
        patience: Successive updates with a loss that is too high after which the fallback takes over.
    """

    adaptive: Weighting
    fallback: Weighting = field(default_factory=PerChannel)
    spread: float = 1e4
    worse: float = 2.0
    patience: int = 3

    def __post_init__(self) -> None:
        """Refuse what is no weighting, and settings that guard nothing."""
        check_weighting(self, adaptive=self.adaptive, fallback=self.fallback)
        if not (self.spread > 1.0 and self.worse >= 1.0 and self.patience >= 1):
            raise ValueError(
                f"spread is {self.spread:g}, worse {self.worse:g} and patience {self.patience}; "
                "expected more than 1, at least 1 and at least 1"
            )

    @property
    def inner(self) -> Weighting:
        """The adaptive weighting."""
        return self.adaptive

    @property
    def uses_jacobian(self) -> bool:
        """Whether either does."""
        return self.adaptive.uses_jacobian or self.fallback.uses_jacobian

    def start(self, targets: Targets) -> Weights:
        """The adaptive weighting's start."""
        start = self.adaptive.start(targets)
        return Weights(
            start.values,
            {
                "inner": start.memory,
                "fallback": self.fallback.start(targets).values,
                "best": float("inf"),
                "high": 0,
                "astray": "",
            },
            start.samples,
            start.reference,
        )

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """The adaptive weighting's update while it can be trusted."""
        memory: dict[str, Any] = weights.memory
        if memory["astray"]:
            return weights
        trusted = memory["fallback"]
        loss = float(weighted(terms.losses, trusted, terms.mean_squares))
        best = min(memory["best"], loss)
        high = memory["high"] + 1 if loss > self.worse * best else 0
        inner = Weights(weights.values, memory["inner"], weights.samples, weights.reference)
        new = self.adaptive.update(inner, terms)
        astray = self._astray(new.values, trusted, terms, loss / max(best, 1e-300), high)
        if astray:
            reason = f"{astray} at step {terms.step}"
            warnings.warn(f"{self.adaptive} went astray ({reason}); {self.fallback} takes over", stacklevel=2)
            return Weights(trusted, {**memory, "astray": reason})
        kept = {**memory, "inner": new.memory, "best": best, "high": high}
        return Weights(new.values, kept, new.samples, new.reference)

    def noise(self, weights: Weights, terms: Terms) -> Tensor | None:
        """As the adaptive weighting has it."""
        return self.adaptive.noise(replace(weights, memory=weights.memory["inner"]), terms)

    def rescaled(self, weights: Weights, before: Terms, after: Terms) -> Weights:
        """Yardstick, best loss and the adaptive weighting's memory, in another scale of the responses."""
        memory = weights.memory
        inner = self.adaptive.rescaled(replace(weights, memory=memory["inner"]), before, after)
        change = torch.where(after.losses > 0.0, before.losses / after.losses, 1.0)
        trusted = memory["fallback"] * change
        old, new = (
            float(weighted(terms.losses, yardstick, terms.mean_squares))
            for terms, yardstick in ((before, memory["fallback"]), (after, trusted))
        )
        best = memory["best"] * (new / old if old > 0.0 else 1.0)
        return replace(weights, memory={**memory, "inner": inner.memory, "fallback": trusted, "best": best})

    def _astray(self, values: Tensor, trusted: Tensor, terms: Terms, ratio: float, high: int) -> str:
        """What is wrong with these weights; empty where nothing is."""
        if not (isfinite(ratio) and torch.isfinite(values).all()):
            return "a weight or the loss is not finite"
        counted = (trusted > 0.0) & ((terms.mean_squares > 0.0) | (terms.losses > 0.0))
        ratios = (values.abs()[counted] / trusted[counted]).clamp(min=1e-300)
        spread = float(ratios.max() / ratios.min())
        if spread > self.spread:
            return f"weights spread to {spread:.1e} times the fallback's"
        if high >= self.patience:
            return f"the loss by the fallback's weights is {ratio:.2g} times its best"
        return ""


@register
@dataclass(frozen=True)
class Until(Around):
    """An adaptive weighting up to a step, and the weights that it has found by then from there on.

    The curvature that L-BFGS has learned holds less and less while weights change: a weighting that changes them every
    few steps belongs to Adam, and L-BFGS afterwards to what it has found.

    Attributes:
        adaptive: The weighting.
        steps: Steps, over all stages, after which its weights stay.
    """

    adaptive: Weighting
    steps: int

    def __post_init__(self) -> None:
        """Refuse what is no weighting, and an end before the start."""
        check_weighting(self, adaptive=self.adaptive)
        if not self.steps >= 1:
            raise ValueError(f"steps of Until is {self.steps}; expected at least 1")

    @property
    def inner(self) -> Weighting:
        """The adaptive weighting."""
        return self.adaptive

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """The adaptive weighting's update; afterwards the same weights, those that were negative left out."""
        if terms.step <= self.steps:
            return self.adaptive.update(weights, terms)
        if weights.reference is None:
            return weights
        return replace(weights, values=weights.values.clamp(min=0.0), reference=None)


@register
@dataclass(frozen=True)
class Important(Around):
    """Another weighting with every response, and its sensitivities, times the response's importance.

    Attributes:
        importance: One positive number a response.
        base: The weighting to multiply.
    """

    importance: tuple[float, ...]
    base: Weighting = field(default_factory=Fixed)

    def __post_init__(self) -> None:
        """Refuse numbers that aren't positive, and a base that they mean nothing to."""
        if not self.importance or not all(0.0 < value < float("inf") for value in self.importance):
            raise ValueError(f"importance is {self.importance}; expected a positive number for each response")
        check_weighting(self, base=self.base)

    def of_responses(self, chosen: Sequence[int], m: int) -> Important:
        """The same for some of m responses, each with its own importance."""
        if len(self.importance) != m:
            return self  # which `start` refuses
        return replace(self, importance=tuple(self.importance[k] for k in chosen))

    @property
    def inner(self) -> Weighting:
        """The base."""
        return self.base

    def start(self, targets: Targets) -> Weights:
        """The base's weights times importance.

        Raises:
            ValueError: If there are other numbers of responses and importances.
        """
        if (m := targets.y.shape[1]) != len(self.importance):
            raise ValueError(f"importance has {len(self.importance)} entries, expected {m}, one a response")
        return self._multiplied(self.base.start(targets))

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """What the base makes of its own weights, times importance."""
        own = replace(weights, values=weights.values / self._column(weights.values))
        return self._multiplied(self.base.update(own, terms))

    def _multiplied(self, own: Weights) -> Weights:
        return replace(own, values=own.values * self._column(own.values))

    def _column(self, like: Tensor) -> Tensor:
        return like.new_tensor(self.importance).unsqueeze(1)


def by_variance(data: Samples, base: Weighting | None = None) -> Important:
    """Importance in proportion to the variance of each response: that of a mode's coefficient in the field.

    Training scales every response to variance one, so that the last mode would count as much as the first. With this
    weighting the loss of coefficients is the mean square error of the field, in the norm that its modes are orthonormal
    in, and with `Fixed` weights for a base that of its derivatives, too.

    Args:
        data: What `ReducedBasis.reduce` gave.
        base: By default `Fixed()` with Jacobians, `ValuesOnly()` without.
    """
    variance = data.y.var(axis=0)
    base = base or (ValuesOnly() if data.jacobian is None else Fixed())
    return Important(tuple((variance / np.max(variance)).tolist()), base)
