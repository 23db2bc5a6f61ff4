r"""Derivatives of the integrals of a state whose ties change with the shape of the mesh.

With ties A(m) u = 0, reactions Aᵀ μ in balance with the residual F, and a change w of followers such that A w = -A' u,

    dI/dm = ∂I/∂m + ∂I/∂u w − (∂I/∂u) K⁻¹ (∂F/∂m + A'ᵀ μ + K w),

where K⁻¹ is that of the system with ties: w is to them what the derivative of prescribed values is to supports.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sobofem.fem.assembly.stacking import summed
from sobofem.fem.derivatives.sensitivity import Sensitivity, System
from sobofem.fem.solving.equilibrium import Equilibrium


class MovingTiesSensitivity(Sensitivity):
    """As `Sensitivity`, where shapes change ties.

    Args:
        system: F, I and m.
        moving: Columns of the parameters that change ties, with the motion (nodes, gdim) of the geometry's nodes.
    """

    def __init__(self, system: System, moving: Mapping[int, np.ndarray]) -> None:
        super().__init__(system)
        self._unknown, self._velocities, self._columns = system.unknown, list(moving.values()), list(moving)

    def tangent(self, equilibrium: Equilibrium, chain: np.ndarray, directions: np.ndarray | None = None) -> np.ndarray:
        """Derivative (r, d) of combinations of the integrals along directions; see `Sensitivity`."""
        carried, loads = self._by_ties(equilibrium)
        total = self.loads.assemble().times()
        total[:, self._columns] += loads
        moved = -equilibrium.solve_tangent(total if directions is None else total @ directions)
        mix = np.eye(self.shape[1]) if directions is None else directions
        moved += carried @ mix[self._columns]
        slopes = self._free_slopes(equilibrium, chain)
        return np.asarray(chain @ self.partial() @ mix + summed(self._comm, slopes.T @ moved))

    def adjoint(self, equilibrium: Equilibrium, chain: np.ndarray) -> np.ndarray:
        """Derivative (r, n) of combinations of the integrals by the parameters; see `Sensitivity`."""
        carried, loads = self._by_ties(equilibrium)
        slopes = self._free_slopes(equilibrium, chain)
        states = equilibrium.solve_tangent(slopes, transposed=True)
        found = chain @ self.partial() - summed(self._comm, self.loads.assemble().transposed_times(states))
        found[:, self._columns] += summed(self._comm, slopes.T @ carried - states.T @ loads)
        return np.asarray(found)

    def _free_slopes(self, equilibrium: Equilibrium, chain: np.ndarray) -> np.ndarray:
        """By the state (owned, r), of combinations of the integrals."""
        slopes = self.slopes.assemble().times() @ chain.T
        slopes[equilibrium.constrained] = 0.0
        return np.asarray(slopes)

    def _by_ties(self, equilibrium: Equilibrium) -> tuple[np.ndarray, np.ndarray]:
        """w, and A'ᵀ μ + K w, (owned, moving shapes)."""
        assert equilibrium.ties is not None
        force = equilibrium.total_force()
        state = self._unknown.x.array[: len(force)]
        carried, pulled = equilibrium.ties.motion(self._velocities, state, force)
        return carried, pulled + equilibrium.tangent.times(carried)
