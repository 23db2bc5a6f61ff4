"""What a loss weighting is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from surrogate.loss import Targets


@dataclass(frozen=True)
class Weights:
    """The weights of all terms, and what their strategy remembers.

    Attributes:
        values: (m, T): responses in column 0, what is known of their derivatives in the others. Negative only
            where `reference` is given.
        memory: Whatever the strategy needs at its next update: running means, first losses, an optimizer.
            None, numbers, strings, tensors, and lists, tuples and dicts of those: a checkpoint must hold it.
        samples: Weights of the samples within each term (N, m, T), one in the mean over the samples; None where
            all count alike.
        reference: Losses (m, T) for which the values were found, where some of those may be negative.
    """

    values: Tensor
    memory: Any = None
    samples: Tensor | None = None
    reference: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Terms:
    """The state of all loss terms at one moment of training; what costs something is computed when asked for.

    There are m × T terms, K = m·T, in the order of `losses.flatten()`.

    Attributes:
        losses: Mean squared residuals (m, T), detached.
        mean_squares: Of the targets (m, T). Zero, with a loss of zero, where a term has no labels.
        inputs: Number n of inputs: columns 1 to n are slopes, those after them actions of the Hessian.
        step: Optimizer steps done so far, over all stages.
        gradients: Given combinations of terms (G, K), computes the gradient of each by all parameters (G, P). A
            rule that combines gradients (PCGrad, ConFIG, MGDA) is a weighting too: its combination is Σ w_k g_k.
        residuals: Computes the residuals (N, m, T) whose mean squares the losses are, differentiable.
        parameters: What is trained, in the order of the gradients.
        generator: For strategies that draw.
    """

    losses: Tensor
    mean_squares: Tensor
    inputs: int
    step: int
    gradients: Callable[[Tensor], Tensor]
    residuals: Callable[[], Tensor]
    parameters: Sequence[Tensor]
    generator: torch.Generator

    def traces(self) -> Tensor:
        """Mean over the samples of each residual's squared gradient (m, T).

        Times N it is the trace of the term's block of the neural tangent kernel.
        """
        residuals = self.residuals()
        columns = residuals.flatten(1).unbind(1)
        return torch.stack([self._trace(column) for column in columns]).reshape(self.losses.shape)

    def _trace(self, column: Tensor) -> Tensor:
        pieces = torch.autograd.grad(
            column,
            self.parameters,
            torch.eye(len(column), dtype=column.dtype, device=column.device),
            retain_graph=True,
            is_grads_batched=True,
            allow_unused=True,
            materialize_grads=True,
        )
        return torch.stack([piece.square().sum() for piece in pieces]).sum() / len(column)


class Weighting(Protocol):
    """A strategy: a frozen dataclass that holds its settings, its state travelling in `Weights.memory`.

    The total loss is the weighted sum of the terms over the weighted sum of the targets' mean squares, so that only
    ratios of weights matter. A strategy that offers `combined(mean_squares, inputs)` says itself how one number is
    made of the losses: it returns a function that takes them (m, T) and gives 1 for the mean squares, as `PowerMean`.

    A strategy that remembers losses offers `remeasured(weights, before, after)`: its weights with the memory that it
    would have, had the scale of the responses always been another. `before` and `after` are the same moment in the
    `Terms` of both scales; `values` and `reference` are in the new one already. One that takes its weights for inverse
    variances of the labels' noise offers `noise(weights, terms)`: the standard deviations (m, T). One that may weigh
    single samples has a true `weighs_samples`: samples that come and go have no weights of their own.
    """

    @property
    def interval(self) -> int:
        """Steps between two updates; 0 for weights that never change."""

    @property
    def uses_jacobian(self) -> bool:
        """Whether sensitivities are trained on: if not, Jacobians are neither computed nor looked at."""

    def start(self, targets: Targets) -> Weights:
        """Weights at the start, from the scaled training targets."""

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """Weights from the present ones and the state of the terms; called every `interval` steps."""


def remeasured(strategy: Weighting, weights: Weights, before: Terms, after: Terms) -> Weights:
    """Weights whose memory is in the scale of `after`; the same ones of a strategy that remembers no losses."""
    own = getattr(strategy, "remeasured", None)
    if own is None:
        return weights
    changed: Weights = own(weights, before, after)
    return changed


def label_noise(strategy: Weighting, weights: Weights, terms: Terms) -> Tensor | None:
    """Standard deviations (m, T) of the labels' noise by a strategy that has `noise(weights, terms)`, else None."""
    own = getattr(strategy, "noise", None)
    levels: Tensor | None = None if own is None else own(weights, terms)
    return levels


def weighs_samples(strategy: Weighting) -> bool:
    """Whether a strategy may give single samples weights of their own."""
    return bool(getattr(strategy, "weighs_samples", False))
