"""Load paths: the sequence of load factors that a structure passes through, from none on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
import itertools

import dolfinx
import numpy as np

from fem.errors import NotConverged


@dataclass(frozen=True, eq=False)
class LoadPath:
    """Load factors, passed in order, starting from 0 in the undeformed state.

    At each point all prescribed boundary values are scaled by the load factor, and `factor`, a constant for use in
    forms, takes its value. Between two points the solver takes further steps where it has to.

    Args:
        points: Load factors; equal neighbours are allowed, as are negative ones.
        factor: A scalar `dolfinx.fem.Constant` that stands for the load factor in loads.
        stored_steps: Steps whose states are kept in memory for an adjoint sweep; of more steps, every second, fourth,
            ... is kept, and those between are solved again.
    """

    points: Sequence[float] = (1.0,)
    factor: dolfinx.fem.Constant | None = None
    stored_steps: int = 1000

    def __post_init__(self) -> None:
        values = np.asarray(self.points, dtype=np.float64)
        if values.ndim != 1 or not values.size or not np.isfinite(values).all():
            raise ValueError(f"points of a load path are {self.points!r}; expected finite numbers, at least one")
        if self.factor is not None and (
            not isinstance(self.factor, dolfinx.fem.Constant) or self.factor.ufl_shape != ()
        ):
            raise TypeError("factor of a load path must be a scalar dolfinx.fem.Constant")
        if self.stored_steps < 2:
            raise ValueError(f"stored_steps is {self.stored_steps}, expected at least 2")
        object.__setattr__(self, "points", tuple(values.tolist()))

    @classmethod
    def monotonic(cls, steps: int, *, end: float = 1.0, factor: dolfinx.fem.Constant | None = None) -> LoadPath:
        """From 0 to `end` in equal steps."""
        return cls.cyclic([end], steps, factor=factor)

    @classmethod
    def cyclic(cls, reversals: Sequence[float], steps: int, *, factor: dolfinx.fem.Constant | None = None) -> LoadPath:
        """From 0 to the first reversal, on to the second, and so on, in `steps` equal steps each.

        `LoadPath.cyclic([1.0, -1.0, 0.0], 10)` loads, reverses and unloads.
        """
        if steps < 1:
            raise ValueError(f"steps is {steps}, expected at least 1")
        ends = [0.0, *reversals]
        legs = [np.linspace(a, b, steps + 1)[1:] for a, b in itertools.pairwise(ends)]
        return cls(np.concatenate([*legs, np.zeros(0)]).tolist(), factor)


def march(attempt: Callable[[float], object], *, smallest: float, first: float = 1.0) -> Iterator[float]:
    """Pass from 0 to 1 in as few steps as succeed: a step that fails is halved, one that succeeds doubled.

    Args:
        attempt: Goes on from where the last success ended; raises `NotConverged` and leaves things as they were there.
        smallest: Step at which to give up.
        first: Step to try first.

    Yields:
        Each place reached; the last is 1.

    Raises:
        NotConverged: With the place reached as its load factor, in this interval.
    """
    reached, step = 0.0, first
    while reached < 1.0:
        goal = 1.0 if reached + step > 1.0 - 0.5 * smallest else reached + step
        try:
            attempt(goal)
        except NotConverged as failure:
            step = 0.5 * (goal - reached)
            if step < smallest:
                raise NotConverged(str(failure), reason=failure.reason, load_factor=reached) from failure
            continue
        reached, step = goal, 2.0 * step
        yield reached
