"""Several networks of one kind as one, which knows how much they differ."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sobofem.surrogate.files.registry import register
from sobofem.surrogate.networks import MLP
from sobofem.surrogate.networks.base import Composite, Network, value_and_jacobian


@register
@dataclass(frozen=True)
class Ensemble:
    """Networks that differ in their start, averaged (Lakshminarayanan, Pritzel & Blundell 2017, *Deep ensembles*).

    Attributes:
        network: What each of them is.
        members: How many.
    """

    network: Network = field(default_factory=MLP)
    members: int = 8

    def __post_init__(self) -> None:
        """Refuse ensembles that can't disagree."""
        if not isinstance(self.members, int) or self.members < 2:
            raise ValueError(f"members is {self.members!r}; expected a whole number of at least 2")

    def build(self, n: int, m: int, generator: torch.Generator) -> EnsembleModule:
        """Members from n inputs to m outputs, each from its own start."""
        return EnsembleModule((self.network.build(n, m, generator) for _ in range(self.members)), m)


class EnsembleModule(Composite):
    """The mean of its members, and a multiple of their standard deviation.

    Args:
        members: Two or more networks that map (N, n) to (N, m).
        m: Number of outputs.

    Attributes:
        value_factors: What the members' standard deviation of each output is multiplied by (m,).
        slope_factors: The same for the rows of the Jacobian (m,).
    """

    value_factors: Tensor
    slope_factors: Tensor

    def __init__(self, members: Iterable[nn.Module], m: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.register_buffer("value_factors", torch.ones(m, dtype=torch.float64))
        self.register_buffer("slope_factors", torch.ones(m, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Mean outputs (N, m) at inputs (N, n)."""
        return torch.stack([member(x) for member in self.members]).mean(0)

    def value_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean outputs (N, m) and their Jacobian (N, m, n) at inputs (N, n), both differentiable."""
        y, slopes = self._all(x)
        return y.mean(0), slopes.mean(0)

    def standard_deviation(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Calibrated standard deviations of outputs (N, m) and of their Jacobian (N, m, n) at inputs (N, n)."""
        y, slopes = self._all(x)
        return y.std(0) * self.value_factors, slopes.std(0) * self.slope_factors.unsqueeze(1)

    @property
    def wrapped(self) -> nn.ModuleList:
        """The members."""
        return self.members

    def _all(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (K, N, m) and Jacobians (K, N, m, n) of the members."""
        y, slopes = zip(*(value_and_jacobian(member, x) for member in self.members), strict=True)
        return torch.stack(y), torch.stack(slopes)
