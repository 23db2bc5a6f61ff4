"""A module between logarithms: a linear one is a power law there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import math
from typing import Self

import torch
from torch import Tensor, nn

from surrogate.device import CPU
from surrogate.jacobian import value_and_jacobian
from surrogate.loss import Targets
from surrogate.registry import Network, register
from surrogate.scaling import Scaling

NEAR_ZERO = 1e-3
"""Inputs outside the box that come closer to zero than this share of its nearest bound are taken for that."""

SPREAD, REACHED = 10.0, 3.0
"""How many times the bound near zero the other may be, or else the nearest sample, for an input's logarithm."""

ROUND_OFF = 1e-9
"""Share of the far bound up to which the near one is zero."""


@register
@dataclass(frozen=True)
class Logarithms:
    """A network that sees logarithms of inputs, and gives logarithms of responses.

    Attributes:
        network: What lies between.
    """

    network: Network

    def build(self, n: int, m: int, generator: torch.Generator) -> LogarithmicModule:
        """An empty one, to be filled."""
        return LogarithmicModule(self.network.build(n, m, generator), n, m)


class Axes(nn.Module):
    """Maps scaled quantities to the logarithms of the physical ones, these scaled again, where zero is out of reach.

    A scaled quantity is t − origin, where t is the physical one over its scale. Where `sign` is 1 or −1 it becomes
    (log(sign · t) − center) / width, elsewhere it stays as it is.

    Args:
        k: How many there are.

    Attributes:
        sign: Which side of zero each lives on, 0 for both (k,).
        origin: Negative of the scaled place of zero (k,).
        center: Of the logarithms (k,).
        width: Of the logarithms (k,).
        least: Least distance from zero, over the scale: what comes closer is taken for that (k,).
    """

    sign: Tensor
    origin: Tensor
    center: Tensor
    width: Tensor
    least: Tensor

    def __init__(self, k: int) -> None:
        super().__init__()
        for name in ("sign", "origin", "center", "least"):
            self.register_buffer(name, torch.zeros(k, dtype=torch.float64, device=CPU))
        self.register_buffer("width", torch.ones(k, dtype=torch.float64, device=CPU))

    def into(self, scaled: Tensor) -> tuple[Tensor, Tensor]:
        """Mapped quantities (N, k), and their derivatives by the scaled ones (N, k)."""
        taken = self.sign != 0.0
        t = torch.where(taken, torch.maximum(self.sign * (scaled + self.origin), self.least), 1.0)
        mapped = torch.where(taken, (torch.log(t) - self.center) / self.width, scaled)
        return mapped, torch.where(taken, self.sign / (t * self.width), 1.0)

    def out(self, mapped: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled quantities (N, k), and their derivatives by the mapped ones (N, k)."""
        taken = self.sign != 0.0
        t = self.sign * torch.exp(torch.where(taken, mapped * self.width + self.center, 0.0))
        return torch.where(taken, t - self.origin, mapped), torch.where(taken, t * self.width, 1.0)


class LogarithmicModule(nn.Module):
    """A module between the logarithms of inputs and of outputs.

    Attributes:
        inner: Maps the inputs' logarithms (N, n) to those of the outputs (N, m), each scaled.
        inputs: From scaled inputs to logarithms.
        outputs: From logarithms to scaled outputs.
    """

    def __init__(self, inner: nn.Module, n: int, m: int) -> None:
        super().__init__()
        self.inner, self.inputs, self.outputs = inner, Axes(n), Axes(m)

    @classmethod
    def around(cls, inner: nn.Module, inputs: Axes, outputs: Axes) -> Self:
        """One with these axes."""
        module = cls(inner, len(inputs.sign), len(outputs.sign))
        module.inputs, module.outputs = inputs, outputs
        return module

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N, m) at inputs (N, n)."""
        return self.outputs.out(self.inner(self.inputs.into(x)[0]))[0]

    def value_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (N, m) and their Jacobian (N, m, n) at inputs (N, n), both differentiable."""
        u, by_input = self.inputs.into(x)
        v, slopes = value_and_jacobian(self.inner, u)
        y, by_output = self.outputs.out(v)
        return y, by_output.unsqueeze(2) * slopes * by_input.unsqueeze(1)

    @property
    def disagreement(self) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """How far values and slopes may be off: what the inner module says, to first order. If it says anything."""
        own = getattr(self.inner, "disagreement", None) or self.inner.standard_deviation
        return lambda x: self._spread(own, x)  # type: ignore[arg-type]

    def _spread(self, own: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor) -> tuple[Tensor, Tensor]:
        u, by_input = self.inputs.into(x)
        v, slopes = value_and_jacobian(self.inner, u)
        s, of_slopes = own(u)
        factor = self.outputs.out(v)[1].abs().unsqueeze(2)
        bent = torch.where(self.outputs.sign != 0.0, self.outputs.width * s, 0.0).unsqueeze(2)
        spread = (of_slopes.square() + (bent * slopes).square()).sqrt()
        return factor.squeeze(2) * s, factor * spread * by_input.abs().unsqueeze(1)


def input_axes(scaling: Scaling, x: Tensor) -> Axes:
    """Logarithms of those inputs whose box does not touch zero, nor comes so near that samples don't show what happens.

    Its bounds differ at most tenfold, or the scaled samples x (N, n) go down to three times the one near zero.
    """
    axes, edge = Axes(x.shape[1]), math.sqrt(3.0)  # half the box, in units of its standard deviation
    axes.origin.copy_(torch.from_numpy(scaling.x_center / scaling.x_scale))
    low, high = axes.origin - edge, axes.origin + edge
    near, far = torch.minimum(low.abs(), high.abs()), torch.maximum(low.abs(), high.abs())
    reached = (x.cpu() + axes.origin).abs().amin(0)
    known = (near > ROUND_OFF * far) & ((far <= SPREAD * near) | (reached <= REACHED * near))
    axes.sign.copy_(torch.where(known, (low > 0.0).double() - (high < 0.0).double(), 0.0))
    taken = axes.sign != 0.0
    logs = torch.log(torch.where(taken, torch.stack((near, far)), 1.0))
    axes.least.copy_(torch.where(taken, NEAR_ZERO * near, 0.0))
    axes.center.copy_(logs.mean(0))
    axes.width.copy_(torch.where(taken, (logs[1] - logs[0]) / (2.0 * edge), 1.0))
    return axes


def output_axes(scaling: Scaling, y: Tensor) -> Axes:
    """Logarithms of those responses whose scaled labels y (N, m) all lie on one side of zero, and differ."""
    axes = Axes(y.shape[1])
    axes.origin.copy_(torch.from_numpy(scaling.y_center / scaling.y_scale))
    physical = y.cpu() + axes.origin
    sign = (physical > 0.0).all(0).double() - (physical < 0.0).all(0).double()
    logs = torch.log(torch.where(sign != 0.0, sign * physical, 1.0))
    width = logs.std(0, correction=0)
    axes.sign.copy_(torch.where(width > 1e-12, sign, 0.0))
    taken = axes.sign != 0.0
    axes.center.copy_(torch.where(taken, logs.mean(0), 0.0))
    axes.width.copy_(torch.where(taken, width, 1.0))
    return axes


def between(inputs: Axes, outputs: Axes, targets: Targets) -> Targets:
    """Scaled samples as a module between these axes is to learn them; without products of Hessians."""
    inputs, outputs = inputs.to(targets.x.device), outputs.to(targets.x.device)
    (u, by_input), (v, by_output) = inputs.into(targets.x), outputs.into(targets.y)
    slopes, presence, believed = targets.jacobian, targets.presence, targets.believed
    if slopes is not None:
        slopes = by_output.unsqueeze(2) * slopes / by_input.unsqueeze(1)
    presence = None if presence is None else presence[..., : u.shape[1]]
    if believed is not None:
        v = v * believed
        if slopes is not None:  # the slope of a logarithm needs the value
            known = believed.unsqueeze(2).expand_as(slopes)
            slopes, presence = slopes * known, known if presence is None else presence * known
    return Targets(u, v, slopes, presence=presence, believed=believed)
