"""A structure's way along its load path: equilibrium after equilibrium, with the cutbacks that it takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mpi4py import MPI
import dolfinx
import numpy as np

from sobofem.fem.assembly.stacking import owned_size
from sobofem.fem.errors import NotConverged
from sobofem.fem.load_path import LoadPath, Step, march
from sobofem.fem.parameters import Binding
from sobofem.fem.solving.continuation import Continuation
from sobofem.fem.solving.equilibrium import Equilibrium
from sobofem.fem.solving.history import History
from sobofem.fem.solving.stability import Stability
from sobofem.fem.solving.warm_start import WarmStart

HIDDEN_TIME = (
    "a load step was divided, and the state changes in one in which neither load factor nor time does. If the form "
    "holds a step of time as a number, the parts of the divided step passed it once each, and no answer is right: "
    "give the path LoadPath(times=[...], step=Constant(mesh, 0.0)), and the form that Constant. If such steps are "
    "iterations of a scheme of your own, let none be divided: newton=fem.Newton(smallest_step=1.0)"
)


@dataclass(eq=False)
class Simulation:
    """Walks the load path of a problem.

    Attributes:
        equilibrium: Solves; its settings say where to begin, and when to give up.
        unknown: What it solves for.
        path: The load path.
        history: Internal variables, if there are any.
        bindings: Parameters, whose boundary values follow the load factor.
        continuation: Finds the load factor as well, where that is an unknown.
        warm_start: Finds the end of the path from states of earlier walks, where that is wanted.
        stability: Of the last walk, as far as it went.
    """

    equilibrium: Equilibrium
    unknown: dolfinx.fem.Function
    path: LoadPath
    history: History | None
    bindings: Sequence[Binding]
    continuation: Continuation | None = None
    warm_start: WarmStart | None = None
    stability: Stability = Stability()  # noqa: RUF009  (frozen)

    def walk(self, *, to_end: bool = False) -> Iterator[Step]:
        """Take the load path's steps from the initial state. Collective.

        While a step is out, the unknown is that at its end and internal variables those at its start. Without internal
        variables only the path's points are steps: how they were approached leaves no trace.

        Args:
            to_end: Whether the end of the path alone is of interest, so that a warm start may leave out the others.

        Raises:
            NotConverged: With the part of the load path that was passed.
        """
        self.stability = Stability()
        if to_end and self.warm_start is not None:
            last = self.path.between(len(self.path.points) - 1)
            self.load(last)
            if self.warm_start.begin(last.factor):
                self._note(last)
                yield last
                return
        self.equilibrium.reset()
        if self.history:
            self.history.reset()
        self._divided = self._drifted = False
        if self.continuation is not None:
            yield from self._found(self.continuation)
            return
        count = len(self.path.points)
        self._reach(self.path.between(0, 0.0, 0.0))
        for point in range(count):
            try:
                self.equilibrium.pivots.begin_step()
                for step in self._substeps(point) if self.history else self._whole(point):
                    self._note(step)
                    yield step
                    if step.point != count - 1:
                        self.proceed()
            except NotConverged as failure:
                passed = (point + failure.load_factor) / count
                message = f"{failure} (reached {passed:.1%} of the load path, {self._reached})"
                raise NotConverged(message, reason=failure.reason, load_factor=passed) from failure

    def _found(self, continuation: Continuation) -> Iterator[Step]:
        """Steps whose load factor is found with the state."""
        for step in self.path.states(continuation):
            self._note(step)
            for binding in self.bindings:
                binding.scale_boundary_values(step.factor)
            yield step

    def _note(self, step: Step) -> None:
        """Keep what the pivots at a point of the load path say, and those on the way there."""
        if step.point is not None:
            pivots = self.equilibrium.pivots
            self.stability = self.stability.at(step.factor, pivots.now, crossed=pivots.seen > 0, at_rest=pivots.at_rest)

    def _substeps(self, point: int) -> Iterator[Step]:
        """Steps from one point of the path to the next, each on what the one before left in the history."""
        newton, reached = self.equilibrium.newton, 0.0

        def attempt(goal: float) -> None:
            self._load(self.path.between(point, reached, goal))

        divisible, before = self.path.divisible(point), self.unknown.x.array.copy()
        shortest = newton.smallest_step if divisible else 1.0
        for end in march(attempt, first=max(newton.first_step, shortest), smallest=shortest):
            step = self.path.between(point, reached, end)
            self._reach(step)
            reached = end
            self._divided |= step.point is None
            self._drifted |= point > 0 and not divisible and self._changed_from(before)
            if self._divided and self._drifted:
                raise NotConverged(HIDDEN_TIME, reason="hidden time", load_factor=reached, final=True)
            yield step

    def _changed_from(self, before: np.ndarray) -> bool:
        """Whether the unknown is another than before, by more than Newton's tolerance leaves open. Collective."""
        owned = owned_size(self.unknown.function_space)
        values, comm = self.unknown.x.array[:owned], self.unknown.function_space.mesh.comm
        squares = comm.allreduce(np.array([((values - before[:owned]) ** 2).sum(), (values**2).sum()]), op=MPI.SUM)
        return bool(np.sqrt(squares[0]) > max(1e-6, 100 * self.equilibrium.newton.rtol) * np.sqrt(squares[1]))

    def _whole(self, point: int) -> Iterator[Step]:
        """The one step from a point of the path to the next, without a history, approached in parts."""
        newton, step = self.equilibrium.newton, self.path.between(point)
        self.load(step)
        self.equilibrium.aim(step.factor)
        for part in march(self.equilibrium.solve, first=newton.first_step, smallest=newton.smallest_step):
            self._reach(self.path.between(point, 0.0, part))
        yield step

    def _reach(self, step: Step) -> None:
        """Note how far the path was passed, for messages."""
        self._reached = f"load factor {step.factor:g}" + ("" if step.time is None else f", time {step.time:g}")

    def _load(self, step: Step) -> None:
        """Take one load step from the present state."""
        self.load(step)
        self.equilibrium.aim(step.factor, initial=step.initial)
        self.equilibrium.solve()

    def load(self, step: Step) -> None:
        """Apply load factor, time and size of a step."""
        self.path.apply(step)
        for binding in self.bindings:
            binding.scale_boundary_values(step.factor)

    def again(self, step: Step) -> None:
        """Take a step that was taken before, from the state it started from. Collective."""
        self._load(step)

    def place(self, step: Step, snapshot: Snapshot) -> None:
        """Return to the end of a step."""
        self.load(step)
        self.unknown.x.array[:] = snapshot.unknown
        if self.history and snapshot.internal is not None:
            self.history.assign(snapshot.internal)
        self.equilibrium.refresh()

    def snapshot(self) -> Snapshot:
        """The state at the end of the present step."""
        return Snapshot(self.unknown.x.array.copy(), self.history.old() if self.history else None)

    def proceed(self) -> None:
        """Let internal variables become what they became."""
        if self.history:
            self.history.assign(self.history.evolve())


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
