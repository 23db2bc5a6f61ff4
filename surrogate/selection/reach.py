"""Points that span too little of the box, and standard deviations that grow with the distance from them."""

from __future__ import annotations

from dataclasses import dataclass
import math

import torch
from torch import Tensor, nn

from sobofem.surrogate.device import CPU
from sobofem.surrogate.files.registry import register
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.networks.base import Network, NetworkModule, value_and_jacobian

THIN_SPREAD = 0.3
"""Spread of points along a direction, over the least that as many random points would have, below which it is thin."""
FLAT_SPREAD = 0.01
"""Spread along a direction, the box's being one, below which it is thin anyhow."""
MIN_COVERAGE = 0.5
"""Share of a parameter's bounds below which points cover too little of it."""
MIN_COMPONENT = 0.35
"""Components of a direction that are named."""
FAR_DISTANCE, MAX_FAR_SHARE = 1.5, 0.1
"""Share of the box that may be farther from all points than this multiple of any point's distance to the next."""
MAX_POINTS = 1000
"""Most points that are looked at."""


@register
@dataclass(frozen=True)
class Widened:
    """A network whose standard deviations grow with the distance from the points that it was trained on.

    Attributes:
        network: What predicts.
        points: Number of the points.
    """

    network: Network
    points: int

    def build(self, n: int, m: int, generator: torch.Generator) -> WidenedModule:
        """An untrained module of the right shape."""
        return WidenedModule(self.network.build(n, m, generator), self.points, n, m)


class WidenedModule(NetworkModule):
    """A module that offers `standard_deviation`, which is widened where no training point is near.

    The points that it was calibrated by lie near others; farther away a response may change as fast as it does anywhere
    among them, so its variance grows by the square of `rate` times the distance beyond `reach`.

    Attributes:
        inner: What predicts.
        points: Scaled training points (P, n).
        reach: Distance to the nearest point up to which the calibration holds.
        rate: Change of values and of slopes by distance (m, 1 + n).
    """

    points: Tensor
    reach: Tensor
    rate: Tensor

    def __init__(self, inner: nn.Module, points: int, n: int, m: int) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("points", torch.zeros(points, n, dtype=torch.float64))
        self.register_buffer("reach", torch.zeros((), dtype=torch.float64))
        self.register_buffer("rate", torch.zeros(m, 1 + n, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N, m) at inputs (N, n)."""
        y: Tensor = self.inner(x)
        return y

    def value_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (N, m) and their Jacobian (N, m, n) at inputs (N, n), both differentiable."""
        return value_and_jacobian(self.inner, x)

    def standard_deviation(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Standard deviations of outputs (N, m) and Jacobians (N, m, n) at inputs (N, n)."""
        y, slopes = self.inner.standard_deviation(x)  # type: ignore[operator]
        beyond = (_distances(x, self.points) - self.reach).clamp(min=0.0)
        added = (beyond[:, None, None] * self.rate).square()
        return (y.square() + added[..., 0]).sqrt(), (slopes.square() + added[..., 1:]).sqrt()


def widened(network: Network, module: nn.Module, targets: Targets) -> tuple[Network, nn.Module]:
    """The same with standard deviations that grow where no point of the samples is near, if much of the box is so."""
    points = _some(targets.x)
    if not _sparse(points):
        return network, module
    with CPU:
        found = WidenedModule(module, len(points), points.shape[1], targets.y.shape[1])
    found.points.copy_(points)
    found.reach.copy_(_spacing(points).median())
    found.rate.copy_(_rates(targets))
    return Widened(network, len(points)), found.eval()


def narrow_points(x: Tensor, parameters: tuple[str, ...]) -> list[str]:
    """What of the box the scaled points x (N, n) leave out, in sentences; usually nothing."""
    points = _some(x)
    P, n = points.shape
    sentences = []
    if P <= n:
        sentences.append(f"{P} points can't span {n} parameters")
    covered = (points.amax(0) - points.amin(0)) / (2.0 * math.sqrt(3.0))
    if P > max(n, 7):
        sentences += [
            f"{name!r} covers {100 * share:.2g} % of its bounds"
            for name, share in zip(parameters, covered.tolist(), strict=True)
            if share < MIN_COVERAGE
        ]
    if P > n and not sentences:
        sentences += _thin_directions(points, parameters)
    if not sentences and _sparse(points):
        sentences.append("they lie in clusters, far from much of the box")
    return sentences


def _thin_directions(points: Tensor, parameters: tuple[str, ...]) -> list[str]:
    """Combinations of parameters along which points hardly differ."""
    P, n = points.shape
    _, sizes, directions = torch.linalg.svd((points - points.mean(0)) / math.sqrt(P), full_matrices=False)
    least = max(THIN_SPREAD * (1.0 - math.sqrt(n / (P - 1.0))), FLAT_SPREAD) if P > n + 1 else FLAT_SPREAD
    thin = directions[sizes < least]
    groups = []
    for direction in thin:
        names = [
            repr(name) for name, part in zip(parameters, direction.tolist(), strict=True) if abs(part) > MIN_COMPONENT
        ]
        if len(names) > 1:
            groups.append(" and ".join(names))
    together = "; ".join(list(dict.fromkeys(groups))[:3])
    return [f"they lie near a line or plane, where parameters vary together: {together}"] if groups else []


def _sparse(points: Tensor) -> bool:
    """Whether much of the box is farther from the points than they are from each other."""
    if len(points) < 2:
        return False
    edge, generator = math.sqrt(3.0), torch.Generator(CPU).manual_seed(0)
    anywhere = (
        2.0 * torch.rand(512, points.shape[1], generator=generator, dtype=points.dtype, device=CPU) - 1.0
    ) * edge
    far = _distances(anywhere, points) > FAR_DISTANCE * _spacing(points).max()
    return float(far.double().mean()) > MAX_FAR_SHARE


def _some(x: Tensor) -> Tensor:
    """Different points of x, not too many."""
    points = torch.unique(x.cpu(), dim=0)
    if len(points) <= MAX_POINTS:
        return points
    return points[torch.randperm(len(points), generator=torch.Generator(CPU).manual_seed(0), device=CPU)[:MAX_POINTS]]


def _spacing(points: Tensor) -> Tensor:
    """Distance of each point (P, n) to the next (P,)."""
    return torch.cdist(points, points).fill_diagonal_(torch.inf).min(1).values


def _distances(x: Tensor, points: Tensor) -> Tensor:
    """Distance of each of x (N, n) to the nearest point (N,)."""
    squares = x.square().sum(1)[:, None] + points.square().sum(1) - 2.0 * x @ points.T
    return squares.clamp(min=0.0).min(1).values.sqrt()


def _rates(targets: Targets) -> Tensor:
    """Greatest change of scaled values by distance among the samples, at least one; of slopes alike (m, 1 + n)."""
    n = targets.x.shape[1]
    if targets.jacobian is not None:
        of_values = targets.jacobian.square().sum(2).amax(0).sqrt()
    else:
        x, y = targets.x[:MAX_POINTS], targets.y[:MAX_POINTS]
        distance = torch.cdist(x, x)
        distance = torch.where(distance > 0.0, distance, torch.inf)
        near = distance.min(1)
        of_values = ((y - y[near.indices]) / near.values[:, None]).abs().amax(0)
    of_values = of_values.clamp(min=1.0)
    return of_values[:, None].expand(-1, 1 + n).cpu()
