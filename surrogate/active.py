"""Where to sample next: among candidates, the doubtful ones that lie apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor, nn

from surrogate.jacobian import value_and_jacobian
from surrogate.loss import Targets
from surrogate.weighting import PerChannel, ValuesOnly

Array = NDArray[np.float64]
Acquisition = Literal["disagreement", "gradient residual"]


class Yardstick(NamedTuple):
    """What squared errors of values and slopes are measured by, both (m, 1 + n): weights, and targets' mean squares."""

    weights: Tensor
    mean_squares: Tensor

    @classmethod
    def of(cls, targets: Targets) -> Yardstick:
        """Every term on its own scale; slopes don't count where there are none."""
        weighting = ValuesOnly() if targets.jacobian is None else PerChannel()
        return cls(weighting.start(targets).values, targets.mean_squares())

    def relative(self, values: Tensor, slopes: Tensor) -> Array:
        """Root of weighted squares of values (N, m) and slopes (N, m, n), over those of the targets: (N,)."""
        squares = torch.cat((values.unsqueeze(2), slopes), dim=2)
        size = (self.weights * self.mean_squares).sum()
        relative: Array = ((self.weights * squares).sum(dim=(1, 2)) / size).sqrt().cpu().numpy()
        return relative


def disagreement(members: Sequence[nn.Module], x: Tensor, yardstick: Yardstick) -> Array:
    """Standard deviation (N,) over two or more networks at scaled points x (N, n)."""
    with torch.no_grad():
        y, dy = zip(*(value_and_jacobian(member, x) for member in members), strict=True)
        return yardstick.relative(torch.stack(y).var(dim=0), torch.stack(dy).var(dim=0))


def gradient_residual(module: nn.Module, x: Tensor, known: Targets, yardstick: Yardstick) -> Array:
    """Misfit (N,) of a network's Jacobian at the known sample that is nearest to each scaled point x (N, n)."""
    with torch.no_grad():
        y, dy = value_and_jacobian(module, known.x)
        misfit = yardstick.relative(torch.zeros_like(y), (dy - known.jacobian).square())  # type: ignore[operator]
    return misfit[nearest(x.cpu().numpy(), known.x.cpu().numpy())[0]]


def nearest(points: Array, others: Array) -> tuple[NDArray[np.intp], Array]:
    """Index (N,) of the nearest of the others (M, n) to each point (N, n), and its distance (N,); M > 0."""
    index, distance = np.zeros(len(points), dtype=np.intp), np.full(len(points), np.inf)
    for k, other in enumerate(others):
        there = np.linalg.norm(points - other, axis=1)
        index, distance = np.where(there < distance, k, index), np.minimum(there, distance)
    return index, distance


def spread(candidates: Array, scores: Array, count: int, taken: Array) -> NDArray[np.intp]:
    """The most wanted candidates, each chosen for its score times its distance to all that are taken by then.

    Args:
        candidates: Points (N, n), in coordinates where distances compare.
        scores: How wanted each is (N,), not negative.
        count: How many to choose, at most N.
        taken: Points (M, n) that are sampled already or will be.

    Returns:
        Indexes (count,) of different candidates, in the order of choice.

    Raises:
        ValueError: If scores don't fit the candidates, one is negative or not finite, or there are too few candidates.
    """
    if scores.shape != (len(candidates),) or not (np.isfinite(scores) & (scores >= 0.0)).all():
        raise ValueError(f"scores have shape {scores.shape}, expected {(len(candidates),)}, none negative or NaN")
    if not 0 <= count <= len(candidates):
        raise ValueError(f"count is {count}; expected from 0 to the number of candidates, {len(candidates)}")
    distance = nearest(candidates, taken)[1] if len(taken) else np.ones(len(candidates))
    chosen: list[int] = []
    for _ in range(count):
        wanted = scores * distance
        wanted[chosen] = -1.0
        chosen.append(int(np.argmax(wanted)))
        distance = np.minimum(distance, np.linalg.norm(candidates - candidates[chosen[-1]], axis=1))
    return np.array(chosen, dtype=np.intp)
