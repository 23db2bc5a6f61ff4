"""Responses and their derivatives over a load path: what is taken at which step, and which method is cheaper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import ufl

from sobofem.fem.assembly.families import Functionals
from sobofem.fem.assembly.forms import Member
from sobofem.fem.assembly.plain import PlainIntegrals
from sobofem.fem.derivatives.free_factor import FreeFactorSensitivity
from sobofem.fem.derivatives.moving_ties import Moving, MovingModes, MovingTiesSensitivity
from sobofem.fem.derivatives.sensitivity import Method, Sensitivity, System
from sobofem.fem.derivatives.through_history import Recursion
from sobofem.fem.errors import NotConverged
from sobofem.fem.load_path import LoadPath, Step
from sobofem.fem.parameters import Binding
from sobofem.fem.responses import Combination
from sobofem.fem.solving.continuation import Continuation
from sobofem.fem.solving.equilibrium import Equilibrium
from sobofem.fem.solving.history import History
from sobofem.fem.solving.simulation import Simulation, Trajectory
from sobofem.fem.solving.warm_start import WarmStart

FACTORIZATION = 40
"""Back-substitutions that cost as much as the factorization which an adjoint sweep repeats at each load step."""


@dataclass(eq=False)
class Evaluation:
    """The last walk of a problem along its load path, to be differentiated.

    Attributes:
        simulation: Walks; its equilibrium holds the tangent of each step.
        functionals: The K integrals.
        combination: What responses take of them, in S slots.
        sensitivity: Derivatives at one state.
        recursion: Derivatives from step to step, where there is a history.
        slots: Values (S,) of the last walk.
        walks: How many there were, to tell one from the next.
    """

    simulation: Simulation
    functionals: Functionals
    combination: Combination
    sensitivity: Sensitivity
    recursion: Recursion | None

    def __post_init__(self) -> None:
        """Look up what is taken where."""
        self.equilibrium = self.simulation.equilibrium
        self._last = len(self.simulation.path.points) - 1
        points = {None, *(when for _, when in self.combination.slots), self._last}
        self._taken = {point: self.combination.taken(point) for point in points}
        self._trajectory: Trajectory | None = None
        self.slots = np.zeros(0)
        self.walks = 0

    @property
    def at_end(self) -> bool:
        """Whether everything is taken at the end of the path, and nothing before matters: the state there is enough."""
        return self.recursion is None and all(when == self._last for _, when in self.combination.slots)

    def response(self) -> np.ndarray:
        """Responses (m,) of the last walk."""
        return self._finite(_defined(self.combination.value, self.slots))

    def start_warm(self, bounds: np.ndarray) -> WarmStart | None:
        """Have walks begin at predicted states, where that is possible; bounds of the parameters are (n, 2)."""
        moving = isinstance(self.sensitivity, MovingTiesSensitivity)
        if self.at_end and not (self.equilibrium.linear or moving or self.simulation.continuation):
            self.simulation.warm_start = WarmStart(self.equilibrium, self.simulation.unknown, bounds)
        return self.simulation.warm_start

    def finish(self) -> np.ndarray:
        """Responses (m,) of the last walk, when all that is wanted of it was taken. Collective."""
        found, warm = self.response(), self.simulation.warm_start
        if warm is not None:
            slopes = self.sensitivity.moved
            if slopes is None and warm.wants_slopes:
                slopes = -self.equilibrium.solve_tangent(self.sensitivity.loads.assemble().times())
            warm.learn(self.simulation.stability, slopes)
        return found

    def chain(self) -> np.ndarray:
        """Derivative (m, S) of the responses by the slots, at the last walk."""
        return _defined(self.combination.slope, self.slots)

    def curvature(self, weights: np.ndarray) -> np.ndarray:
        """Second derivative (S, S) of the responses' sum with weights (m,) by the slots, at the last walk."""
        return _defined(lambda slots: self.combination.curvature(slots, weights), self.slots)

    def taken(self, step: Step) -> np.ndarray:
        """Which slots take which integral at a step, (S, K)."""
        return self._taken.get(step.point, self._taken[None])

    def walk(
        self, derive: Callable[[Step, bool], np.ndarray | None] | None = None, *, store: bool = False
    ) -> np.ndarray | None:
        """Walk the path, taking the integrals. Collective.

        Args:
            derive: Derivative (K, d) of the integrals, at every step; takes whether any integral is taken there.
            store: Whether to keep states for an adjoint sweep.

        Returns:
            Derivative (S, d) of the slots, if `derive` is given.
        """
        self.walks += 1
        slots, slopes = np.zeros(len(self.combination.slots)), None
        self._trajectory = Trajectory(self.simulation.path.stored_steps) if store else None
        self.sensitivity.moved = None
        for step in self.simulation.walk(to_end=self.at_end):
            taken = self.taken(step)
            any_taken = bool(taken.any())
            if any_taken:
                self.combination.refresh(step.point)
                slots += taken @ self.functionals.assemble()
            if self._trajectory is not None:
                self._trajectory.add(step, self.simulation)
            if derive is not None and (slope := derive(step, any_taken)) is not None:
                slopes = taken @ slope if slopes is None else slopes + taken @ slope
        self.slots = slots
        return slopes

    @cached_property
    def _plain(self) -> PlainIntegrals:
        """Integrals as they were given, compiled when they are first wanted."""
        return PlainIntegrals(self.combination.integrals, self.equilibrium.comm)

    def against_plain(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Walk, and take responses (m,) twice: as ever, and of plain integrals; with the size of what they sum."""
        plain = self._plain
        slots = np.zeros((2, len(self.combination.slots)))

        def take(step: Step, taken: bool) -> None:
            if taken:
                slots[:] += plain.assemble() @ self.taken(step).T

        self.walk(take)
        values, sizes = slots
        return self.response(), _defined(self.combination.value, values), np.abs(self.chain()) @ sizes

    def jacobian(self, *, method: Method) -> np.ndarray:
        """Walk, and differentiate the responses by the parameters, (m, n). Collective."""
        if self.at_end:
            warm = self.simulation.warm_start
            if method == "auto" and warm is not None and warm.wants_slopes:
                method = "tangent"  # which finds derivatives of the state on its way
            self.walk()
            self.response()
            return self._finite(self.sensitivity.jacobian(self.equilibrium, self.end_chain(), method=method))
        if self.recursion is None:
            return self._finite(self._through_points(method=method))
        parameters = self.sensitivity.shape[1]
        if method == "auto":
            rows = len(self.combination.slots_of)
            method = "tangent" if parameters <= rows + FACTORIZATION else "adjoint"
        if method == "tangent":
            return self.along(None)
        self.walk(store=True)
        return self._finite(self._adjoint(self.chain()))

    def along(self, directions: np.ndarray | None) -> np.ndarray:
        """Differentiate along directions (n, d), by default the parameters: (m, d). Collective.

        If `at_end` after a walk, at its end; otherwise on a walk of its own.
        """
        if self.at_end:
            return self._finite(self.sensitivity.tangent(self.equilibrium, self.end_chain(), directions))
        if self.recursion is None:
            return self._finite(self._through_points(directions, method="tangent"))
        recursion = self.recursion
        forward = recursion.forward(self.equilibrium, directions)
        slopes = self.walk(lambda step, taken: recursion.advance(forward, taken=taken, last=step.point == self._last))
        assert slopes is not None  # a response takes something somewhere
        return self._finite(self.chain() @ slopes)

    def _through_points(self, directions: np.ndarray | None = None, *, method: Method) -> np.ndarray:
        """Without history: derivatives at each point where something is taken."""
        identity = np.eye(self.sensitivity.shape[0])

        def derive(step: Step, taken: bool) -> np.ndarray | None:
            if not taken:
                return None
            if directions is not None:
                return self.sensitivity.tangent(self.equilibrium, identity, directions)
            return self.sensitivity.jacobian(self.equilibrium, identity, method=method)

        slopes = self.walk(derive)
        assert slopes is not None
        return self.chain() @ slopes

    def end_chain(self) -> np.ndarray:
        """If `at_end`, after a walk: derivative (m, K) of the responses by the integrals."""
        return self.chain() @ self._taken[self._last]

    def end_curvature(self, weights: np.ndarray) -> np.ndarray:
        """If `at_end`, after a walk: second derivative (K, K) of the responses' sum with weights (m,)."""
        taken = self._taken[self._last]
        return taken.T @ self.curvature(weights) @ taken

    def transposed(self, weights: np.ndarray) -> np.ndarray:
        """Differentiate combinations (r, m) of the responses by the parameters, (r, n); as `along`. Collective."""
        if self.at_end:
            return finite(self.sensitivity.adjoint(self.equilibrium, weights @ self.end_chain()))
        if self.recursion is None:
            return finite(weights @ self._through_points(method="adjoint"))
        self.walk(store=True)
        return finite(self._adjoint(weights @ self.chain()))

    def _adjoint(self, weights: np.ndarray) -> np.ndarray:
        """After a walk with stored states: derivative of combinations (r, S) of the slots, (r, n)."""
        assert self.recursion is not None and self._trajectory is not None
        return self.recursion.adjoint(
            self.equilibrium,
            self.simulation,
            self._trajectory,
            lambda step: weights @ self.taken(step),
            len(weights),
        )

    def _finite(self, values: np.ndarray) -> np.ndarray:
        """A row for each response, or `NotConverged` with those whose rows are no numbers."""
        if bad := [
            name for name, row in zip(self.combination.names, values, strict=True) if not np.isfinite(row).all()
        ]:
            raise NotConverged(f"responses {bad} or their derivatives are not finite", reason="undefined response")
        return values

    def close(self) -> None:
        """Free matrices. Collective."""
        self.sensitivity.close()
        if self.recursion is not None:
            self.recursion.close()


class Parts(NamedTuple):
    """What a problem is differentiated with, by other things than its parameters, or for more than its responses.

    Attributes:
        solve: Brings the problem to equilibrium at x (n,), unless it is there; with `gently=True` as
            `Problem.evaluate_gently` does. Collective.
        system: What decides the state.
        evaluation: The responses there, with their derivatives.
        coordinates: Of the mesh before any shape changes.
        check_field: Refuses a field, as an expanded form with its name, of what the problem does not evaluate.
    """

    solve: Callable[..., None]
    system: System
    evaluation: Evaluation
    coordinates: np.ndarray
    check_field: Callable[[ufl.Form, str], None]

    @property
    def equilibrium(self) -> Equilibrium:
        """Solves with the tangent at the state."""
        return self.evaluation.equilibrium

    @property
    def sensitivity(self) -> Sensitivity:
        """Derivatives of the residual."""
        return self.evaluation.sensitivity

    @property
    def bindings(self) -> Sequence[Binding]:
        """The parameters."""
        return self.system.bindings


def evaluation_of(
    system: System,
    combination: Combination,
    memory: History | None,
    equilibrium: Equilibrium,
    path: LoadPath,
    moving: Moving,
) -> Evaluation:
    """Of a problem: its forms compiled, by the derivatives that fit it. Collective.

    Args:
        system: Decides the state, and holds the integrals.
        combination: What responses take of these.
        memory: Internal variables, if there are any.
        equilibrium: Solves.
        path: The load path.
        moving: Ties that shapes change.
    """
    continuation = None
    beside = MovingModes(system.integrals, moving.of_modes).add_to if moving.of_modes else None
    if path.finds_factor:
        continuation = Continuation(equilibrium, system.residual, system.unknown, path)
        sensitivity: Sensitivity = FreeFactorSensitivity(system, path, continuation, beside)
    elif moving.of_unknown:
        sensitivity = MovingTiesSensitivity(system, moving.of_unknown, beside)
    else:
        sensitivity = Sensitivity(system, beside)
    recursion = Recursion(sensitivity, system, memory, len(combination.names)) if memory else None
    functionals = Functionals([Member(integral) for integral in system.integrals], system.space.mesh)
    simulation = Simulation(equilibrium, system.unknown, path, memory, system.bindings, continuation)
    return Evaluation(simulation, functionals, combination, sensitivity, recursion)


def finite(products: np.ndarray) -> np.ndarray:
    """Products with derivatives, or `NotConverged` where they are no numbers."""
    if not np.isfinite(products).all():
        raise NotConverged("a derivative is not finite", reason="undefined response")
    return products


def _defined(function: Callable[[np.ndarray], np.ndarray], slots: np.ndarray) -> np.ndarray:
    """What `combine` or its derivative gives, or `NotConverged` where it gives nothing."""
    try:
        return function(slots)
    except (ArithmeticError, ValueError) as error:
        raise NotConverged(f"a response has no value here: {error}", reason="undefined response") from error
