"""What a loss weighting is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sobofem.surrogate.files.registry import Storable
from sobofem.surrogate.loss import Targets


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
        decay: What multiplies the squares of all weight matrices in the objective.
        shares: What the decay of each parameter is multiplied by; None for one of matrices and zero of biases.
        closed_form: The derivatives of all residuals where there is a closed form of them; None where there is none.
    """

    losses: Tensor
    mean_squares: Tensor
    inputs: int
    step: int
    gradients: Callable[[Tensor], Tensor]
    residuals: Callable[[], Tensor]
    parameters: Sequence[Tensor]
    generator: torch.Generator
    decay: float = 0.0
    shares: Sequence[float] | None = None
    closed_form: Callable[[], Tensor | None] | None = None

    def derivatives(self) -> Tensor:
        """Derivatives of all residuals by the parameters (K, N, P)."""
        if self.closed_form is not None and (found := self.closed_form()) is not None:
            return found
        columns = self.residuals().flatten(1).unbind(1)
        return torch.stack([torch.cat([piece.flatten(1) for piece in self._each(column)], 1) for column in columns])

    def decays(self) -> Tensor:
        """What multiplies the square of each single parameter in the objective (P,)."""
        shares = self.shares or [float(p.ndim > 1) for p in self.parameters]
        pairs = zip(shares, self.parameters, strict=True)
        return torch.cat([torch.full_like(p, self.decay * share).detach().flatten() for share, p in pairs])

    def traces(self) -> Tensor:
        """Mean over the samples of each residual's squared gradient (m, T).

        Times N it is the trace of the term's block of the neural tangent kernel.
        """
        residuals = self.residuals()
        columns = residuals.flatten(1).unbind(1)
        return torch.stack([self._trace(column) for column in columns]).reshape(self.losses.shape)

    def _trace(self, column: Tensor) -> Tensor:
        return torch.stack([piece.square().sum() for piece in self._each(column)]).sum() / len(column)

    def _each(self, column: Tensor) -> tuple[Tensor, ...]:
        """Gradients of single residuals (N,) by each of the parameters."""
        return torch.autograd.grad(
            column,
            self.parameters,
            torch.eye(len(column), dtype=column.dtype, device=column.device),
            retain_graph=True,
            is_grads_batched=True,
            allow_unused=True,
            materialize_grads=True,
        )


class Weighting(Storable):
    """A strategy: a frozen dataclass that holds its settings, its state travelling in `Weights.memory`.

    One of your own overrides `start` and, if its weights change, `interval` and `update`; all else has a default. The
    total loss is the weighted sum of the terms over the weighted sum of the targets' mean squares, so that only ratios
    of weights matter. Decorated by `surrogate.register` as well, it is found when a checkpoint is read.
    """

    kind = "weighting"

    @property
    def interval(self) -> int:
        """Steps between two updates; 0, the default, for weights that never change."""
        return 0

    @property
    def late(self) -> bool:
        """Whether `update` is for a network that has converged: stages that know that ask for it, as `DecayPath`."""
        return False

    @property
    def uses_jacobian(self) -> bool:
        """Whether sensitivities are trained on: if not, Jacobians are neither computed nor looked at."""
        return True

    @property
    def weighs_samples(self) -> bool:
        """Whether single samples may have weights of their own: those that come and go can't."""
        return False

    @property
    def sums_losses(self) -> bool:
        """Whether the loss is a weighted sum of the terms, which it is unless `combined` is overridden."""
        return type(self).combined is Weighting.combined

    @abstractmethod
    def start(self, targets: Targets) -> Weights:
        """Weights at the start, from the scaled training targets."""

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """Weights from the present ones and the state of the terms, every `interval` steps; the same by default."""
        return weights

    def rescaled(self, weights: Weights, before: Terms, after: Terms) -> Weights:
        """Weights whose memory is what it would be, had the scale of the responses always been that of `after`.

        To be overridden by a strategy that remembers losses; the same weights by default.

        Args:
            weights: Its weights; `values` and `reference` are in the new scale already.
            before: The terms in the old scale.
            after: The same moment in the new one.
        """
        return weights

    def noise(self, weights: Weights, terms: Terms) -> Tensor | None:
        """Standard deviations (m, T) of the labels' noise, if its weights are inverse variances of it; or None."""
        return None

    def combined(self, mean_squares: Tensor, inputs: int) -> Callable[[Tensor], Tensor]:
        """What makes one number of the losses (m, T), 1 for losses that equal the mean squares; see `sums_losses`.

        Args:
            mean_squares: Of the targets (m, T).
            inputs: Number n of inputs.

        Raises:
            NotImplementedError: By default, as the losses are summed by weights that may change.
        """
        raise NotImplementedError(f"{self} sums the losses by its weights")
