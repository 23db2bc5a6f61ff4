"""Which samples to compute next: among candidates, the doubtful ones that lie apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
import torch
from torch import Tensor, nn

from sobofem.surrogate.device import neutral
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.networks.base import value_and_jacobian
from sobofem.surrogate.online.reservoir import Reservoir
from sobofem.surrogate.online.team import Team, Yardstick
from sobofem.surrogate.samples import as_points
from sobofem.surrogate.samples.arrays import Array

Criterion = Literal["disagreement", "gradient residual"]
"""What candidates are chosen by."""


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


class Acquisition:
    """Chooses which samples to compute next, by the networks of an online training and the samples that it holds.

    Args:
        team: The networks.
        reservoir: The samples.
    """

    def __init__(self, team: Team, reservoir: Reservoir) -> None:
        self._team, self._reservoir = team, reservoir

    @neutral()
    def disagreement(self, x: ArrayLike) -> Array:
        """Standard deviation over the members at points x (N, n): (N,), scaled, values and slopes together.

        It is relative, as the loss is: 1 means that the members differ as much as the responses vary.

        Raises:
            ValueError: If there is one member only, before the first step, or if x is no point in the bounds.
        """
        if len(self._team.members) < 2:
            raise ValueError("one member can't disagree; set members=2 or more")
        points = self._team.points(x)
        return disagreement([member.module for member in self._team.members], points, self._team.yardstick)

    @neutral()
    def gradient_residual(self, x: ArrayLike) -> Array:
        """Misfit of the first member's Jacobian at the known sample that is nearest to points x (N, n): (N,).

        It is relative, as the loss is.

        Raises:
            ValueError: If no Jacobians are held, before the first step, or if x is no point in the bounds.
        """
        points, held = self._team.points(x), self._team.targets(self._reservoir.held())
        if held.jacobian is None:
            raise ValueError(f"{self._team.settings.weighting} uses no Jacobians, so that none are held")
        return gradient_residual(self._team.members[0].module, points, held, self._team.yardstick)

    @neutral()
    def choose(
        self, candidates: ArrayLike, count: int, *, by: Criterion = "disagreement", pending: ArrayLike | None = None
    ) -> NDArray[np.intp]:
        """Which candidates to compute next: where the network is doubtful, and apart from each other.

        Each is chosen for its score times its distance, in the unit box, to the nearest sample held, pending or
        chosen before it.

        Args:
            candidates: Points (N, n) in physical units.
            count: How many, at most N.
            by: `disagreement` of the members, or `gradient residual`.
            pending: Points (M, n) handed out already whose samples have not come.

        Returns:
            Indexes (count,) into the candidates, the most wanted first.

        Raises:
            ValueError: As `disagreement` or `gradient_residual` do, or if there are too few candidates.
        """
        scores = {"disagreement": self.disagreement, "gradient residual": self.gradient_residual}
        if by not in scores:
            raise ValueError(f"by is {by!r}; expected one of {', '.join(map(repr, scores))}")
        out = (
            np.zeros((0, len(self._team.parameters))) if pending is None else as_points(pending, self._team.parameters)
        )
        taken = np.concatenate((self._reservoir.held()["x"].numpy(), out))
        return spread(self._unit(candidates), scores[by](candidates), count, self._unit(taken))

    def _unit(self, x: ArrayLike) -> Array:
        low, high = self._team.bounds.T
        return (as_points(x, self._team.parameters) - low) / (high - low)
