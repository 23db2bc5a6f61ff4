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
        """Few inputs, or no slopes."""
        if targets.x.shape[1] < MANY_INPUTS:
            return f"{targets.x.shape[1]} inputs, fewer than {MANY_INPUTS}"
        if targets.jacobian is None or targets.directions is not None or not bool(_known(targets).any()):
            return "directions are found from slopes, of which there are none"
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
    slopes, known = _relative(targets)
    if bool(known.all()):
        _, s, V = torch.linalg.svd(slopes, full_matrices=False)
        rest = s.square().flip(0).cumsum(0).flip(0)  # of what is left out from each on
        k = int((rest > LEFT_OUT**2 * rest[0]).sum())
        return V[: max(1, min(k, MOST_DIRECTIONS))]
    return _among_gaps(slopes, known)


def suffice(targets: Targets) -> bool:
    """Whether the directions that one half of the samples finds leave out nothing of any response in the other half."""
    if targets.jacobian is None or len(targets) < 2:
        return False
    half, other = (targets.select(torch.arange(k, len(targets), 2, device=targets.x.device)) for k in (0, 1))
    if not bool(_known(half).any()):
        return False
    V, (slopes, known) = directions_of(half), _relative(other)
    # Coordinates found from the slopes that are there take as many numbers of what is left of these.
    free = known.sum(1, keepdim=True) - len(V)
    own = known * (free > 0)
    rest = own * (slopes - _coordinates(V, slopes, known)[0] @ V).square() * known.sum(1, keepdim=True) / free.clamp(1)
    sums, counts = (part.view(-1, targets.y.shape[1], len(V[0])).sum((0, 2)) for part in (rest, own))
    return bool((counts > 0).all()) and bool((sums <= NOTHING**2 * counts).all())


MOST_ROUNDS, SETTLED = 30, (0.05, 1e-6)
"""Rounds of filling gaps by so many directions and finding these again, until the rest changes by less than this share
of what may be left out; the second once there are enough of them."""
DETERMINED = 0.1
"""Square of the share of a direction, the least of all in the span of those found, that the slopes must see which are
there: else the coordinates of a sample's slopes are not known."""


def _among_gaps(slopes: Tensor, known: Tensor) -> Tensor:
    """Directions (k, n) that leave out as little of those slopes (R, n) which are known, 0 or 1.

    One direction more at a time, and gaps filled by those found (expectation maximization, Roweis 1998): filled by
    anything else, they would pretend to directions of their own.
    """
    size, filled, V = slopes.norm(), slopes, slopes[:0]

    def settle(k: int, change: float) -> tuple[Tensor, Tensor, float]:
        """The first k directions, slopes filled by them, and the share of what is known that they leave out."""
        into, before = filled, torch.inf
        for _ in range(MOST_ROUNDS):
            V = torch.linalg.eigh(into.T @ into)[1].flip(1)[:, :k].T
            fitted = _coordinates(V, slopes, known)[0] @ V
            into = torch.where(known > 0.0, slopes, fitted)
            rest = float((known * (slopes - fitted)).norm() / size)
            if before - rest < change * LEFT_OUT:
                break
            before = rest
        return V.contiguous(), into, rest

    for k in range(1, min(MOST_DIRECTIONS, *slopes.shape) + 1):
        V, filled, rest = settle(k, SETTLED[0])
        if rest <= LEFT_OUT:
            return settle(k, SETTLED[1])[0]
    return V


def _coordinates(V: Tensor, slopes: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Of slopes (R, n) along directions (k, n), from those known (R, k); and for which rows these tell them (R,)."""
    if bool(known.all()):
        return slopes @ V.T, torch.ones_like(slopes[:, 0])
    seen = torch.einsum("ri,ki,li->rkl", known, V, V)
    ridge = 1e-9 * torch.eye(len(V), dtype=V.dtype, device=V.device)
    found = torch.linalg.solve(seen + ridge, ((known * slopes) @ V.T).unsqueeze(2)).squeeze(2)
    return found, (torch.linalg.eigvalsh(seen)[:, 0] >= DETERMINED).to(slopes.dtype)


def _known(targets: Targets) -> Tensor:
    """Which slopes are there (N, m, n), 0 or 1."""
    assert targets.jacobian is not None
    if targets.presence is None:
        return torch.ones_like(targets.jacobian)
    return (targets.presence > 0.0).to(targets.jacobian.dtype)


def _relative(targets: Targets) -> tuple[Tensor, Tensor]:
    """Slopes over the root mean square of those of their response, a row for each response of each sample (N m, n).

    And which of them are there, 0 or 1.
    """
    assert targets.jacobian is not None
    known = _known(targets)
    squares = targets.jacobian.square().sum((0, 2)) / known.sum((0, 2)).clamp(min=1.0)
    sizes = squares.sqrt().clamp(min=torch.finfo(known.dtype).tiny).unsqueeze(1)
    return (targets.jacobian / sizes).flatten(0, 1), known.flatten(0, 1)


def _along(V: Tensor, targets: Targets) -> Targets:
    """Scaled samples as functions of their projections."""
    x, jacobian = targets.x @ V.T, targets.jacobian
    if jacobian is None or targets.presence is None:
        return Targets(x, targets.y, None if jacobian is None else jacobian @ V.T, believed=targets.believed)
    found, sure = _coordinates(V, jacobian.flatten(0, 1), _known(targets).flatten(0, 1))
    slopes = (found * sure.unsqueeze(1)).view(*targets.y.shape, len(V))
    known = sure.view_as(targets.y).unsqueeze(2).expand_as(slopes)
    presence = None if bool(known.all()) else known / known.mean(0).clamp(min=1.0 / len(x))
    return Targets(x, targets.y, slopes, presence=presence, believed=targets.believed)
