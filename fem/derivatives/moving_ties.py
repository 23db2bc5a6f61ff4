r"""Derivatives of the integrals of a state whose ties change with the shape of the mesh.

With ties A(m) u = 0, reactions Aᵀ μ in balance with the residual F, and a change w of followers such that A w = -A' u,

    dI/dm = ∂I/∂m + ∂I/∂u w − (∂I/∂u) K⁻¹ (∂F/∂m + A'ᵀ μ + K w),

where K⁻¹ is that of the system with ties: w is to them what the derivative of prescribed values is to supports.
Modes φ that obey ties change by such a w, too; for the rest their eigenvalues are stationary in them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import ufl

from sobofem.fem.assembly.families import LinearForms
from sobofem.fem.assembly.forms import Member, by_function
from sobofem.fem.assembly.stacking import summed
from sobofem.fem.derivatives.sensitivity import Sensitivity, System
from sobofem.fem.responses import ModeShapes
from sobofem.fem.solving.equilibrium import Equilibrium
from sobofem.fem.solving.ties import Ties


class Moving(NamedTuple):
    """Ties that shapes change.

    Attributes:
        of_unknown: Columns of the shapes that change those of the unknown, with motions (nodes, gdim) of the geometry.
        of_modes: The same for those of modes.
        own: Ties of the unknown.
    """

    of_unknown: Mapping[int, np.ndarray]
    of_modes: Mapping[ModeShapes, Mapping[int, np.ndarray]]
    own: Ties | None

    @property
    def ties(self) -> list[Ties]:
        """All that change."""
        every = [self.own if self.of_unknown else None, *(modes.ties for modes in self.of_modes)]
        return [ties for ties in every if ties is not None]


class MovingModes:
    """Derivatives of integrals by shapes, as far as these move what follows in modes. Collective.

    Args:
        integrals: K of them, expanded.
        moving: Modes whose ties shapes change, with columns and motions of these.
    """

    def __init__(self, integrals: Sequence[ufl.Form], moving: Mapping[ModeShapes, Mapping[int, np.ndarray]]) -> None:
        self._parts = []
        for modes, motions in moving.items():
            for mode in modes.functions:
                own = [k for k, integral in enumerate(integrals) if mode in integral.coefficients()]
                space, test = mode.function_space, ufl.TestFunction(mode.function_space)
                forms = LinearForms([Member(by_function(integrals[k], mode, test)) for k in own], space)
                self._parts.append((modes.ties, motions, mode, own, forms))

    def add_to(self, partial: np.ndarray) -> None:
        """Add them to derivatives (K, n) at fixed modes."""
        for ties, motions, mode, own, forms in self._parts:
            assert ties is not None
            slopes = forms.assemble().times()
            state = mode.x.array[: len(slopes)]
            carried, _ = ties.motion(list(motions.values()), state, np.zeros_like(state))
            comm = mode.function_space.mesh.comm
            partial[np.ix_(own, list(motions))] += summed(comm, slopes.T @ carried)


class MovingTiesSensitivity(Sensitivity):
    """As `Sensitivity`, where shapes change ties.

    Args:
        system: F, I and m.
        moving: Columns of the parameters that change ties, with the motion (nodes, gdim) of the geometry's nodes.
        beside: As of a `Sensitivity`.
    """

    def __init__(
        self, system: System, moving: Mapping[int, np.ndarray], beside: Callable[[np.ndarray], None] | None = None
    ) -> None:
        super().__init__(system, beside)
        self._unknown, self._velocities, self._columns = system.unknown, list(moving.values()), list(moving)

    def followed(
        self, equilibrium: Equilibrium, directions: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray | float]:
        """Along directions (n, d): the loads with those of ties, and the change of followers; see `Sensitivity`."""
        carried, loads = self._moved_by_ties(equilibrium)
        total = self.loads.assemble().times().copy()
        total[:, self._columns] += loads
        mix = np.eye(self.shape[1]) if directions is None else directions
        return total @ mix, carried @ mix[self._columns]

    def by_ties(self, equilibrium: Equilibrium, slopes: np.ndarray, states: np.ndarray) -> np.ndarray | float:
        """In the columns of shapes that change ties; see `Sensitivity`."""
        carried, loads = self._moved_by_ties(equilibrium)
        found = np.zeros((slopes.shape[1], self.shape[1]))
        found[:, self._columns] = summed(self._comm, slopes.T @ carried - states.T @ loads)
        return found

    def tangent(self, equilibrium: Equilibrium, chain: np.ndarray, directions: np.ndarray | None = None) -> np.ndarray:
        """Derivative (r, d) of combinations of the integrals along directions; see `Sensitivity`."""
        loads, carried = self.followed(equilibrium, directions)
        moved = carried - equilibrium.solve_tangent(loads)
        partial = chain @ self.partial()
        slopes = self._free_slopes(equilibrium, chain)
        return np.asarray(
            (partial if directions is None else partial @ directions) + summed(self._comm, slopes.T @ moved)
        )

    def adjoint(self, equilibrium: Equilibrium, chain: np.ndarray) -> np.ndarray:
        """Derivative (r, n) of combinations of the integrals by the parameters; see `Sensitivity`."""
        slopes = self._free_slopes(equilibrium, chain)
        states = equilibrium.solve_tangent(slopes, transposed=True)
        found = chain @ self.partial() - summed(self._comm, self.loads.assemble().transposed_times(states))
        return np.asarray(found + self.by_ties(equilibrium, slopes, states))

    def _free_slopes(self, equilibrium: Equilibrium, chain: np.ndarray) -> np.ndarray:
        """By the state (owned, r), of combinations of the integrals."""
        slopes = self.slopes.assemble().times() @ chain.T
        slopes[equilibrium.constrained] = 0.0
        return np.asarray(slopes)

    def _moved_by_ties(self, equilibrium: Equilibrium) -> tuple[np.ndarray, np.ndarray]:
        """w, and A'ᵀ μ + K w, (owned, moving shapes)."""
        assert equilibrium.ties is not None
        force = equilibrium.total_force()
        state = self._unknown.x.array[: len(force)]
        carried, pulled = equilibrium.ties.motion(self._velocities, state, force)
        return carried, pulled + equilibrium.tangent.times(carried)
