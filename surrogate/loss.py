"""Loss terms and their residuals: one per response, per entry of its Jacobian, per entry of its Hessian's action."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from sobofem.surrogate.networks.base import value_and_jacobian, value_jacobian_and_action
from sobofem.surrogate.samples.arrays import Array

ROWS_AT_ONCE = 4096
"""Samples that are looked at together where all are too many for the memory."""


@dataclass(frozen=True, eq=False)
class Targets:
    """Scaled samples as tensors.

    With n inputs and m responses there are m × T loss terms, in this order of columns: the response, its n slopes,
    and, where actions are given, their n entries; T is 1 + n or 1 + 2n.

    Attributes:
        x: Inputs (N, n).
        y: Responses (N, m).
        jacobian: Jacobians (N, m, n), or None; zero where a label is missing.
        directions: Directions (N, n) that the Hessians act on, or None.
        actions: Hessian of each response times the direction (N, m, n), or None; zero where a label is missing.
        presence: What the squared errors of slopes and actions count, (N, m, T − 1); None where each counts once.
            `of_labels` has missing labels count nothing, and the others more than once, so that a mean over samples
            is one over labels.
        believed: Which values are learned from (N, m), 1 or 0, those that aren't being zero; None for all.
    """

    x: Tensor
    y: Tensor
    jacobian: Tensor | None
    directions: Tensor | None = None
    actions: Tensor | None = None
    presence: Tensor | None = None
    believed: Tensor | None = None

    @classmethod
    def of_labels(
        cls,
        x: Tensor,
        y: Tensor,
        jacobian: Tensor | None,
        directions: Tensor | None = None,
        actions: Tensor | None = None,
    ) -> Self:
        """Targets from labels that are NaN where they are missing.

        Values that are missing count nothing. The derivatives that are there count N over their number: their mean
        squares are exact over all of these samples, and without bias over batches.
        """
        believed = None
        if y.isnan().any():
            believed, y = (~y.isnan()).to(y.dtype), y.nan_to_num(nan=0.0)
        derivatives = _joined(jacobian, actions)
        if derivatives is None or not derivatives.isnan().any():
            return cls(x, y, jacobian, directions, actions, believed=believed)
        known = (~derivatives.isnan()).to(x.dtype)
        presence = known / known.mean(0).clamp(min=1.0 / len(x))
        return cls(x, y, _zeroed(jacobian), _zeroed(directions), _zeroed(actions), presence, believed)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.x)

    def select(self, rows: Tensor) -> Self:
        """The samples of these row numbers."""
        return type(self)(*(None if part is None else part[rows] for part in self._parts))  # type: ignore[arg-type]

    def to(self, device: torch.device | str | Tensor) -> Self:
        """The same samples on a device, or where a tensor is and in its precision."""
        return type(self)(*(None if part is None else part.to(device) for part in self._parts))  # type: ignore[arg-type]

    @property
    def _parts(self) -> tuple[Tensor | None, ...]:
        return self.x, self.y, self.jacobian, self.directions, self.actions, self.presence, self.believed

    def mean_squares(self) -> Tensor:
        """Mean square of each target (m, T): the losses of a network that predicts zero."""
        zeros = (None if labels is None else torch.zeros_like(labels) for labels in (self.jacobian, self.actions))
        return squared_errors(self, torch.zeros_like(self.y), *zeros)


class StoredTargets(Targets):
    """Targets whose Jacobians stay where they are, such as in a file, and are scaled as their rows are taken.

    Training in batches then needs no more memory than a batch does, however many samples there are.

    Args:
        x: Inputs (N, n), scaled.
        y: Responses (N, m), scaled.
        labels: Jacobians (N', m, n) in physical units, none of them missing.
        rows: Which of them belong to the N samples (N,); all where None.
        factor: What scales a Jacobian (m, n).
    """

    _labels: Array
    _rows: Tensor | None
    _factor: Array

    def __init__(self, x: Tensor, y: Tensor, labels: Array, rows: Tensor | None, factor: Array) -> None:
        rest = dict.fromkeys(("directions", "actions", "presence", "believed"))
        vars(self).update(rest, x=x, y=y, _labels=labels, _rows=rows, _factor=factor)

    @property
    def jacobian(self) -> Tensor:  # type: ignore[override]
        """All Jacobians (N, m, n), scaled each time."""
        return self._taken(torch.arange(len(self)))

    def select(self, rows: Tensor) -> Targets:  # type: ignore[override]
        """The samples of these row numbers, with Jacobians."""
        return Targets(self.x[rows], self.y[rows], self._taken(rows.cpu()))

    def to(self, device: torch.device | str | Tensor) -> StoredTargets:  # type: ignore[override]
        """The same samples; Jacobians go there as they are taken."""
        return StoredTargets(self.x.to(device), self.y.to(device), self._labels, self._rows, self._factor)

    def mean_squares(self) -> Tensor:
        """As for all targets, a part of the samples after the other."""
        parts = (self.select(rows) for rows in torch.arange(len(self)).split(ROWS_AT_ONCE))
        return torch.stack([len(part) * part.mean_squares() for part in parts]).sum(0) / len(self)

    def _taken(self, rows: Tensor) -> Tensor:
        found = self._labels[(rows if self._rows is None else self._rows[rows]).numpy()]
        return torch.from_numpy(np.multiply(found, self._factor, out=found)).to(self.x)


def squared_errors(targets: Targets, y: Tensor, jacobian: Tensor | None, actions: Tensor | None = None) -> Tensor:
    """Mean squared residual of each term, over the labels that are there.

    Args:
        targets: N samples of m responses in n inputs.
        y: Predicted responses (N, m).
        jacobian: Predicted Jacobians (N, m, n), or None.
        actions: Predicted actions of the Hessians (N, m, n), or None.

    Returns:
        (m, T): responses in column 0, their derivative by input j in column 1 + j, and entry j of the Hessian's
        action in column 1 + n + j. What is neither in the targets nor in the prediction is zero.
    """
    values = _of_values(y, targets).square().mean(0).unsqueeze(1)
    errors = [_squares(jacobian, targets.jacobian, targets)]
    if targets.actions is not None:
        errors.append(_squares(actions, targets.actions, targets))
    squares = torch.cat(errors, dim=2)
    if targets.presence is not None:
        squares = squares * targets.presence
    return torch.cat((values, squares.mean(0)), dim=1)


def term_losses(module: nn.Module, targets: Targets, *, jacobian: bool = True) -> Tensor:
    """Mean squared residual of each term (m, T), differentiable by the parameters of the module.

    Args:
        module: Maps (N, n) to (N, m).
        targets: What it should give.
        jacobian: Whether to differentiate the module; all terms but those of the responses are zero otherwise.
    """
    if not jacobian or targets.jacobian is None:
        return squared_errors(targets, module(targets.x), None)
    if targets.directions is None:
        return squared_errors(targets, *value_and_jacobian(module, targets.x))
    return squared_errors(targets, *value_jacobian_and_action(module, targets.x, targets.directions))


def weighted(losses: Tensor, weights: Tensor, mean_squares: Tensor) -> Tensor:
    """Weighted sum of losses over the weighted sum of the targets' mean squares, all (m, T).

    It is 1 for a network that predicts zero, whatever the weights, the number of terms and their scales:
    learning rates and decay keep their meaning as weights change.
    """
    return (weights * losses).sum() / (weights * mean_squares).sum()


def _squares(predicted: Tensor | None, wanted: Tensor | None, targets: Targets) -> Tensor:
    """Squared errors (N, m, n); zero where one of the two is None."""
    if predicted is None or wanted is None:
        return targets.y.new_zeros(*targets.y.shape, targets.x.shape[1])
    return (predicted - wanted).square()


def _joined(jacobian: Tensor | None, actions: Tensor | None) -> Tensor | None:
    parts = [part for part in (jacobian, actions) if part is not None]
    return torch.cat(parts, dim=2) if parts else None


def _zeroed(labels: Tensor | None) -> Tensor | None:
    return None if labels is None else labels.nan_to_num(nan=0.0)


def residuals(module: nn.Module, targets: Targets, *, jacobian: bool = True) -> Tensor:
    """Residuals (N, m, T) whose mean squares over the samples are `sobofem.surrogate.loss.term_losses`.

    A label that is missing has the residual zero, and those that are there are larger for it by as much as makes the
    mean over samples one over labels.

    Args:
        module: Maps (N, n) to (N, m).
        targets: What it should give.
        jacobian: Whether to differentiate the module; all residuals but those of the responses are zero otherwise.
    """
    wanted = [part for part in (targets.jacobian, targets.actions) if part is not None]
    if not jacobian or not wanted:
        values = _of_values(module(targets.x), targets).unsqueeze(2)
        columns = targets.x.shape[1] * max(1, len(wanted))
        return torch.cat((values, values.new_zeros(*targets.y.shape, columns)), dim=2)
    if targets.directions is None:
        y, *slopes = value_and_jacobian(module, targets.x)
    else:
        y, *slopes = value_jacobian_and_action(module, targets.x, targets.directions)
    errors = torch.cat([found - true for found, true in zip(slopes, wanted, strict=True)], dim=2)
    if targets.presence is not None:
        errors = errors * targets.presence.sqrt()
    return torch.cat((_of_values(y, targets).unsqueeze(2), errors), dim=2)


def _of_values(y: Tensor, targets: Targets) -> Tensor:
    """Residuals of values (N, m); zero where one is missing."""
    errors = y - targets.y
    return errors if targets.believed is None else errors * targets.believed
