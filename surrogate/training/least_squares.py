"""The objective as a sum of squares, with the derivatives of all residuals by the parameters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sobofem.surrogate.loss import residuals
from sobofem.surrogate.networks.base import as_network_module, parameter_jacobian
from sobofem.surrogate.training.objective import Objective

COLUMNS_AT_ONCE = 128
"""Columns of a block of a Gram matrix, the upper blocks of which are spared."""


class NoLeastSquares(ValueError):
    """An objective is no sum of squares, or one too large to be treated as such."""


@dataclass(frozen=True, eq=False)
class LeastSquares:
    """The objective at one point: the squared length of r, plus that of the decaying parameters, √decay θ.

    Attributes:
        residuals: All residuals that count, weighted: r (R,).
        jacobian: Their derivatives by the parameters (R, P).
        decay: What multiplies the square of each parameter (P,); zero for biases.
        scales: What the errors were multiplied by to weigh them (R,).
    """

    residuals: Tensor
    jacobian: Tensor
    decay: Tensor
    scales: Tensor

    @classmethod
    def of(cls, objective: Objective) -> LeastSquares:
        """Residuals and their derivatives at the present parameters."""
        module, targets = objective.module, objective.targets
        jacobian = objective.weighting.uses_jacobian
        with torch.no_grad():
            errors = residuals(module, targets, jacobian=jacobian)
        count = errors.shape[2] if jacobian and targets.jacobian is not None else 1
        scales = label_scales(objective)[:, :, :count]
        # `residuals` multiplies those of derivatives by the root of the presence already.
        weighted = errors[:, :, :count] * _roots(objective)[:, :, :count]
        derivatives = _derivatives(objective, count)
        counts = scales != 0.0
        scaled = (derivatives.flatten(0, 2) if counts.all() else derivatives[counts]).mul_(scales[counts].unsqueeze(1))
        shares = objective.shares or [float(p.ndim > 1) for p in objective.parameters]
        pairs = zip(shares, objective.parameters, strict=True)
        sizes = [torch.full_like(p, objective.decay * share).detach().flatten() for share, p in pairs]
        return cls(weighted[counts], scaled, torch.cat(sizes), scales[counts])


def _derivatives(objective: Objective, count: int) -> Tensor:
    """Derivatives by the parameters of what `count` terms of each response are compared with (N, m, count, P).

    Raises:
        NoLeastSquares: If functions of torch.func can't go through the module.
    """
    module, targets = objective.module, objective.targets
    try:
        if count > 1 and targets.directions is not None:
            return parameter_jacobian(module, targets.x, slopes=True, directions=targets.directions)
        return as_network_module(module).by_parameters(targets.x, slopes=count > 1)
    except (RuntimeError, NotImplementedError) as error:
        raise NoLeastSquares(
            f"{type(module).__name__} can't be differentiated by its parameters, a sample at a time "
            f"({str(error).splitlines()[0]}); train by LBFGS"
        ) from error


def label_scales(objective: Objective) -> Tensor:
    """What the errors of labels are multiplied by to be summed as squares (N, m, T); zero where one is missing."""
    targets, scales = objective.targets, _roots(objective).clone()
    if targets.presence is not None:
        scales[:, :, 1:] *= targets.presence.sqrt()
    if targets.believed is not None:
        scales[:, :, 0] *= targets.believed
    return scales


def _roots(objective: Objective) -> Tensor:
    """Square root of what each squared residual counts (N, m, T)."""
    weights, N = objective.weights, len(objective.targets)
    scale = (weights.values * objective.mean_squares).sum()
    share = weights.values / torch.where(scale > 0.0, scale, weights.values.sum()) / N
    return (share if weights.samples is None else share * weights.samples).expand(N, *share.shape).sqrt()


def check_least_squares(objective: Objective) -> None:
    """Check that the objective is a sum of squares.

    Raises:
        NoLeastSquares: If the decay or the weighting makes something else of it.
    """
    if objective.decay and not as_network_module(objective.module).decays_squares:
        raise NoLeastSquares(
            f"{type(objective.module).__name__} has a penalty of its own, no sum of squares; "
            "train by LBFGS, or with decay=0"
        )
    if not objective.weighting.sums_losses or objective.weights.reference is not None:
        raise NoLeastSquares(
            f"losses are no sum of squares: {objective.weighting} makes more of them than a weighted sum; "
            "train by LBFGS"
        )


def least_squares_size(objective: Objective) -> tuple[int, int]:
    """Residuals, those of missing labels with them, and parameters."""
    targets = objective.targets
    used = objective.weights.values.count_nonzero() if objective.weighting.uses_jacobian else targets.y.shape[1]
    return len(targets) * int(used), sum(p.numel() for p in objective.parameters)


def gram(A: Tensor) -> Tensor:
    """AᵀA for A (R, P), of which the lower triangle alone is to be read: a factorization needs no more."""
    found = A.new_zeros(A.shape[1], A.shape[1])
    for start in range(0, A.shape[1], COLUMNS_AT_ONCE):
        end = start + COLUMNS_AT_ONCE
        found[start:end, :end] = A[:, start:end].T @ A[:, :end]
    return found
