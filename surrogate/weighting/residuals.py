"""Residuals of single samples, for weightings that look behind the means."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from surrogate.curvature import value_jacobian_and_action
from surrogate.jacobian import value_and_jacobian
from surrogate.loss import Targets


def residuals(module: nn.Module, targets: Targets, *, jacobian: bool = True) -> Tensor:
    """Residuals (N, m, T) whose mean squares over the samples are `surrogate.loss.term_losses`.

    A label that is missing has the residual zero, and those that are there are larger for it by as much as makes the
    mean over samples one over labels.

    Args:
        module: Maps (N, n) to (N, m).
        targets: What it should give.
        jacobian: Whether to differentiate the module; all residuals but those of the responses are zero otherwise.
    """
    wanted = [part for part in (targets.jacobian, targets.actions) if part is not None]
    if not jacobian or not wanted:
        values = (module(targets.x) - targets.y).unsqueeze(2)
        columns = targets.x.shape[1] * max(1, len(wanted))
        return torch.cat((values, values.new_zeros(*targets.y.shape, columns)), dim=2)
    if targets.directions is None:
        y, *slopes = value_and_jacobian(module, targets.x)
    else:
        y, *slopes = value_jacobian_and_action(module, targets.x, targets.directions)
    errors = torch.cat([found - true for found, true in zip(slopes, wanted, strict=True)], dim=2)
    if targets.presence is not None:
        errors = errors * targets.presence.sqrt()
    return torch.cat(((y - targets.y).unsqueeze(2), errors), dim=2)
