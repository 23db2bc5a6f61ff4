"""What a training would like to be told next."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from surrogate import active
from surrogate.active import Acquisition
from surrogate.device import neutral
from surrogate.reservoir import Reservoir
from surrogate.samples import as_points
from surrogate.team import Team

Array = NDArray[np.float64]


class Curious:
    """The questions that an `OnlineTraining` answers about points that were not computed yet.

    Attributes:
        parameters: Names of the n inputs.
        bounds: The box that the inputs live in, (n, 2).
        reservoir: The samples held.
    """

    parameters: tuple[str, ...]
    bounds: Array
    reservoir: Reservoir
    _team: Team

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
        return active.disagreement([member.module for member in self._team.members], points, self._team.yardstick)

    @neutral()
    def gradient_residual(self, x: ArrayLike) -> Array:
        """Misfit of the first member's Jacobian at the known sample that is nearest to points x (N, n): (N,).

        It is relative, as the loss is.

        Raises:
            ValueError: If no Jacobians are held, before the first step, or if x is no point in the bounds.
        """
        points, held = self._team.points(x), self._team.targets(self.reservoir.held())
        if held.jacobian is None:
            raise ValueError(f"{self._team.settings.weighting} uses no Jacobians, so that none are held")
        return active.gradient_residual(self._team.members[0].module, points, held, self._team.yardstick)

    @neutral()
    def choose(
        self, candidates: ArrayLike, count: int, *, by: Acquisition = "disagreement", pending: ArrayLike | None = None
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
        out = np.zeros((0, len(self.parameters))) if pending is None else as_points(pending, self.parameters)
        taken = np.concatenate((self.reservoir.held()["x"].numpy(), out))
        return active.spread(self._unit(candidates), scores[by](candidates), count, self._unit(taken))

    def _unit(self, x: ArrayLike) -> Array:
        low, high = self.bounds.T
        return (as_points(x, self.parameters) - low) / (high - low)
