"""Any family, on the few directions of many inputs along which responses change."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from sobofem.surrogate.device import CPU
from sobofem.surrogate.families.base import Family, Learned, progress_of
from sobofem.surrogate.families.solved import Solved
from sobofem.surrogate.files.registry import register
from sobofem.surrogate.history import ProgressCallback
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.networks.base import Network, NetworkModule, as_network_module, value_and_jacobian

MANY_INPUTS = 20
"""Inputs from which on fewer directions are looked for."""
LEFT_OUT = 1e-2
"""Root mean square of the slopes along all other directions, as a share of all."""
NOTHING = 1e-4
"""Such a share on samples not seen up to which nothing is lost without the other directions."""
MOST_DIRECTIONS = 24
"""More than what families learn well from some hundred samples."""


@register
@dataclass(frozen=True)
class Projections:
    """A network that sees projections of the inputs.

    Attributes:
        network: What sees them.
        directions: How many there are.
    """

    network: Network
    directions: int

    def build(self, n: int, m: int, generator: torch.Generator) -> ProjectedModule:
        """An untrained module of the right shape."""
        return ProjectedModule(self.network.build(self.directions, m, generator), self.directions, n)


class ProjectedModule(NetworkModule):
    """A module of k projections of n inputs.

    Attributes:
        inner: Maps projections (N, k) to outputs (N, m).
        directions: Rows that are orthonormal (k, n).
    """

    directions: Tensor

    def __init__(self, inner: nn.Module, k: int, n: int) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("directions", torch.zeros(k, n, dtype=torch.float64, device=CPU))

    @classmethod
    def around(cls, inner: nn.Module, directions: Tensor) -> Self:
        """One with these directions (k, n)."""
        module = cls(inner, *directions.shape)
        module.directions.copy_(directions)
        return module

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N, m) at inputs (N, n)."""
        found: Tensor = self.inner(x @ self.directions.T)
        return found

    def value_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (N, m) and their Jacobian (N, m, n) at inputs (N, n), both differentiable."""
        y, slopes = value_and_jacobian(self.inner, x @ self.directions.T)
        return y, slopes @ self.directions

    @property
    def has_disagreement(self) -> bool:
        """Whether the inner module has."""
        return as_network_module(self.inner).has_disagreement

    def disagreement(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """That of the inner module: (N, m) and, its slopes being taken for independent, (N, m, n) at inputs (N, n)."""
        s, of_slopes = as_network_module(self.inner).disagreement(x @ self.directions.T)
        return s, (of_slopes.square() @ self.directions.square()).sqrt()


@dataclass(frozen=True)
class Projected(Family):
    """A family that learns responses as functions of a few projections of many inputs (an active subspace).

    These are the directions along which the responses change most, by their slopes (Constantine 2015; of several
    responses Zahm et al. 2020, each divided by the size of its slopes, so that a steep one hides no other). Parts of
    the samples find directions of their own, so that what is held out judges them, too.

    Attributes:
        family: What learns.
    """

    family: Family = Solved()  # noqa: RUF009  (frozen)
    rank = 0

    def __post_init__(self) -> None:
        """Refuse families that must know physical units, which projections have none of."""
        if self.family.uses_scaling:
            raise TypeError(f"{self.family.name} is given physical units by fit, and can't learn inside another family")

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.family.name} of projections"

    def reason_to_skip(self, targets: Targets) -> str:
        """Few inputs, or slopes that are missing."""
        if targets.x.shape[1] < MANY_INPUTS:
            return f"{targets.x.shape[1]} inputs, fewer than {MANY_INPUTS}"
        if targets.jacobian is None or targets.presence is not None or targets.directions is not None:
            return "directions are found from slopes, of which none may be missing"
        return self.family.reason_to_skip(_along(directions_of(targets), targets))

    def learn(self, targets: Targets, *, seed: int, progress: ProgressCallback, quick: bool = False) -> Learned:
        """Have the family learn the projections.

        Raises:
            ArithmeticError: If it fails.
        """
        V = directions_of(targets)

        report = progress_of(progress, "projections")
        found = self.family.learn(_along(V, targets), seed=seed, progress=report, quick=quick)
        module = ProjectedModule.around(found.module, V.cpu())
        weights = torch.cat((found.weights[:, :1], found.weights[:, 1:] @ V.square().cpu()), 1)
        network = Projections(found.network, len(V))
        return replace(found, module=module.eval(), network=network, weights=weights, noise=None)


def directions_of(targets: Targets) -> Tensor:
    """Orthonormal directions (k, n) of the inputs along which scaled responses change, those of large slopes first."""
    assert targets.jacobian is not None
    _, s, V = torch.linalg.svd((targets.jacobian / _sizes(targets.jacobian)).flatten(0, 1), full_matrices=False)
    rest = s.square().flip(0).cumsum(0).flip(0)  # of what is left out from each on
    k = int((rest > LEFT_OUT**2 * rest[0]).sum())
    return V[: max(1, min(k, MOST_DIRECTIONS))]


def suffice(targets: Targets) -> bool:
    """Whether the directions that one half of the samples finds leave out nothing of any response in the other half."""
    if targets.jacobian is None or len(targets) < 2:
        return False
    half, other = (targets.select(torch.arange(k, len(targets), 2, device=targets.x.device)) for k in (0, 1))
    assert other.jacobian is not None
    V = directions_of(half)
    rest = (other.jacobian - other.jacobian @ V.T @ V) / _sizes(targets.jacobian)
    return bool((rest.square().mean((0, 2)).sqrt() <= NOTHING).all())


def _sizes(jacobian: Tensor) -> Tensor:
    """Root mean square (m, 1) of the slopes (N, m, n) of each response."""
    return jacobian.square().mean((0, 2)).sqrt().clamp(min=torch.finfo(jacobian.dtype).tiny).unsqueeze(1)


def _along(V: Tensor, targets: Targets) -> Targets:
    """Scaled samples as functions of their projections."""
    slopes = None if targets.jacobian is None else targets.jacobian @ V.T
    return Targets(targets.x @ V.T, targets.y, slopes, believed=targets.believed)
