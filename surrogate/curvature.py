"""Products of Hessians with directions, of any module."""

from __future__ import annotations

from functools import cache
import warnings

import torch
from torch import Tensor, nn
from torch.func import jvp

from surrogate.jacobian import value_and_jacobian


def value_jacobian_and_action(module: nn.Module, x: Tensor, directions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs, Jacobian, and the Hessian of every output times a direction, all differentiable by the parameters.

    The Jacobian is differentiated along the directions in forward mode (Pearlmutter 1994, *Fast exact
    multiplication by the Hessian*), the directions of all samples at once: rows of a batch don't see each other.

    Args:
        module: Maps inputs (N, n) to outputs (N, m).
        x: Inputs (N, n).
        directions: One vector for each input (N, n).

    Returns:
        Outputs (N, m), Jacobian (N, m, n), and actions (N, m, n): entry (i, j) is Σ_k ∂²y_i/∂x_j∂x_k v_k.
    """
    _load_forward_mode()
    primals, tangents = jvp(lambda points: value_and_jacobian(module, points), (x,), (directions,))[:2]
    return *primals, tangents[1]


@cache
def _load_forward_mode() -> None:
    """Have torch load its rules of forward mode, in whose files it warns of a function of its own."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".torch.jit.script. is deprecated", category=FutureWarning)
        jvp(torch.square, (torch.zeros(1),), (torch.ones(1),))
