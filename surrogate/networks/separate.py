"""One network a response."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from surrogate.jacobian import value_and_jacobian
from surrogate.networks import stacked
from surrogate.networks.hooks import set_scaling
from surrogate.networks.perceptron import MLP, Perceptron
from surrogate.registry import Network, register
from surrogate.scaling import Scaling


@register
@dataclass(frozen=True)
class Separate:
    """A network of its own for each response, all of one kind.

    Responses that have little in common don't disturb each other so; a shared network, the default elsewhere, learns
    from all what they have in common.

    Attributes:
        network: What each response gets.
    """

    network: Network = field(default_factory=MLP)

    def build(self, n: int, m: int, generator: torch.Generator) -> SeparateModule:
        """Networks from n inputs to one output, m of them, in float64."""
        return SeparateModule([self.network.build(n, 1, generator) for _ in range(m)])


class SeparateModule(nn.Module):
    """Modules with one output each, side by side; perceptrons are computed as one, others in turn."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N, m) at inputs (N, n)."""
        perceptrons = self._perceptrons()
        if perceptrons:
            return stacked.value(stacked.stack(perceptrons), x)
        return torch.cat([member(x) for member in self.members], dim=1)

    def value_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (N, m) and their Jacobian (N, m, n) at inputs (N, n), both differentiable."""
        perceptrons = self._perceptrons()
        if perceptrons:
            return stacked.value_and_jacobian(stacked.stack(perceptrons), x)
        y, dy = zip(*(value_and_jacobian(member, x) for member in self.members), strict=True)
        return torch.cat(y, dim=1), torch.cat(dy, dim=1)

    @property
    def rescale(self) -> Callable[[Tensor, Tensor], None]:
        """Rescales each, if they can be."""
        each = [member.rescale for member in self.members]

        def rescale(factor: Tensor, shift: Tensor) -> None:
            for k, one in enumerate(each):
                one(factor[k : k + 1], shift[k : k + 1])  # type: ignore[operator]

        return rescale

    @property
    def penalty(self) -> Callable[[], Tensor]:
        """The sum of all, if they have one."""
        each = [member.penalty for member in self.members]
        return lambda: torch.stack([one() for one in each]).sum()  # type: ignore[operator]

    def set_scaling(self, scaling: Scaling) -> None:
        """Tell each that of its response."""
        for k, member in enumerate(self.members):
            own = replace(scaling, y_center=scaling.y_center[k : k + 1], y_scale=scaling.y_scale[k : k + 1])
            set_scaling(member, own)

    def _perceptrons(self) -> list[Perceptron]:
        """The members where all are perceptrons, none otherwise."""
        found = [member for member in self.members if isinstance(member, Perceptron)]
        return found if len(found) == len(self.members) else []
