"""The weighted mean of several modules, with a standard deviation that was calibrated."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from surrogate.jacobian import value_and_jacobian
from surrogate.registry import Network, register


@register
@dataclass(frozen=True)
class Mixture:
    """A weighted mean of networks, the weights of each response its own.

    Attributes:
        parts: What is mixed.
    """

    parts: tuple[Network, ...]

    def __post_init__(self) -> None:
        """Refuse a mixture of nothing."""
        if not self.parts:
            raise ValueError("a mixture has no parts; expected at least one network")

    def build(self, n: int, m: int, generator: torch.Generator) -> MixtureModule:
        """An empty one, to be filled."""
        return MixtureModule([part.build(n, m, generator) for part in self.parts], n, m)


class MixtureModule(nn.Module):
    """Σ over parts of weight · part.

    The variance at a point is `gain` times what the parts say, each of itself and by their disagreement, plus `floor`:
    two numbers for each value and each slope, found on samples that the parts had not seen.

    Attributes:
        parts: Modules from (N, n) to (N, m).
        weights: (m, F), not negative, sums of one.
        gain: Column 0 for values, the others for slopes (m, 1 + n).
        floor: Likewise.
    """

    weights: Tensor
    gain: Tensor
    floor: Tensor

    def __init__(self, parts: list[nn.Module], n: int, m: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.register_buffer("weights", torch.full((m, len(parts)), 1.0 / len(parts), dtype=torch.float64))
        self.register_buffer("gain", torch.ones(m, 1 + n, dtype=torch.float64))
        self.register_buffer("floor", torch.zeros(m, 1 + n, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N, m) at inputs (N, n)."""
        return (torch.stack([part(x) for part in self.parts], -1) * self.weights).sum(-1)

    def value_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (N, m) and their Jacobian (N, m, n) at inputs (N, n), both differentiable."""
        y, slopes = zip(*(value_and_jacobian(part, x) for part in self.parts), strict=True)
        weights = self.weights.unsqueeze(1)
        return (torch.stack(y, -1) * self.weights).sum(-1), (torch.stack(slopes, -1) * weights).sum(-1)

    def standard_deviation(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Standard deviations of outputs (N, m) and Jacobians (N, m, n) at inputs (N, n)."""
        deviation = (self.gain * spread(*part_outputs(list(self.parts), x), self.weights) + self.floor).sqrt()
        return deviation[..., 0], deviation[..., 1:]


def part_outputs(parts: list[nn.Module], x: Tensor) -> tuple[Tensor, Tensor]:
    """What each part predicts, values then slopes (N, m, 1 + n, F), and how far it may be off, squared; zero without.

    A part may offer `disagreement(x)`, (N, m) and (N, m, n), right up to a factor, or `standard_deviation(x)`.
    """
    means, variances = [], []
    for part in parts:
        y, slopes = value_and_jacobian(part, x)
        means.append(torch.cat((y.unsqueeze(-1), slopes), -1))
        own = getattr(part, "disagreement", None) or getattr(part, "standard_deviation", None)
        if own is None:
            variances.append(torch.zeros_like(means[-1]))
        else:
            s, S = own(x)
            variances.append(torch.cat((s.unsqueeze(-1), S), -1).square())
    return torch.stack(means, -1), torch.stack(variances, -1)


def spread(means: Tensor, variances: Tensor, weights: Tensor) -> Tensor:
    """Variance (N, m, k) of a mixture of means and variances (N, m, k, F) with weights (m, F)."""
    shares = weights.unsqueeze(1)
    center = (means * shares).sum(-1, keepdim=True)
    return ((variances + (means - center).square()) * shares).sum(-1)
