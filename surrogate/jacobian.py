"""Values and Jacobians of any module."""

from __future__ import annotations

from torch import Tensor, nn
from torch.func import jacrev, vmap


def value_and_jacobian(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs (N, m) and their Jacobian (N, m, n) at inputs (N, n), both differentiable.

    A module's own `value_and_jacobian` is used where it has one; any other module is differentiated one
    sample at a time, so that it must treat the rows of a batch independently (no batch normalization).
    """
    own = getattr(module, "value_and_jacobian", None)
    if own is not None:
        y, jacobian = own(x)
        return y, jacobian

    def single(row: Tensor) -> tuple[Tensor, Tensor]:
        y = module(row.unsqueeze(0)).squeeze(0)
        return y, y

    jacobian, y = vmap(jacrev(single, has_aux=True))(x)
    return y, jacobian
