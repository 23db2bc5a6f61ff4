"""Shallow networks, several for each response, as one module."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from surrogate.activations import activation
from surrogate.registry import register


@register
@dataclass(frozen=True)
class ShallowNetworks:
    """The mean of several networks of one hidden layer, each response with its own.

    Attributes:
        units: Units of a hidden layer.
        members: Networks whose mean predicts a response.
        activation: `softplus`, `sine` or `tanh`.
    """

    units: int
    members: int
    activation: str

    def build(self, n: int, m: int, generator: torch.Generator) -> Shallow:
        """An empty one, to be filled."""
        return Shallow(n, m, self)


class Shallow(nn.Module):
    """Σ over members of share · (v · a(W x + b) + c), for each of m responses.

    Attributes:
        W: (m, K, M, n).
        b: (m, K, M).
        v: (m, K, M).
        c: (m, K).
        share: (m, K), not negative, sums of one.
    """

    def __init__(self, n: int, m: int, spec: ShallowNetworks) -> None:
        super().__init__()
        K, M = spec.members, spec.units
        self.act = activation(spec.activation)
        for name, shape in {"W": (m, K, M, n), "b": (m, K, M), "v": (m, K, M), "c": (m, K), "share": (m, K)}.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))

    W: Tensor
    b: Tensor
    v: Tensor
    c: Tensor
    share: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N, m) at inputs (N, n)."""
        a = self.act.value(self._arguments(x))
        return self._values(a)

    def value_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (N, m) and their Jacobian (N, m, n) at inputs (N, n), both differentiable."""
        a, p = self.act.value_and_slope(self._arguments(x))
        return self._values(a), torch.einsum("nru,rui->nri", p * self._pulls(), self.W.flatten(1, 2))

    def disagreement(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Spread of the members' outputs (N, m) and of their Jacobians (N, m, n)."""
        K = self.share.shape[1]
        a, p = (part.unflatten(2, (K, -1)) for part in self.act.value_and_slope(self._arguments(x)))
        y = (a * self.v).sum(-1) + self.c
        slopes = torch.einsum("nrku,rkui->nrki", p * self.v, self.W)
        return _spread(y.unsqueeze(-1), self.share).squeeze(-1), _spread(slopes, self.share)

    def _arguments(self, x: Tensor) -> Tensor:
        """(N, m, K·M)."""
        m, n = self.W.shape[0], self.W.shape[3]
        return linear(x, self.W.reshape(-1, n), self.b.flatten()).unflatten(1, (m, -1))

    def _pulls(self) -> Tensor:
        return (self.share.unsqueeze(-1) * self.v).flatten(1)

    def _values(self, a: Tensor) -> Tensor:
        return torch.einsum("nru,ru->nr", a, self._pulls()) + (self.share * self.c).sum(1)


def _spread(members: Tensor, share: Tensor) -> Tensor:
    """Standard deviation over members (N, m, K, k) of these shares (m, K), unbiased: (N, m, k)."""
    weights = share.unsqueeze(-1)
    mean = (weights * members).sum(2, keepdim=True)
    variance = (weights * (members - mean).square()).sum(2)
    effective = (1.0 - share.square().sum(1)).clamp(min=1e-12).unsqueeze(-1)
    return (variance / effective).clamp(min=0.0).sqrt()
