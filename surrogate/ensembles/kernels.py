"""Activations with two derivatives, computed in place: what a gradient written out by hand needs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from surrogate.activations import ACTIVATIONS, Activation

Kernel = Callable[[Tensor, Tensor, Tensor, Tensor], None]
"""`kernel(z, a, s, c)` writes value, slope and curvature at z into a, s and c, all of one shape."""


def _tanh(z: Tensor, a: Tensor, s: Tensor, c: Tensor) -> None:
    torch.tanh(z, out=a)
    torch.mul(a, a, out=s).neg_().add_(1.0)
    torch.mul(a, s, out=c).mul_(-2.0)


def _softplus(z: Tensor, a: Tensor, s: Tensor, c: Tensor) -> None:
    torch.logaddexp(z, z.new_zeros(()), out=a)
    torch.sigmoid(z, out=s)
    torch.mul(s, s, out=c).neg_().add_(s)


def _sine(z: Tensor, a: Tensor, s: Tensor, c: Tensor) -> None:
    torch.sin(z, out=a)
    torch.cos(z, out=s)
    torch.neg(a, out=c)


_KERNELS: dict[str, Kernel] = {"tanh": _tanh, "softplus": _softplus, "sine": _sine}


def kernel(act: Activation) -> Kernel | None:
    """The kernel of an activation, if there is one."""
    for name, known in _KERNELS.items():
        if ACTIVATIONS.get(name) is act:
            return known
    return None
