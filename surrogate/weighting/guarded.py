"""Adaptive weights that give way where they go astray."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any
import warnings

import torch
from torch import Tensor

from surrogate.loss import Targets, weighted
from surrogate.weighting.base import Terms, Weighting, Weights, label_noise, remeasured, weighs_samples
from surrogate.weighting.per_channel import PerChannel
from surrogate.weighting.pieces import check_weighting


@dataclass(frozen=True)
class Guarded:
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
        check_weighting(self, "adaptive", "fallback")
        if not (self.spread > 1.0 and self.worse >= 1.0 and self.patience >= 1):
            raise ValueError(
                f"spread is {self.spread:g}, worse {self.worse:g} and patience {self.patience}; "
                "expected more than 1, at least 1 and at least 1"
            )

    @property
    def interval(self) -> int:
        """Of the adaptive weighting."""
        return self.adaptive.interval

    @property
    def weighs_samples(self) -> bool:
        """Whether the adaptive weighting does."""
        return weighs_samples(self.adaptive)

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
        return label_noise(self.adaptive, replace(weights, memory=weights.memory["inner"]), terms)

    def remeasured(self, weights: Weights, before: Terms, after: Terms) -> Weights:
        """Yardstick, best loss and the adaptive weighting's memory, in another scale of the responses."""
        memory = weights.memory
        inner = remeasured(self.adaptive, replace(weights, memory=memory["inner"]), before, after)
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
