"""Loss terms: one per response, and one per entry (response, parameter) of the Jacobian."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from surrogate.jacobian import value_and_jacobian


@dataclass(frozen=True, eq=False)
class Targets:
    """Scaled samples as tensors.

    Attributes:
        x: Inputs (N, n).
        y: Responses (N, m).
        jacobian: Jacobians (N, m, n), or None.
    """

    x: Tensor
    y: Tensor
    jacobian: Tensor | None

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.x)

    def select(self, rows: Tensor) -> Self:
        """The samples of these row numbers."""
        jacobian = None if self.jacobian is None else self.jacobian[rows]
        return type(self)(self.x[rows], self.y[rows], jacobian)

    def mean_squares(self) -> Tensor:
        """Mean square of each target (m, 1 + n): the losses of a network that predicts zero."""
        return squared_errors(
            self, torch.zeros_like(self.y), None if self.jacobian is None else torch.zeros_like(self.jacobian)
        )


def squared_errors(targets: Targets, y: Tensor, jacobian: Tensor | None) -> Tensor:
    """Mean squared residual of each term.

    Args:
        targets: N samples of m responses in n inputs.
        y: Predicted responses (N, m).
        jacobian: Predicted Jacobians (N, m, n), or None.

    Returns:
        (m, 1 + n): responses in column 0, their derivative by input j in column 1 + j. Without Jacobians,
        in the targets or in the prediction, those columns are zero.
    """
    values = (y - targets.y).square().mean(0).unsqueeze(1)
    if jacobian is None or targets.jacobian is None:
        slopes = values.new_zeros(y.shape[1], targets.x.shape[1])
    else:
        slopes = (jacobian - targets.jacobian).square().mean(0)
    return torch.cat((values, slopes), dim=1)


def term_losses(module: nn.Module, targets: Targets, *, jacobian: bool = True) -> Tensor:
    """Mean squared residual of each term (m, 1 + n), differentiable by the parameters of the module.

    Args:
        module: Maps (N, n) to (N, m).
        targets: What it should give.
        jacobian: Whether to differentiate the module; derivative terms are zero otherwise.
    """
    if jacobian and targets.jacobian is not None:
        return squared_errors(targets, *value_and_jacobian(module, targets.x))
    return squared_errors(targets, module(targets.x), None)


def weighted(losses: Tensor, weights: Tensor, mean_squares: Tensor) -> Tensor:
    """Weighted sum of losses over the weighted sum of the targets' mean squares, all (m, 1 + n).

    It is 1 for a network that predicts zero, whatever the weights, the number of terms and their scales:
    learning rates and decay keep their meaning as weights change.
    """
    return (weights * losses).sum() / (weights * mean_squares).sum()
