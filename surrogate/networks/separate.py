"""One network a response."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from sobofem.surrogate.files.registry import register
from sobofem.surrogate.networks.activations import Activation
from sobofem.surrogate.networks.base import Composite, Network, as_network_module, value_and_jacobian
from sobofem.surrogate.networks.perceptron import MLP, Perceptron
from sobofem.surrogate.samples.scaling import Scaling

Layers = tuple[list[Tensor], list[Tensor], Activation]


def _stack(members: Sequence[Perceptron]) -> Layers:
    """Weights (K, out, in), biases (K, 1, out) and the activation of K perceptrons of equal layers."""
    weights = [torch.stack(list(layer)) for layer in zip(*(member.weights for member in members), strict=True)]
    biases = [torch.stack(list(layer)) for layer in zip(*(member.biases for member in members), strict=True)]
    return weights, [b.unsqueeze(1) for b in biases], members[0].act


def _value(stacked: Layers, x: Tensor) -> Tensor:
    """Outputs (N, K) at inputs (N, n)."""
    weights, biases, act = stacked
    h = x.expand(len(weights[0]), -1, -1)
    for V, c in zip(weights[:-1], biases[:-1], strict=True):
        h = act.value(torch.baddbmm(c, h, V.mT))
    return torch.baddbmm(biases[-1], h, weights[-1].mT).squeeze(2).T


def _value_and_jacobian(stacked: Layers, x: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs (N, K) and their Jacobian (N, K, n) at inputs (N, n), both differentiable."""
    weights, biases, act = stacked
    h, slopes = x.expand(len(weights[0]), -1, -1), []
    for V, c in zip(weights[:-1], biases[:-1], strict=True):
        h, slope = act.value_and_slope(torch.baddbmm(c, h, V.mT))
        slopes.append(slope)
    A = weights[-1] * slopes[-1]
    for V, slope in zip(reversed(weights[1:-1]), reversed(slopes[:-1]), strict=True):
        A = torch.bmm(A, V) * slope
    y = torch.baddbmm(biases[-1], h, weights[-1].mT)
    return y.squeeze(2).T, torch.bmm(A, weights[0]).transpose(0, 1)


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


class SeparateModule(Composite):
    """Modules with one output each, side by side; perceptrons are computed as one, others in turn."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N, m) at inputs (N, n)."""
        perceptrons = self._perceptrons()
        if perceptrons:
            return _value(_stack(perceptrons), x)
        return torch.cat([member(x) for member in self.members], dim=1)

    def value_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (N, m) and their Jacobian (N, m, n) at inputs (N, n), both differentiable."""
        perceptrons = self._perceptrons()
        if perceptrons:
            return _value_and_jacobian(_stack(perceptrons), x)
        y, dy = zip(*(value_and_jacobian(member, x) for member in self.members), strict=True)
        return torch.cat(y, dim=1), torch.cat(dy, dim=1)

    @property
    def wrapped(self) -> nn.ModuleList:
        """The members."""
        return self.members

    def rescale(self, factor: Tensor, shift: Tensor) -> None:
        """Rescale each member by the entry of its response."""
        for k, member in enumerate(self.members):
            as_network_module(member).rescale(factor[k : k + 1], shift[k : k + 1])

    def set_scaling(self, scaling: Scaling) -> None:
        """Pass on to each member the scaling of its response."""
        for k, member in enumerate(self.members):
            own = replace(scaling, y_center=scaling.y_center[k : k + 1], y_scale=scaling.y_scale[k : k + 1])
            as_network_module(member).set_scaling(own)

    def _perceptrons(self) -> list[Perceptron]:
        """The members where all are perceptrons, none otherwise."""
        found = [member for member in self.members if isinstance(member, Perceptron)]
        return found if len(found) == len(self.members) else []
