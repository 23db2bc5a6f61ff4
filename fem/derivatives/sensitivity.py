r"""Derivatives of the integrals of one state by the parameters, on the factorization that found it.

With residual F(u, m) = 0 and integral I(u, m),

    dI/dm = ∂I/∂m + ∂I/∂u w − (∂I/∂u) K⁻¹ (∂F/∂m + K w),    K = ∂F/∂u,

where w is the derivative of prescribed boundary values. The bracket on the right is one matrix with a
column per parameter (the loads), ∂I/∂u one with a column per integral. The tangent method applies K⁻¹ to the
first, the adjoint method K⁻ᵀ to the second: the same answer, at the cost of as many back-substitutions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import dolfinx
import numpy as np
import ufl

from sobofem.fem.assembly.families import Functionals, LinearForms
from sobofem.fem.assembly.forms import Member, Span, by_function
from sobofem.fem.assembly.stacking import summed
from sobofem.fem.parameters import Binding
from sobofem.fem.solving.equilibrium import Equilibrium

Method = Literal["auto", "adjoint", "tangent"]
METHODS = ("auto", "adjoint", "tangent")


def by_parameters(form: ufl.Form, bindings: Sequence[Binding]) -> list[Member | Span]:
    """Derivatives of an expanded form by all parameters, boundary values included."""
    return [member for binding in bindings for member in binding.derivatives(form)]


class System(NamedTuple):
    """What decides a state, and what is asked of it.

    Attributes:
        residual: F, whose vanishing decides the state; a form of rank 1, expanded.
        integrals: The K integrals I, expanded.
        unknown: The state u.
        bindings: The n parameters m, attached to all of these.
    """

    residual: ufl.Form
    integrals: Sequence[ufl.Form]
    unknown: dolfinx.fem.Function
    bindings: Sequence[Binding]

    @property
    def space(self) -> dolfinx.fem.FunctionSpace:
        """That of the state."""
        return self.unknown.function_space


class Sensitivity:
    """Compiled derivatives of K integrals by n parameters, at one state.

    Args:
        system: Decides the state, and holds the integrals.
        beside: Adds to derivatives (K, n) at fixed state what no form says.

    Attributes:
        shape: K and n.
        moved: Derivatives of the state by the parameters (owned, n), zero where it is prescribed, if they were needed.
    """

    def __init__(self, system: System, beside: Callable[[np.ndarray], None] | None = None) -> None:
        residual, integrals, unknown, bindings = system
        space = system.space
        self._comm = space.mesh.comm
        (test,) = residual.arguments()
        loads = by_parameters(residual, bindings)
        slopes = [Member(by_function(integral, unknown, test)) for integral in integrals]
        partial = [by_parameters(integral, bindings) for integral in integrals]
        self.shape = (len(slopes), sum(member.count for member in loads))
        self.by_state = np.array([not slope.empty for slope in slopes])
        self.loads = LinearForms(loads, space)
        self.slopes = LinearForms(slopes, space)
        self._beside = beside
        self.moved: np.ndarray | None = None
        self._partial = Functionals([member for row in partial for member in row], space.mesh)

    def partial(self) -> np.ndarray:
        """Derivatives (K, n) of the integrals by the parameters at fixed state. Collective."""
        found = self._partial.assemble().reshape(self.shape)
        if self._beside is not None:
            self._beside(found)
        return found

    def followed(
        self, equilibrium: Equilibrium, directions: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray | float]:
        """Along directions (n, d): the loads (owned, d), and what ties change of the state besides. Collective."""
        return self.loads.assemble().times(directions), 0.0

    def by_ties(self, equilibrium: Equilibrium, slopes: np.ndarray, states: np.ndarray) -> np.ndarray | float:
        """What ties that change add to derivatives (r, n) with slopes by the state, and adjoint states, (owned, r)."""
        return 0.0

    def tangent(self, equilibrium: Equilibrium, chain: np.ndarray, directions: np.ndarray | None = None) -> np.ndarray:
        """Derivative (r, d) of combinations `chain` (r, K) of the integrals along directions (n, d).

        Collective. `equilibrium` holds the tangent at the solution; by default the directions are the parameters.

        Raises:
            NotConverged: If a solve with the tangent fails.
        """
        direct = chain @ self.partial()
        if directions is not None:
            direct = direct @ directions
        rows = self._state_rows(chain)
        if rows.size:
            moved = equilibrium.solve_tangent(self.loads.assemble().times(directions))
            self.moved = -moved if directions is None else None
            slopes = self.slopes.assemble().times() @ chain[rows].T
            slopes[equilibrium.constrained] = 0.0
            direct[rows] -= summed(self._comm, slopes.T @ moved)
        return direct

    def adjoint(self, equilibrium: Equilibrium, chain: np.ndarray) -> np.ndarray:
        """Derivative (r, n) of combinations `chain` (r, K) of the integrals by the parameters; see `tangent`."""
        direct = chain @ self.partial()
        rows = self._state_rows(chain)
        if rows.size:
            slopes = self.slopes.assemble().times() @ chain[rows].T
            states = equilibrium.solve_tangent(slopes, transposed=True)
            direct[rows] -= summed(self._comm, self.loads.assemble().transposed_times(states))
        return direct

    def jacobian(self, equilibrium: Equilibrium, chain: np.ndarray, *, method: Method = "auto") -> np.ndarray:
        """Derivative (r, n) of combinations `chain` (r, K) of the integrals by whichever method is cheaper."""
        if method == "auto":
            method = "adjoint" if self._state_rows(chain).size <= self.shape[1] else "tangent"
        return self.adjoint(equilibrium, chain) if method == "adjoint" else self.tangent(equilibrium, chain)

    def close(self) -> None:
        """Free matrices. Collective."""
        self.loads.close()

    def _state_rows(self, chain: np.ndarray) -> np.ndarray:
        """Rows of a combination that depend on the state."""
        return np.flatnonzero(np.any(chain[:, self.by_state] != 0.0, axis=1))
