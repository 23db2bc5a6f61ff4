r"""Derivatives of responses by the parameters through the history of a material.

A load step finds u_k with F(u_k, q_{k-1}, m) = 0 and leaves q_k = G(u_k, q_{k-1}, m). Integrals I(u_k, q_{k-1}, m) are
taken at chosen steps. The tangent method carries dq/dm forward beside the solve, on the factorization of each step:

    du_k = −K⁻¹ (∂F/∂m + ∂F/∂q dq_{k-1}),    dq_k = ∂G/∂m + ∂G/∂u du_k + ∂G/∂q dq_{k-1}.

The adjoint method sweeps back over stored states, with the derivative μ_k of the responses by q_k as a density:

    λ_k = K⁻ᵀ (∂I/∂u + μ_k ∂G/∂u)ᵀ,    μ_{k-1} = ∂I/∂q + μ_k ∂G/∂q − λ_k ∂F/∂q.

G is differentiated as a linear form with a test function at the quadrature points, by the same means as F.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import ufl

from sobofem.fem.assembly.families import DirectedForms, LinearForms
from sobofem.fem.assembly.forms import Member, by_function
from sobofem.fem.assembly.stacking import owned_size, summed
from sobofem.fem.derivatives.sensitivity import Sensitivity, System, by_parameters
from sobofem.fem.load_path import Step
from sobofem.fem.solving.equilibrium import Equilibrium
from sobofem.fem.solving.history import History
from sobofem.fem.solving.simulation import Simulation, Trajectory


class Recursion:
    """Compiled derivatives of one load step, and the recursion over all of them.

    Args:
        state: Derivatives at fixed internal variables.
        system: F, I and m.
        history: q and G.
        responses: How many adjoint states are usual.
    """

    def __init__(self, state: Sensitivity, system: System, history: History, responses: int) -> None:
        self._state = state
        self._residual, integrals, self._unknown, bindings = system
        self._history = history
        self._responses = responses
        self._comm = history.space.mesh.comm
        self._test = ufl.TestFunction(history.space)
        history.adopt_tags(self._residual)
        self._loads = LinearForms(by_parameters(history.update(self._test), bindings), history.space)
        slopes = [Member(history.by_old(integral, self._test)) for integral in integrals]
        self._slopes = LinearForms(slopes, history.space)

    def close(self) -> None:
        """Free matrices. Collective."""
        self._loads.close()

    @cached_property
    def _force(self) -> DirectedForms:
        """∂F/∂q along directions at the points."""
        q, u = self._history.space, self._unknown.function_space
        return DirectedForms(lambda dq: self._history.by_old(self._residual, dq), [q], u, self._state.shape[1])

    @cached_property
    def _evolution(self) -> DirectedForms:
        """∂G/∂u and ∂G/∂q along directions of both."""
        q, u = self._history.space, self._unknown.function_space
        update = self._history.update(self._test)

        def build(du: object, dq: object) -> ufl.Form:
            return by_function(update, self._unknown, du) + self._history.by_old(update, dq)

        return DirectedForms(build, [u, q], q, self._state.shape[1])

    @cached_property
    def _pull(self) -> DirectedForms:
        """μ ∂G/∂u."""
        q, u = self._history.space, self._unknown.function_space
        test = ufl.TestFunction(u)
        return DirectedForms(
            lambda mu: by_function(self._history.update(mu), self._unknown, test), [q], u, self._responses
        )

    @cached_property
    def _back(self) -> DirectedForms:
        """μ ∂G/∂q − λ ∂F/∂q."""
        q, u = self._history.space, self._unknown.function_space
        (original,) = self._residual.arguments()

        def build(lam: object, mu: object) -> ufl.Form:
            work = ufl.replace(self._residual, {original: lam})
            return self._history.by_old(self._history.update(mu) - work, self._test)

        return DirectedForms(build, [u, q], q, self._responses)

    def forward(self, equilibrium: Equilibrium, directions: np.ndarray | None) -> Forward:
        """Start the tangent method along directions (n, d), by default along the parameters. Collective."""
        self._history.weigh()
        count = self._state.shape[1] if directions is None else directions.shape[1]
        return Forward(equilibrium, directions, np.zeros((owned_size(self._history.space), count)))

    def advance(self, forward: Forward, *, taken: bool, last: bool) -> np.ndarray | None:
        """Carry the derivatives over the step at whose end the simulation is. Collective.

        Args:
            forward: Derivatives at the start of the step; brought to its end.
            taken: Whether integrals are taken here.
            last: Whether no step follows.

        Returns:
            Derivatives (K, d) of the integrals, if taken.
        """
        directions, old = forward.directions, forward.internal
        loads, carried = self._state.followed(forward.equilibrium, directions)
        moved = carried - forward.equilibrium.solve_tangent(loads + self._force.assemble(old))
        found = None
        if taken:
            found = self._state.partial()
            if directions is not None:
                found = found @ directions
            slopes = self._state.slopes.assemble().times().copy()
            slopes[forward.equilibrium.constrained] = 0.0
            found = found + summed(self._comm, slopes.T @ moved + self._slopes.assemble().times().T @ old)
        if not last:
            self._history.hold_current()
            change = self._loads.assemble().times(directions) + self._evolution.assemble(moved, old)
            forward.internal = self._history.per_weight(change)
        return found

    def adjoint(
        self,
        equilibrium: Equilibrium,
        simulation: Simulation,
        trajectory: Trajectory,
        chain: Callable[[Step], np.ndarray],
        rows: int,
    ) -> np.ndarray:
        """Derivative (r, n) of what the integrals of each step give by `chain(step)` (r, K). Collective."""
        self._history.weigh()
        gradient = np.zeros((rows, self._state.shape[1]))
        # derivative of what follows by the internal variables that this step leaves behind, q_k; none after the last
        density = np.zeros((owned_size(self._history.space), rows))
        number = len(trajectory.steps)
        for step in trajectory.backwards(simulation):
            number -= 1
            weights = chain(step)
            taken = bool(weights.any())
            right = self._pull.assemble(density)
            if taken:
                right += self._state.slopes.assemble().times() @ weights.T
                gradient += weights @ self._state.partial()
            # the tangent at this step's own solution: Newton's last factor is a step behind
            equilibrium.factor()
            states = equilibrium.solve_tangent(right, transposed=True)
            gradient += self._state.by_ties(equilibrium, right, states)
            self._history.hold_current()
            local = self._loads.assemble().transposed_times(density)
            local -= self._state.loads.assemble().transposed_times(states)
            gradient += summed(self._comm, local)
            # on to q_{k−1}: through the state, through the responses of this step, and through the update itself
            if number:
                density = self._back.assemble(states, density)
                if taken:
                    density += self._slopes.assemble().times() @ weights.T
                density = self._history.per_weight(density)
        return gradient


@dataclass(eq=False)
class Forward:
    """Derivatives on their way: those of the internal variables along each direction, at the points, (owned, d)."""

    equilibrium: Equilibrium
    directions: np.ndarray | None
    internal: np.ndarray
