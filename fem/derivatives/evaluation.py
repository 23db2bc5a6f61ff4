"""Responses and their derivatives over a load path: what is taken at which step, and which method is cheaper."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sobofem.fem.assembly.families import Functionals
from sobofem.fem.assembly.plain import PlainIntegrals
from sobofem.fem.derivatives.sensitivity import Method, Sensitivity
from sobofem.fem.derivatives.through_history import Recursion
from sobofem.fem.errors import NotConverged
from sobofem.fem.load_path import LoadPath, Step
from sobofem.fem.responses import Combination
from sobofem.fem.solving.equilibrium import Equilibrium
from sobofem.fem.solving.simulation import Simulation, Trajectory

FACTORIZATION = 40
"""Back-substitutions that cost as much as the factorization which an adjoint sweep repeats at each load step."""


class Evaluation:
    """The last walk of a problem along its load path, to be differentiated.

    Args:
        simulation: Walks.
        equilibrium: Holds the tangent of each step.
        functionals: The K integrals.
        combination: What responses take of them, in S slots.
        sensitivity: Derivatives at one state.
        recursion: Derivatives from step to step, where there is a history.
        path: The load path.

    Attributes:
        slots: Values (S,) of the last walk.
        walks: How many there were, to tell one from the next.
    """

    def __init__(
        self,
        simulation: Simulation,
        equilibrium: Equilibrium,
        functionals: Functionals,
        combination: Combination,
        sensitivity: Sensitivity,
        recursion: Recursion | None,
        path: LoadPath,
    ) -> None:
        self._simulation = simulation
        self._equilibrium = equilibrium
        self._functionals = functionals
        self._combination = combination
        self._sensitivity = sensitivity
        self._recursion = recursion
        self._stored = path.stored_steps
        self._last = len(path.points) - 1
        self._taken = {p: combination.taken(p) for p in {None, *(when for _, when in combination.slots), self._last}}
        self._trajectory: Trajectory | None = None
        self.slots = np.zeros(0)
        self.walks = 0

    @property
    def at_end(self) -> bool:
        """Whether everything is taken at the end of the path, and nothing before matters: the state there is enough."""
        return self._recursion is None and all(when == self._last for _, when in self._combination.slots)

    def response(self) -> np.ndarray:
        """Responses (m,) of the last walk."""
        return _defined(self._combination.value, self.slots)

    def chain(self) -> np.ndarray:
        """Derivative (m, S) of the responses by the slots, at the last walk."""
        return _defined(self._combination.slope, self.slots)

    def curvature(self, weights: np.ndarray) -> np.ndarray:
        """Second derivative (S, S) of the responses' sum with weights (m,) by the slots, at the last walk."""
        return _defined(lambda slots: self._combination.curvature(slots, weights), self.slots)

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
        slots, slopes = np.zeros(len(self._combination.slots)), None
        self._trajectory = Trajectory(self._stored) if store else None
        for step in self._simulation.walk():
            taken = self.taken(step)
            any_taken = bool(taken.any())
            if any_taken:
                self._combination.refresh(step.point)
                slots += taken @ self._functionals.assemble()
            if self._trajectory is not None:
                self._trajectory.add(step, self._simulation)
            if derive is not None and (slope := derive(step, any_taken)) is not None:
                slopes = taken @ slope if slopes is None else slopes + taken @ slope
        self.slots = slots
        return slopes

    def against(self, plain: PlainIntegrals) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Walk, and take responses (m,) twice: as ever, and of plain integrals; with the size of what they sum."""
        slots = np.zeros((2, len(self._combination.slots)))

        def take(step: Step, taken: bool) -> None:
            if taken:
                slots[:] += plain.assemble() @ self.taken(step).T

        self.walk(take)
        values, sizes = slots
        return self.response(), _defined(self._combination.value, values), np.abs(self.chain()) @ sizes

    def jacobian(self, *, method: Method) -> np.ndarray:
        """Walk, and differentiate the responses by the parameters, (m, n). Collective."""
        if self.at_end:
            self.walk()
            self.response()
            return self._sensitivity.jacobian(self._equilibrium, self.end_chain(), method=method)
        if self._recursion is None:
            return self._through_points(method=method)
        parameters = self._sensitivity.shape[1]
        if method == "auto":
            rows = len(self._combination.slots_of)
            method = "tangent" if parameters <= rows + FACTORIZATION else "adjoint"
        if method == "tangent":
            return self.along(None)
        self.walk(store=True)
        return self.adjoint(self.chain())

    def along(self, directions: np.ndarray | None) -> np.ndarray:
        """Walk, and differentiate along directions (n, d), by default the parameters: (m, d). Collective."""
        if self._recursion is None:
            return self._through_points(directions, method="tangent")
        recursion = self._recursion
        forward = recursion.forward(self._equilibrium, directions)
        slopes = self.walk(lambda step, taken: recursion.advance(forward, taken=taken, last=step.point == self._last))
        assert slopes is not None  # a response takes something somewhere
        return self.chain() @ slopes

    def _through_points(self, directions: np.ndarray | None = None, *, method: Method) -> np.ndarray:
        """Without history: derivatives at each point where something is taken."""
        identity = np.eye(self._sensitivity.shape[0])

        def derive(step: Step, taken: bool) -> np.ndarray | None:
            if not taken:
                return None
            if directions is not None:
                return self._sensitivity.tangent(self._equilibrium, identity, directions)
            return self._sensitivity.jacobian(self._equilibrium, identity, method=method)

        slopes = self.walk(derive)
        assert slopes is not None
        return self.chain() @ slopes

    def at_state(self, weights: np.ndarray, directions: np.ndarray | None = None) -> np.ndarray:
        """If `at_end`, after a walk: derivatives of combinations (r, m) of the responses, all or along (n, d)."""
        chain = weights @ self.end_chain()
        if directions is not None:
            return self._sensitivity.tangent(self._equilibrium, chain, directions)
        return self._sensitivity.adjoint(self._equilibrium, chain)

    def end_chain(self) -> np.ndarray:
        """If `at_end`, after a walk: derivative (m, K) of the responses by the integrals."""
        return self.chain() @ self._taken[self._last]

    def end_curvature(self, weights: np.ndarray) -> np.ndarray:
        """If `at_end`, after a walk: second derivative (K, K) of the responses' sum with weights (m,)."""
        taken = self._taken[self._last]
        return taken.T @ self.curvature(weights) @ taken

    def transposed(self, weights: np.ndarray) -> np.ndarray:
        """Walk, and differentiate combinations (r, m) of the responses by the parameters, (r, n). Collective."""
        if self._recursion is None:
            return weights @ self._through_points(method="adjoint")
        self.walk(store=True)
        return self.adjoint(weights @ self.chain())

    def adjoint(self, weights: np.ndarray) -> np.ndarray:
        """After a walk with stored states: derivative of combinations (r, S) of the slots, (r, n)."""
        assert self._recursion is not None and self._trajectory is not None
        return self._recursion.adjoint(
            self._equilibrium,
            self._simulation,
            self._trajectory,
            lambda step: weights @ self.taken(step),
            len(weights),
        )


def _defined(function: Callable[[np.ndarray], np.ndarray], slots: np.ndarray) -> np.ndarray:
    """What `combine` or its derivative gives, or `NotConverged` where it gives nothing."""
    try:
        return function(slots)
    except (ArithmeticError, ValueError) as error:
        raise NotConverged(f"a response has no value here: {error}", reason="undefined response") from error
