"""What adaptive weightings see of the loss terms, and how they weigh them: by groups."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from surrogate.loss import Targets
from surrogate.weighting.base import Terms, Weights
from surrogate.weighting.grouping import Grouping
from surrogate.weighting.scale import per_channel


class Grouped(Protocol):
    """A strategy that weighs groups.

    With `scaled`, terms are measured on their own scale first, as by `PerChannel`, so that weights of one are its.
    """

    @property
    def groups(self) -> str:
        """Name of the `Grouping`."""

    @property
    def scaled(self) -> bool:
        """Whether terms are divided per channel first."""


def begin(strategy: Grouped, targets: Targets, **memory: Any) -> Weights:
    """Weight one for every group, and what else is to be remembered."""
    mean_squares = targets.mean_squares()
    base = _base(strategy, mean_squares, targets.x.shape[1])
    count = len(Grouping(strategy.groups).membership(mean_squares))
    return Weights(base, {"weights": torch.ones_like(base.flatten()[0]).repeat(count), **memory})


def _base(strategy: Grouped, mean_squares: Tensor, inputs: int) -> Tensor:
    return per_channel(mean_squares, inputs) if strategy.scaled else torch.ones_like(mean_squares)


def remeasured(strategy: Grouped, weights: Weights, before: Terms, after: Terms, *names: str) -> Weights:
    """Weights whose memory of losses (G,) under these names is changed as the groups' losses are from before to after.

    A group without a loss has nothing to be measured by, and keeps what it has.
    """
    membership = Grouping(strategy.groups).membership(after.losses)
    old, new = (
        membership @ (_base(strategy, terms.mean_squares, terms.inputs) * terms.losses).flatten()
        for terms in (before, after)
    )
    ratios = torch.where((old > 0.0) & (new > 0.0), new / old, 1.0)
    memory = {name: ratios * kept if name in names else kept for name, kept in weights.memory.items()}
    return replace(weights, memory=memory)


class Groups:
    """The groups that have labels, in the eyes of a strategy; the others keep their weights.

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
        self._base = _base(strategy, terms.mean_squares, terms.inputs)
        labelled = (terms.mean_squares > 0.0) | (terms.losses > 0.0)
        self._membership = grouping.membership(terms.losses)
        counts = self._membership @ labelled.flatten().to(terms.losses)
        self._alive = counts > 0.0
        self.counts = counts[self._alive]
        self._sums = self._membership[self._alive] * self._base.flatten()
        self.losses = self._sums @ terms.losses.flatten()
        self.weights = self._memory["weights"][self._alive]
        self.of_values = grouping.of_values(terms.losses)[self._alive]

    def __len__(self) -> int:
        """Number of groups with labels."""
        return len(self.losses)

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

    def recall(self, name: str) -> Any:
        """What `give` was last given under this name; None before."""
        kept = self._memory.get(name)
        return kept[..., self._alive] if isinstance(kept, Tensor) else kept

    def give(self, weights: Tensor, *, samples: Tensor | None = None, **memory: Any) -> Weights:
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
        each = torch.ones_like(samples[:, :1]).repeat(1, len(self._alive))
        each[:, self._alive] = samples
        return Weights(values, new, samples=(each @ self._membership).reshape(-1, *self._base.shape))

    def _whole(self, part: Any, before: Any) -> Any:
        """A tensor (..., G) with the groups without labels put back, as they were before or zero."""
        if not isinstance(part, Tensor):
            return part
        shape = (*part.shape[:-1], len(self._alive))
        whole = before.clone() if isinstance(before, Tensor) and before.shape == shape else part.new_zeros(shape)
        whole[..., self._alive] = part
        return whole
