r"""Derivative of the integrals of a solution by the parameters, on the factorization that found it.

With residual F(u, m) = 0 and integral I(u, m),

    dI/dm = ∂I/∂m + ∂I/∂u w − (∂I/∂u) K⁻¹ (∂F/∂m + K w),    K = ∂F/∂u,

where w is the derivative of prescribed boundary values. The bracket on the right is one dense matrix with a
column per parameter (the loads), ∂I/∂u one with a column per integral. The tangent method applies K⁻¹ to the
first, the adjoint method K⁻ᵀ to the second: the same answer, at the cost of as many back-substitutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from mpi4py import MPI
import dolfinx
import numpy as np

from fem.assembly import Functionals, LinearForms
from fem.equilibrium import Equilibrium
from fem.forms import Member

Method = Literal["auto", "adjoint", "tangent"]
METHODS = ("auto", "adjoint", "tangent")


class Sensitivity:
    """Compiled derivatives of K integrals by n parameters.

    Args:
        space: The space of the unknown.
        loads: Derivatives of the residual by the parameters, n linear forms.
        slopes: Derivatives of the integrals by the unknown, K linear forms.
        partial: Derivatives of each integral by the parameters at fixed state, K rows of n functionals.
    """

    def __init__(
        self,
        space: dolfinx.fem.FunctionSpace,
        loads: Sequence[Member],
        slopes: Sequence[Member],
        partial: Sequence[Sequence[Member]],
    ) -> None:
        self._comm = space.mesh.comm
        self._shape = (len(slopes), len(loads))
        self._by_state = np.array([not slope.empty for slope in slopes])
        self._loads = LinearForms(loads, space)
        self._slopes = LinearForms(slopes, space)
        self._partial = Functionals([member for row in partial for member in row], space.mesh)

    def jacobian(self, equilibrium: Equilibrium, chain: np.ndarray, *, method: Method = "auto") -> np.ndarray:
        """Jacobian (m, n) of responses whose derivative by the integrals is `chain` (m, K).

        Collective. `equilibrium` holds the factorized tangent at the solution.

        Raises:
            NotConverged: If a solve with the tangent fails.
        """
        direct = chain @ self._partial.assemble().reshape(self._shape)
        rows = np.flatnonzero(np.any(chain[:, self._by_state] != 0.0, axis=1))
        if not rows.size:
            return direct
        loads = self._loads.assemble()
        slopes = self._slopes.assemble() @ chain[rows].T
        if method == "auto":
            method = "adjoint" if rows.size <= loads.shape[1] else "tangent"
        if method == "adjoint":
            adjoint = equilibrium.solve_tangent(slopes, transposed=True)
            local = adjoint.T @ loads
        else:
            tangent = equilibrium.solve_tangent(loads)
            slopes[equilibrium.constrained] = 0.0
            local = slopes.T @ tangent
        if self._comm.size > 1:
            local = self._comm.allreduce(local, op=MPI.SUM)
        direct[rows] -= local
        return direct
