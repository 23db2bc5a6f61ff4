"""Any family, on logarithms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
import math
from typing import Self

import torch
from torch import Tensor, nn

from sobofem.surrogate.device import CPU
from sobofem.surrogate.families.base import Family, Learned, Training, progress_of
from sobofem.surrogate.families.solved import Solved
from sobofem.surrogate.files.registry import register
from sobofem.surrogate.history import ProgressCallback
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.networks.base import Network, NetworkModule, as_network_module, value_and_jacobian
from sobofem.surrogate.samples.scaling import Scaling

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
        """An untrained module of the right shape."""
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


class LogarithmicModule(NetworkModule):
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
    def has_disagreement(self) -> bool:
        """Whether the inner module has."""
        return as_network_module(self.inner).has_disagreement

    def disagreement(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """That of the inner module, to first order: (N, m) and (N, m, n) at inputs (N, n)."""
        u, by_input = self.inputs.into(x)
        v, slopes = value_and_jacobian(self.inner, u)
        s, of_slopes = as_network_module(self.inner).disagreement(u)
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


@dataclass(frozen=True)
class Logarithmic(Family):
    """A family that learns logarithms of responses as functions of logarithms of inputs.

    Mechanics is full of products and powers: a displacement goes with load over stiffness, a frequency with its root,
    and among logarithms all that is linear (Box & Cox 1964 on such transformations). What is positive or negative all
    over the box, or on all samples, is taken the logarithm of; what changes sign is left as it is, and so are inputs
    that come nearer to zero than samples show.

    Attributes:
        family: What learns.
        scaling: Between physical units and those of the samples: `fit` sets it.
    """

    family: Family = Solved()  # noqa: RUF009  (frozen)
    scaling: Scaling | None = None

    def __post_init__(self) -> None:
        """Refuse logarithms of logarithms."""
        if self.family.uses_scaling:
            raise TypeError(f"{self.family.name} is given physical units by fit, and can't learn inside another family")

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.family.name} of logarithms"

    @property
    def rank(self) -> int:  # type: ignore[override]
        """That of the family."""
        return self.family.rank

    def with_scaling(self, scaling: Scaling) -> Logarithmic:
        """The same for samples scaled in this way."""
        return replace(self, scaling=scaling)

    def reason_to_skip(self, targets: Targets) -> str:
        """Where there is nothing to take the logarithm of."""
        inputs, outputs = self._axes(targets)
        if not (inputs.sign.any() or outputs.sign.any()):
            return "no input and no response keeps to one side of zero"
        return self.family.reason_to_skip(between(inputs, outputs, targets))

    def learn(self, targets: Targets, *, seed: int, progress: ProgressCallback, quick: bool = False) -> Learned:
        """Have the family learn the logarithms.

        Raises:
            ArithmeticError: If it fails.
        """
        axes = self._axes(targets)
        report = progress_of(progress, "logarithms")
        return _around(self.family.learn(between(*axes, targets), seed=seed, progress=report, quick=quick), axes)

    def begin(self, targets: Targets, *, seed: int) -> Training:
        """The family's training on the logarithms, of which all samples decide."""
        axes = self._axes(targets)
        return _Training(self.family.begin(between(*axes, targets), seed=seed), axes)

    def _axes(self, targets: Targets) -> tuple[Axes, Axes]:
        if self.scaling is None:
            raise ValueError("Logarithmic does not know where zero is: give it the scaling of the samples, as fit does")
        with torch.no_grad():
            return input_axes(self.scaling, targets.x), output_axes(self.scaling, targets.y)


class _Training(Training):
    """The training of what learns the logarithms."""

    def __init__(self, inner: Training, axes: tuple[Axes, Axes]) -> None:
        self._inner, self._axes = inner, axes
        self.learns_apart, self.learns_jointly = inner.learns_apart, inner.learns_jointly
        self.parts_are_free = inner.parts_are_free

    def parts(self, rows: Sequence[Tensor], responses: Sequence[int], progress: ProgressCallback) -> list[Learned]:
        """What it learns from each of several choices of samples."""
        return [
            _around(found, self._axes)
            for found in self._inner.parts(rows, responses, progress_of(progress, "logarithms"))
        ]

    def glance(
        self, rows: Sequence[Tensor], responses: Sequence[int], progress: ProgressCallback
    ) -> list[Learned] | None:
        """Likewise, roughly, if it can."""
        found = self._inner.glance(rows, responses, progress_of(progress, "logarithms"))
        return None if found is None else [_around(one, self._axes) for one in found]

    def prospects(self, count: int) -> Tensor | None:
        """Those of the inner training, to first order."""
        return self._inner.prospects(count)

    def finish(self, responses: Sequence[int], progress: ProgressCallback) -> Learned:
        """What it learns from all samples."""
        return _around(self._inner.finish(responses, progress_of(progress, "logarithms")), self._axes)


def _around(found: Learned, axes: tuple[Axes, Axes]) -> Learned:
    """What was learned of logarithms, between scaled inputs and responses."""
    inputs, outputs = axes
    module = LogarithmicModule.around(found.module, inputs.to("cpu"), outputs.to("cpu"))
    return replace(found, module=module.eval(), network=Logarithms(found.network), noise=None)
