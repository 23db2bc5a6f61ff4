"""A bar of a metal whose hardening and viscosity are convex potentials, strained along a path: stresses and slopes.

One load step of `LearnedPlasticity` under uniaxial stress, in PyTorch, for many paths at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sobofem.surrogate.networks.base import as_network_module, value_and_jacobian
from sobofem.surrogate.networks.layers import gradient

MAX_ITERATIONS = 60
"""Of Newton's method for a step, which halves the interval where it would leave it."""
RTOL = 1e-14
"""Change of a growth, as a part of the largest that could be, at which it is found."""


@dataclass(frozen=True, eq=False)
class Slope:
    """s(x) = N'(x) − N'(0) of a network N, in physical units: increasing from zero on if N is convex.

    Attributes:
        module: N, from a scaled input to a scaled output.
        width: What inputs are scaled by.
        size: What outputs are scaled by.
        center: Input that is zero when scaled.
    """

    module: nn.Module
    width: float
    size: float
    center: float = 0.0

    def __call__(self, x: Tensor) -> Tensor:
        """Values s at x (N,), differentiable by x and by the weights."""
        slopes = value_and_jacobian(self.module, self._inputs(x))[1][:, 0, 0]
        return (slopes[1:] - slopes[0]) * (self.size / self.width)

    def derivative(self, x: Tensor) -> Tensor:
        """Derivatives s' at x (N,), differentiable as well."""
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            return gradient(self(x), x)

    def without_graph(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both as numbers alone, in a third of the time."""
        _, first, second = as_network_module(self.module).derivatives(self._inputs(x), 2)
        found = first[1:, 0, 0] - first[0, 0, 0]
        return found * (self.size / self.width), second[1:, 0, 0, 0] * (self.size / self.width**2)

    def _inputs(self, x: Tensor) -> Tensor:
        """Zero, and x, scaled (1 + N, 1)."""
        return (torch.cat([torch.zeros_like(x[:1]), x]).unsqueeze(1) - self.center) / self.width


class Course(NamedTuple):
    """What becomes of bars along their paths.

    Attributes:
        stress: (N, T).
        plastic: Plastic strain (N, T).
        accumulated: Equivalent plastic strain (N, T).
        slopes: Derivatives of the stress (N, T, n) along directions of the path, if any are given.
    """

    stress: Tensor
    plastic: Tensor
    accumulated: Tensor
    slopes: Tensor | None


@dataclass(frozen=True, eq=False)
class Bar:
    """The material of a bar.

    Attributes:
        young: Young's modulus.
        kinematic: Modulus of linear kinematic hardening.
        yield_stress: Stress at which it yields first.
        hardening: What the yield stress grows by with the equivalent plastic strain.
        overstress: What its rate takes beyond that; None where it takes nothing.
    """

    young: Tensor
    kinematic: Tensor
    yield_stress: Tensor
    hardening: Slope
    overstress: Slope | None

    def follow(self, strains: Tensor, times: Tensor, directions: Tensor | None = None) -> Course:
        """Strain bars, which are at rest at first.

        The derivatives of a step are those of the implicit function theorem, by strains as by weights, and so pass
        through the history.

        Args:
            strains: At each point of a path (N, T).
            times: That each step takes (T,).
            directions: How strains change (N, T, n).
        """
        plastic = accumulated = torch.zeros_like(strains[:, 0])
        n = 0 if directions is None else directions.shape[2]
        by_plastic = by_accumulated = strains.new_zeros(len(strains), n)
        steps, slopes = [], []
        for k, time in enumerate(times):
            trial = self.young * (strains[:, k] - plastic) - self.kinematic * plastic
            sign = trial.detach().sign()
            growth = self._growth(trial.abs(), accumulated, time)
            if directions is not None:
                changes = self.young * (directions[:, k] - by_plastic) - self.kinematic * by_plastic
                by_growth = self._by_growth(growth, sign[:, None] * changes, accumulated, by_accumulated, time)
                by_plastic, by_accumulated = by_plastic + sign[:, None] * by_growth, by_accumulated + by_growth
                slopes.append(self.young * (directions[:, k] - by_plastic))
            plastic, accumulated = plastic + sign * growth, accumulated + growth
            steps.append(torch.stack([self.young * (strains[:, k] - plastic), plastic, accumulated]))
        stress, plastic, accumulated = torch.stack(steps, 2)
        return Course(stress, plastic, accumulated, torch.stack(slopes, 1) if slopes else None)

    def _growth(self, size: Tensor, accumulated: Tensor, time: Tensor) -> Tensor:
        """Growth γ ≥ 0 of the equivalent plastic strain where |trial stress| is `size`, (N,).

        It is the root of an equation F(γ) = 0; a last step from there has the root's derivative by everything in F.
        """
        with torch.no_grad():
            root, slope = self._root(size, accumulated, time)
        step = self._excess(root, size, accumulated, time) / slope
        return torch.where(root > 0.0, (root + step).clamp(min=0.0), 0.0)  # of a root near zero, rounding may be more

    def _root(self, size: Tensor, accumulated: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """γ, zero below yield, and −F' there."""
        growth, low, high = (torch.zeros_like(size) for _ in range(3))
        high = size / (self.young + self.kinematic)  # without hardening and yield stress
        for _ in range(MAX_ITERATIONS):
            hardening, stiffness = self.hardening.without_graph(accumulated + growth)
            left = size - (self.young + self.kinematic) * growth - self.yield_stress - hardening
            slope = self.young + self.kinematic + stiffness
            if self.overstress is not None:
                overstress, viscosity = self.overstress.without_graph(growth / time)
                left, slope = left - overstress, slope + viscosity / time
            low, high = torch.where(left > 0.0, growth, low), torch.where(left > 0.0, high, growth)
            new = growth + left / slope
            new = torch.where((new >= low) & (new <= high), new, (low + high) / 2)
            done = bool(((new - growth).abs() <= RTOL * size / self.young).all())
            growth = new
            if done:
                break
        return growth, slope

    def _excess(self, growth: Tensor, size: Tensor, accumulated: Tensor, time: Tensor) -> Tensor:
        """F(γ): what the stress is beyond yield, differentiable."""
        left = size - (self.young + self.kinematic) * growth - self.yield_stress
        left = left - self.hardening(accumulated + growth)
        return left if self.overstress is None else left - self.overstress(growth / time)

    def _by_growth(
        self, growth: Tensor, changes: Tensor, accumulated: Tensor, by_accumulated: Tensor, time: Tensor
    ) -> Tensor:
        """Changes (N, n) of the growth, from those of |trial stress| and of the equivalent plastic strain before."""
        stiffness = self.hardening.derivative(accumulated + growth)
        slope = self.young + self.kinematic + stiffness
        if self.overstress is not None:
            slope = slope + self.overstress.derivative(growth / time) / time
        found = (changes - stiffness[:, None] * by_accumulated) / slope[:, None]
        return torch.where(growth[:, None] > 0.0, found, 0.0)
