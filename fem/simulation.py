"""A structure's way along its load path: equilibrium after equilibrium, with the cutbacks that it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
import itertools

import dolfinx
import numpy as np

from fem.equilibrium import Equilibrium
from fem.errors import NotConverged
from fem.history import History
from fem.load_path import LoadPath, march
from fem.parameters import Binding


@dataclass(frozen=True)
class Step:
    """A load step that was taken.

    Attributes:
        factor: The load factor at its end.
        point: Number of the load path's point that it ends at; None for a step that a cutback put in between.
    """

    factor: float
    point: int | None


class Simulation:
    """Walks the load path of a problem.

    Args:
        equilibrium: Solves; its settings say where to begin, and when to give up.
        unknown: What it solves for.
        path: The load path.
        history: Internal variables, if there are any.
        bindings: Parameters, whose boundary values follow the load factor.
    """

    def __init__(
        self,
        equilibrium: Equilibrium,
        unknown: dolfinx.fem.Function,
        path: LoadPath,
        history: History | None,
        bindings: Sequence[Binding],
    ) -> None:
        self._equilibrium = equilibrium
        self._unknown = unknown
        self._path = path
        self._history = history
        self._bindings = bindings
        self.factor = 0.0

    def walk(self) -> Iterator[Step]:
        """Take the load path's steps from the undeformed state. Collective.

        While a step is out, the unknown is that at its end and internal variables those at its start. Without internal
        variables only the path's points are steps: how they were approached leaves no trace.

        Raises:
            NotConverged: With the part of the load path that was passed.
        """
        if not self._warm():
            self._equilibrium.reset()
        if self._history:
            self._history.reset()
        factors = [0.0, *self._path.points]
        for point, (start, end) in enumerate(itertools.pairwise(factors)):
            try:
                for step in self._leg(point, start, end):
                    yield step
                    if step.point != len(self._path.points) - 1:
                        self.proceed()
            except NotConverged as failure:
                passed = (point + failure.load_factor) / len(self._path.points)
                message = f"{failure} (reached {passed:.1%} of the load path, load factor {self.factor:g})"
                raise NotConverged(message, reason=failure.reason, load_factor=passed) from failure

    def _leg(self, point: int, start: float, end: float) -> Iterator[Step]:
        """Steps from one point of the path to the next."""
        self.factor = start
        if self._history:
            for share in self._march(lambda goal: self._load(start + goal * (end - start))):
                self.factor = start + share * (end - start)
                yield Step(self.factor, point if share == 1.0 else None)
            return
        self.load(end)
        self._equilibrium.aim(end)
        if point == 0 and self._warm():
            try:
                self._equilibrium.solve()
                yield Step(end, point)
                return
            except NotConverged:
                self._equilibrium.reset()
                self._equilibrium.aim(end)
        for share in self._march(self._equilibrium.solve):
            self.factor = start + share * (end - start)
        yield Step(end, point)

    def _march(self, attempt: Callable[[float], object]) -> Iterator[float]:
        newton = self._equilibrium.newton
        return march(attempt, first=newton.first_step, smallest=newton.smallest_step)

    def _warm(self) -> bool:
        return self._equilibrium.newton.warm_start and not self._history and not self._equilibrium.linear

    def _load(self, factor: float) -> None:
        """One load step from the present state."""
        self.load(factor)
        self._equilibrium.aim(factor)
        self._equilibrium.solve()

    def load(self, factor: float) -> None:
        """Apply a load factor."""
        if self._path.factor is not None:
            self._path.factor.value = factor
        for binding in self._bindings:
            binding.scale_boundary_values(factor)

    def again(self, step: Step) -> None:
        """Take a step that was taken before, from the state it started from. Collective."""
        self._load(step.factor)

    def place(self, step: Step, snapshot: Snapshot) -> None:
        """Return to the end of a step."""
        self.load(step.factor)
        self._unknown.x.array[:] = snapshot.unknown
        if self._history and snapshot.internal is not None:
            self._history.assign(snapshot.internal)
        self._equilibrium.refresh()

    def snapshot(self) -> Snapshot:
        """The state at the end of the present step."""
        return Snapshot(self._unknown.x.array.copy(), self._history.old() if self._history else None)

    def proceed(self) -> None:
        """Let internal variables become what they became."""
        if self._history:
            self._history.assign(self._history.evolve())


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The unknown at the end of a step and internal variables (points, entries) at its start, on this rank."""

    unknown: np.ndarray
    internal: np.ndarray | None


class Trajectory:
    """All steps that were taken, with the states of some; the rest is solved again when it is needed.

    Args:
        stored: How many states to keep.
    """

    def __init__(self, stored: int) -> None:
        self._stored = stored
        self._stride = 1
        self.steps: list[Step] = []
        self._snapshots: dict[int, Snapshot] = {}

    def add(self, step: Step, simulation: Simulation) -> None:
        """Note a step, at whose end the simulation is."""
        number = len(self.steps)
        self.steps.append(step)
        if number % self._stride == 0:
            self._snapshots[number] = simulation.snapshot()
        if len(self._snapshots) > self._stored:
            self._stride *= 2
            self._snapshots = {k: s for k, s in self._snapshots.items() if k % self._stride == 0}

    def backwards(self, simulation: Simulation) -> Iterator[Step]:
        """All steps, last first, with the simulation at the end of each; in the end, of the last. Collective."""
        end = simulation.snapshot()
        for start in reversed(range(0, len(self.steps), self._stride)):
            segment = range(start, min(start + self._stride, len(self.steps)))
            states = {start: self._snapshots[start]}
            if len(segment) > 1:
                simulation.place(self.steps[start], states[start])
                for number in segment[1:]:
                    simulation.proceed()
                    simulation.again(self.steps[number])
                    states[number] = simulation.snapshot()
            for number in reversed(segment):
                simulation.place(self.steps[number], states[number])
                yield self.steps[number]
        simulation.place(self.steps[-1], end)
