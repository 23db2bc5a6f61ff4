"""An objective as a sum of squares, with the Jacobian of its residuals by the parameters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from surrogate.curvature import value_jacobian_and_action
from surrogate.jacobian import value_and_jacobian
from surrogate.objective import Objective
from surrogate.weighting.residuals import residuals

CHUNK = 64
"""Samples that are differentiated at once."""


@dataclass(frozen=True, eq=False)
class LeastSquares:
    """The objective at one point: the squared length of r, plus that of the decaying parameters, √decay θ.

    Attributes:
        residuals: All residuals that count, weighted: r (R,).
        jacobian: Their derivatives by the parameters (R, P).
        decay: What multiplies the square of each parameter (P,); zero for biases.
    """

    residuals: Tensor
    jacobian: Tensor
    decay: Tensor

    @classmethod
    def of(cls, objective: Objective) -> LeastSquares:
        """Residuals and their derivatives at the present parameters."""
        module, targets = objective.module, objective.targets
        jacobian = objective.weighting.uses_jacobian
        with torch.no_grad():
            errors = residuals(module, targets, jacobian=jacobian)
        roots = _roots(objective, errors)
        count = errors.shape[2] if jacobian and targets.jacobian is not None else 1
        parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        outputs = _Outputs(module, targets.directions if jacobian else None, count)

        def single(values: dict[str, Tensor], x: Tensor, direction: Tensor | None) -> Tensor:
            return functional_call(outputs, values, (x, direction))

        rows = {f"module.{name}": p.detach() for name, p in parameters.items()}
        directions = targets.directions if outputs.curved else None
        where = (None, 0, None if directions is None else 0)
        pieces = vmap(jacrev(single), in_dims=where, chunk_size=CHUNK)(rows, targets.x, directions)
        derivatives = torch.cat([piece.flatten(3) for piece in pieces.values()], dim=3)
        if targets.presence is not None:
            derivatives[:, :, 1:] *= targets.presence[:, :, : count - 1].sqrt().unsqueeze(3)
        roots, errors = roots[:, :, :count], errors[:, :, :count]
        counts = roots != 0.0
        scaled = derivatives[counts] * roots[counts].unsqueeze(1)
        sizes = [torch.full_like(p, objective.decay if p.ndim > 1 else 0.0).flatten() for p in parameters.values()]
        return cls((errors * roots)[counts], scaled, torch.cat(sizes))


class _Outputs(nn.Module):
    """What a module says at one point: values, Jacobian and Hessian's action side by side (m, T)."""

    def __init__(self, module: nn.Module, directions: Tensor | None, count: int) -> None:
        super().__init__()
        self.module, self.count = module, count
        self.curved = directions is not None and count > 1

    def forward(self, x: Tensor, direction: Tensor | None) -> Tensor:
        """Outputs (m, T) at x (n,)."""
        if self.count == 1:
            return self.module(x.unsqueeze(0)).squeeze(0).unsqueeze(1)
        if self.curved:
            assert direction is not None
            y, *slopes = value_jacobian_and_action(self.module, x.unsqueeze(0), direction.unsqueeze(0))
        else:
            y, *slopes = value_and_jacobian(self.module, x.unsqueeze(0))
        return torch.cat((y.unsqueeze(2), *slopes), dim=2).squeeze(0)


def _roots(objective: Objective, errors: Tensor) -> Tensor:
    """Square root of what each squared residual counts (N, m, T)."""
    weights = objective.weights
    scale = (weights.values * objective.mean_squares).sum()
    share = weights.values / torch.where(scale > 0.0, scale, weights.values.sum()) / len(errors)
    return (share if weights.samples is None else share * weights.samples).expand_as(errors).sqrt()
