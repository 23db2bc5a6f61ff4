"""What a loss weighting is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from surrogate.loss import Targets


@dataclass(frozen=True)
class Weights:
    """The weights of all terms, and what their strategy remembers.

    Attributes:
        values: (m, 1 + n): responses in column 0, Jacobian entries in the others; not negative.
        memory: Whatever the strategy needs at its next update: running means, first losses, an optimizer.
    """

    values: Tensor
    memory: Any = None


@dataclass(frozen=True)
class Terms:
    """The state of all loss terms at one moment of training.

    Attributes:
        losses: Mean squared residuals (m, 1 + n), detached.
        step: Optimizer steps done so far, over all stages.
        gradients: Computes the gradient of each term by all parameters, (m·(1 + n), P), rows in the order
            of `losses.flatten()`. A rule that combines gradients (PCGrad, ConFIG, MGDA) is a weighting too:
            its combination is Σ w_k g_k.
        generator: For strategies that draw.
    """

    losses: Tensor
    step: int
    gradients: Callable[[], Tensor]
    generator: torch.Generator


class Weighting(Protocol):
    """A strategy: a frozen dataclass that holds its settings, its state travelling in `Weights.memory`.

    The total loss is the weighted sum of the terms over the weighted sum of the targets' mean squares
    (`surrogate.loss.weighted`), so that only ratios of weights matter.
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
