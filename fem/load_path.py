"""Load paths: the sequence of load factors, and of times, that a structure passes through."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
import itertools
from typing import Any

import dolfinx
import numpy as np
import ufl

from sobofem.fem.errors import NotConverged


class Held(dolfinx.fem.DirichletBC):
    """A boundary condition whose values do not follow the load factor; made by `held`."""


def held(bc: dolfinx.fem.DirichletBC) -> Held:
    """The same boundary condition with its full values all along the load path, such as a wall's temperature.

    Others prescribe their values times the load factor.

    Args:
        bc: What `dolfinx.fem.dirichletbc` returns; the held one takes its place in `bcs`. Its value may be a `Constant`
            that is a `Scalar` parameter, or the load path's `time`.
    """
    if not isinstance(bc, dolfinx.fem.DirichletBC):
        raise TypeError(f"held takes a boundary condition made by dolfinx.fem.dirichletbc, not {type(bc).__name__}")
    return Held(bc._cpp_object)


@dataclass(frozen=True)
class Step:
    """A load step that was taken.

    Attributes:
        factor: The load factor at its end.
        point: Number of the load path's point that it ends at; None for a step that a cutback put in between.
        time: The time at its end; None on a path without times.
        size: By how much the time advances; None on a path without times.
        initial: Part of the unknown's first values that is left in prescribed values at its end: they go from there to
            what is prescribed at the first point, in as many steps as that takes.
    """

    factor: float
    point: int | None
    time: float | None = None
    size: float | None = None
    initial: float = 0.0


@dataclass(frozen=True, eq=False)
class LoadPath:
    """Load factors, passed in order, and the time at each where the form knows of time.

    At each point prescribed boundary values are scaled by the load factor, unless they are `held`, and the constants
    named here take their values for use in forms. Between two points the solver takes further steps where it has to:
    load factor and time lie in between then, and the step of time is the shorter.

    Args:
        points: Load factors; equal neighbours are allowed, as are negative ones. With times, a single one stands for
            all of them, from the start on.
        factor: A scalar `dolfinx.fem.Constant` that stands for the load factor in loads.
        stored_steps: Steps whose states are kept in memory for an adjoint sweep; of more steps, every second, fourth,
            ... is kept, and those between are solved again.
        times: Time at each point, increasing from 0 at the start.
        time: A scalar `Constant` that stands for the time at the end of the present step.
        step: A scalar `Constant` that stands for the size of the present step of time.
        start: Load factor at the start, by default 0 but for a single one that stands for all times.
    """

    points: Sequence[float] = (1.0,)
    factor: dolfinx.fem.Constant | None = None
    stored_steps: int = 1000
    times: Sequence[float] | None = None
    time: dolfinx.fem.Constant | None = None
    step: dolfinx.fem.Constant | None = None
    start: float | None = None

    def __post_init__(self) -> None:
        values = _numbers(self.points, "points")
        for name, constant in self.constants.items():
            if not isinstance(constant, dolfinx.fem.Constant) or constant.ufl_shape != ():
                raise TypeError(f"{name} of a load path must be a scalar dolfinx.fem.Constant")
        if self.stored_steps < 2:
            raise ValueError(f"stored_steps is {self.stored_steps}, expected at least 2")
        throughout = self.times is not None and len(values) == 1
        if self.times is not None:
            times = _numbers(self.times, "times")
            values = np.full(len(times), values[0]) if throughout else values
            _check_times(times, len(values))
            object.__setattr__(self, "times", tuple(times.tolist()))
        self._check_clock()
        start = (values[0] if throughout else 0.0) if self.start is None else self.start
        if not np.isfinite(start):
            raise ValueError(f"start of a load path is {self.start!r}, expected a finite load factor")
        object.__setattr__(self, "start", float(start))
        object.__setattr__(self, "points", tuple(values.tolist()))

    def _check_clock(self) -> None:
        """Refuse times that no constant takes, constants without times, and one constant for two things."""
        if self.times is None and (self.time is not None or self.step is not None):
            raise ValueError("a load path with time or step needs times=[...]: the time at each of its points")
        if self.times is not None and self.time is None and self.step is None:
            raise ValueError(
                "a load path with times needs step=Constant(mesh, 0.0), time=Constant(mesh, 0.0) or both, for use in "
                "the form: a number in its place would be passed in full by every part of a step that is divided"
            )
        for (one, first), (other, second) in itertools.combinations(self.constants.items(), 2):
            if first is second:
                raise ValueError(f"{one} and {other} of a load path are the same Constant; each needs its own")

    @property
    def constants(self) -> Mapping[str, dolfinx.fem.Constant]:
        """What the path sets, by its name here."""
        named = {"factor": self.factor, "time": self.time, "step": self.step}
        return {name: constant for name, constant in named.items() if constant is not None}

    @property
    def finds_factor(self) -> bool:
        """Whether the load factor is an unknown, found together with the state: not here."""
        return False

    @property
    def forms(self) -> Sequence[ufl.Form]:
        """What decides the path beside its constants."""
        return []

    @property
    def side(self) -> ufl.Form | None:
        """What tells the sides of a bifurcation apart, where the load factor is an unknown and a branch is taken."""
        return None

    def condition(self, residual: ufl.Form, unknown: Any, left: Any, right: Any) -> ufl.Form:
        """Where the load factor is an unknown: a form of rank 0 whose value decides it.

        Args:
            residual: Of rank 1, expanded.
            unknown: The function that is solved for.
            left: A function that is set to the left null vector of the tangent, or close to it.
            right: The same for the right null vector.
        """
        raise NotImplementedError("the load factors of this path are given")

    def states(self, continuation: Any) -> Iterator[Step]:
        """Where the load factor is an unknown: the steps of the path, as `Continuation` finds them. Collective."""
        raise NotImplementedError("the load factors of this path are given")

    @classmethod
    def monotonic(cls, steps: int, *, end: float = 1.0, **others: Any) -> LoadPath:
        """From 0 to `end` in equal steps; other arguments are those of a load path."""
        return cls.cyclic([end], steps, **others)

    @classmethod
    def cyclic(cls, reversals: Sequence[float], steps: int, **others: Any) -> LoadPath:
        """From 0 to the first reversal, on to the second, and so on, in `steps` equal steps each.

        `LoadPath.cyclic([1.0, -1.0, 0.0], 10)` loads, reverses and unloads; other arguments are those of a load path.
        """
        if steps < 1:
            raise ValueError(f"steps is {steps}, expected at least 1")
        ends = [0.0, *reversals]
        legs = [np.linspace(a, b, steps + 1)[1:] for a, b in itertools.pairwise(ends)]
        return cls(np.concatenate([*legs, np.zeros(0)]).tolist(), **{"start": 0.0, **others})

    def between(self, point: int, begin: float = 0.0, end: float = 1.0) -> Step:
        """The step from one part of the way to a point, from the point before it, to another part."""
        factors = [self.start or 0.0, *self.points][point : point + 2]
        initial = 1.0 - end if point == 0 and not self.start else 0.0
        factor, number = _part(factors, end), point if end == 1.0 else None
        if self.times is None:
            return Step(factor, number, initial=initial)
        times = [0.0, *self.times][point : point + 2]
        return Step(factor, number, _part(times, end), (end - begin) * (times[1] - times[0]), initial)

    def divisible(self, point: int) -> bool:
        """Whether the way to a point has parts: where neither load factor nor time changes, it has none."""
        starts = [self.start or 0.0, *self.points]
        return self.times is not None or starts[point] != self.points[point] or (point == 0 and not self.start)

    def apply(self, step: Step) -> None:
        """Give constants their values in a step."""
        values = {"factor": step.factor, "time": step.time, "step": step.size}
        for name, constant in self.constants.items():
            constant.value = values[name]


def _part(ends: Sequence[float], part: float) -> float:
    """A part of the way between two numbers, which ends at the second itself."""
    return ends[1] if part == 1.0 else ends[0] + part * (ends[1] - ends[0])


def _numbers(values: Sequence[float], name: str) -> np.ndarray:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not numbers.size or not np.isfinite(numbers).all():
        raise ValueError(f"{name} of a load path are {values!r}; expected finite numbers, at least one")
    return numbers


def _check_times(times: np.ndarray, count: int) -> None:
    """Refuse times that do not advance, or are not as many as there are points."""
    if len(times) != count:
        raise ValueError(f"a load path has {count} points and {len(times)} times; each point needs its time")
    if times[0] <= 0.0 or (np.diff(times) <= 0.0).any():
        raise ValueError(
            f"times of a load path are {times.tolist()}; expected increasing ones, each that of the end of a step: the "
            "start, at 0, is not among them"
        )


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
            if step < smallest or failure.final:
                raise NotConverged(str(failure), reason=failure.reason, load_factor=reached) from failure
            continue
        reached, step = goal, 2.0 * step
        yield reached
